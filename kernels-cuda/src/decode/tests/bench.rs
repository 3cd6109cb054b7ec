//! Time of a token and of each of its kernels.

use half::bf16;
use onebit_kernels_cpu::ternary::Layout;

use super::attention::rotation;
use crate::decode::*;
use crate::device::{DeviceArray, Gpu};
use crate::ternary_gemv::tests::{Both, Random, microseconds};
use crate::ternary_gemv::{Epilogue, TernaryMatrix, normed_ternary_gemv};

/// A network with weights that need not mean anything, filled on the GPU.
fn synthetic(
    gpu: &Gpu,
    shape: DecodeShape,
    depth: usize,
    vocab: usize,
    kind: FloatKind,
    layout: Layout,
) -> DecodeModel {
    let random = &mut Random(3);
    let DecodeShape {
        hidden,
        heads,
        kv_heads,
        head_dim,
        inner,
        ..
    } = shape;
    let ones = |n: usize| gpu.upload(&vec![1.0f32; n]).unwrap();
    let both = |random: &mut Random, rows: usize, cols: usize| Both::new(random, layout, rows, cols);
    let qkv = [heads, kv_heads, kv_heads].map(|heads| both(random, heads * head_dim, hidden));
    let (o, down) = (both(random, hidden, heads * head_dim), both(random, hidden, inner));
    let (gate, up) = (both(random, inner, hidden), both(random, inner, hidden));
    // Layers are equal, and lie in memory of their own.
    let layers = (0..depth).map(|_| DecodeLayer {
        input_norm: ones(hidden),
        post_attention_norm: ones(hidden),
        qk_norms: None,
        attn_sub_norm: Some(ones(heads * head_dim)),
        ffn_sub_norm: Some(ones(inner)),
        qkv: TernaryMatrix::stacked(gpu, &qkv.each_ref().map(Both::part)).unwrap(),
        o: TernaryMatrix::stacked(gpu, &[o.part()]).unwrap(),
        up: TernaryMatrix::paired(gpu, gate.part(), up.part()).unwrap(),
        down: TernaryMatrix::stacked(gpu, &[down.part()]).unwrap(),
    });
    let layers = layers.collect();
    let values: Vec<u8> = match kind {
        FloatKind::Int8 => (0..vocab * hidden).map(|_| random.next() as u8).collect(),
        _ => (0..vocab * hidden)
            .flat_map(|_| bf16::from_f32(random.float()).to_le_bytes())
            .collect(),
    };
    let steps = vec![0.01; vocab];
    let steps = (kind == FloatKind::Int8).then_some(&steps[..]);
    let embedding = VocabularyMatrix::upload(gpu, kind, [vocab, hidden], &values, steps).unwrap();
    DecodeModel {
        shape,
        embedding,
        head: None,
        norm: ones(hidden),
        layers,
    }
}

#[test]
#[ignore = "a bench"]
fn bench_decode() {
    let Some(gpu) = Gpu::for_test("bench_decode") else {
        return;
    };
    let shape = DecodeShape {
        hidden: 2560,
        heads: 20,
        kv_heads: 5,
        head_dim: 128,
        inner: 6912,
        eps: 1e-5,
        residual_scale: 1.0,
        feed_forward: FeedForwardKind::GatedRelu2,
    };
    for (layout, kind) in [
        (Layout::T2, FloatKind::Int8),
        (Layout::T5, FloatKind::Int8),
        (Layout::T2, FloatKind::Bf16),
    ] {
        let model = synthetic(&gpu, shape, 30, 128_256, kind, layout);
        for (kv, context) in [(KvKind::F16, 128), (KvKind::F16, 4096)] {
            let (table, _) = rotation(&gpu, 128, context);
            let state = DecodeState::new(&gpu, &model, kv, context, 1, table).unwrap();
            let tokens = 64;
            state
                .place(&gpu, context - tokens - 8, &[1], context - tokens - 8)
                .unwrap();
            let graph = gpu.record(|| model.step(&gpu, &state, 1, Logits::Next)).unwrap();
            for _ in 0..8 {
                graph.launch().unwrap();
            }
            let before = gpu.mark().unwrap();
            for _ in 0..tokens - 1 {
                graph.launch().unwrap();
            }
            let token = gpu.mark().unwrap().seconds_since(&before).unwrap() / (tokens - 1) as f64;
            let speed = model.bytes_per_token() as f64 / token / 1e9;
            println!(
                "decode 2B-4T {} {kind:?} head, context {context}: {:.1} us a token, {:.0} tokens/s, {speed:.0} GB/s of weights",
                layout.name(),
                token * 1e6,
                1.0 / token
            );
        }
        parts(&gpu, &model, kind);
    }
}

/// Each kernel of a token by itself, one layer after the other.
fn parts(gpu: &Gpu, model: &DecodeModel, kind: FloatKind) {
    let array = |len: usize| gpu.upload(&vec![0.5f32; len]).unwrap();
    let (x, qkv, mixed, active) = (array(2560), array(3840), array(2560), array(6912));
    let layers = &model.layers;
    let run = |matrix: fn(&DecodeLayer) -> &TernaryMatrix,
               x: &DeviceArray<f32>,
               norm: &DeviceArray<f32>,
               epilogue: Epilogue<'_>| {
        microseconds(gpu, layers.len(), |i| {
            normed_ternary_gemv(gpu, matrix(&layers[i]), x, Some(norm), 1e-5, epilogue)
        })
    };
    let (norm, wide) = (&layers[0].input_norm, layers[0].ffn_sub_norm.as_ref().unwrap());
    println!(
        "  qkv {:.2} us",
        run(|layer| &layer.qkv, &x, norm, Epilogue::Store(&qkv))
    );
    println!(
        "  o {:.2} us",
        run(|layer| &layer.o, &mixed, norm, Epilogue::Add(&x, 1.0))
    );
    println!(
        "  gate, up {:.2} us",
        run(|layer| &layer.up, &x, norm, Epilogue::GatedRelu2(&active))
    );
    println!(
        "  down {:.2} us",
        run(|layer| &layer.down, &active, wide, Epilogue::Add(&x, 1.0))
    );
    let cache = KvCache::new(gpu, KvKind::F16, 30, 5, 128, 4096).unwrap();
    let attention = Attention::new(gpu, 20, 1e-5, 1, rotation(gpu, 128, 4096).0, &cache).unwrap();
    for position in [0u32, 100, 1000, 4000] {
        let place = gpu.upload(&[position]).unwrap();
        let time = microseconds(gpu, 30, |i| {
            attend(gpu, &attention, &cache, i, &qkv, None, &place, &mixed)
        });
        println!("  attention at {position}: {time:.2} us");
    }
    let output = HeadOutput::new(gpu, 1, 4096).unwrap();
    let time = microseconds(gpu, 4, |_| head(gpu, model.head(), &x, norm, 1e-5, None, &output, 0));
    println!(
        "  head {time:.2} us, {:.0} GB/s ({kind:?})",
        model.head().bytes() as f64 / time / 1e3
    );
}
