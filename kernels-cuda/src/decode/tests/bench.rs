//! Time of a token and of each of its kernels.

use super::attention::rotation;
use super::head::Floats;
use crate::decode::*;
use crate::device::{DeviceArray, Gpu};
use crate::mixed_linear::LinearStack;
use crate::ternary_gemv::tests::{Random, microseconds};
use crate::ternary_gemv::{Epilogue, TernaryCode, TernaryMatrix, normed_ternary_gemv};

/// 2B-4T.
const SHAPE: DecodeShape = DecodeShape {
    hidden: 2560,
    heads: 20,
    kv_heads: 5,
    head_dim: 128,
    inner: 6912,
    eps: 1e-5,
    softcap: None,
    residual_scale: 1.0,
    feed_forward: FeedForwardKind::GatedRelu2,
};

/// A network with weights that need not mean anything: each layer in memory of its own.
fn synthetic(
    gpu: &Gpu,
    shape: DecodeShape,
    depth: usize,
    vocab: usize,
    kind: FloatKind,
    code: TernaryCode,
) -> DecodeModel {
    let DecodeShape {
        hidden,
        heads,
        kv_heads,
        head_dim,
        inner,
        ..
    } = shape;
    let ones = |n: usize| gpu.upload(&vec![1.0f32; n]).unwrap();
    let matrix = |rows: usize, cols: usize, paired: bool| {
        LinearStack::from(TernaryMatrix::synthetic(gpu, code, rows, cols, paired).unwrap())
    };
    let layers = (0..depth).map(|_| DecodeLayer {
        input_norm: ones(hidden),
        post_attention_norm: ones(hidden),
        qk_norms: None,
        attn_sub_norm: Some(ones(heads * head_dim)),
        ffn_sub_norm: Some(ones(inner)),
        qkv: matrix((heads + 2 * kv_heads) * head_dim, hidden, false),
        o: matrix(hidden, heads * head_dim, false),
        up: matrix(inner, hidden, true),
        down: matrix(hidden, inner, false),
    });
    DecodeModel {
        shape,
        embedding: VocabularyMatrix::synthetic(gpu, kind, [vocab, hidden]).unwrap().into(),
        head: None,
        sketch: None,
        norm: ones(hidden),
        layers: layers.collect(),
    }
}

#[test]
#[ignore = "a bench"]
fn bench_decode() {
    let Some(gpu) = Gpu::for_test("bench_decode") else {
        return;
    };
    for (code, kind) in [
        (TernaryCode::T2, FloatKind::Int8),
        (TernaryCode::T5, FloatKind::Int8),
        (TernaryCode::T2, FloatKind::F16),
    ] {
        let mut model = synthetic(&gpu, SHAPE, 30, 128_256, kind, code);
        if kind == FloatKind::F16 {
            // Of rows that are all the same a sketch leaves all.
            let mut random = Random::seeded("bench_decode");
            let embedding = Floats::new(&mut random, kind, 128_256, SHAPE.hidden).upload(&gpu);
            model.sketch = HeadSketch::new(&gpu, &embedding).unwrap();
            model.embedding = embedding.into();
        }
        for (kv, context, from) in [
            (KvKind::F16, 128, 56),
            (KvKind::F16, 256, 56),
            (KvKind::F16, 256, 184),
            (KvKind::F16, 4096, 56),
            (KvKind::F16, 4096, 4024),
        ] {
            let (table, _) = rotation(&gpu, 128, context);
            let room = Room {
                context,
                tokens: 1,
                chunk: 0,
            };
            let state = DecodeState::new(&gpu, &model, kv, room, table).unwrap();
            // A recording of one token, and of eight.
            for together in [1, 8] {
                let tokens = 64;
                state.place(&gpu, from, &[1], from).unwrap();
                let state = state.expecting((from + tokens + 8).next_power_of_two());
                let step = || model.step(&gpu, &state, 1, Logits::Largest);
                let graph = gpu.record(|| (0..together).try_for_each(|_| step())).unwrap();
                for _ in 0..8 / together {
                    graph.launch().unwrap();
                }
                gpu.synchronize().unwrap();
                let (before, began) = (gpu.mark().unwrap(), std::time::Instant::now());
                for _ in 0..tokens / together {
                    graph.launch().unwrap();
                }
                let launched = began.elapsed().as_secs_f64() / tokens as f64;
                let token = gpu.mark().unwrap().seconds_since(&before).unwrap() / tokens as f64;
                let speed = model.bytes_per_token() as f64 / token / 1e9;
                println!(
                    "decode 2B-4T {code:?} {kind:?} head, from {from} of {context}, {together} a recording: {:.1} us a token, {:.0} tokens/s, {speed:.0} GB/s of weights; \
                     launching {:.1} us of the host",
                    token * 1e6,
                    1.0 / token,
                    launched * 1e6
                );
            }
        }
        parts(&gpu, &model, kind);
    }
}

/// A prompt of 512 tokens: as one chunk, and in steps of 16.
#[test]
#[ignore = "a bench"]
fn bench_prefill() {
    let Some(gpu) = Gpu::for_test("bench_prefill") else {
        return;
    };
    let tokens = 512;
    for code in [TernaryCode::T2, TernaryCode::T5] {
        let model = synthetic(&gpu, SHAPE, 30, 128_256, FloatKind::Int8, code);
        for before in [0, 3584] {
            let context = before + tokens;
            let (table, _) = rotation(&gpu, 128, context);
            let state = DecodeState::new(&gpu, &model, KvKind::F16, Room::new(&SHAPE, context), table).unwrap();
            let time = |run: &dyn Fn()| {
                let mut times: Vec<f64> = (0..5)
                    .map(|_| {
                        let start = std::time::Instant::now();
                        run();
                        gpu.synchronize().unwrap();
                        start.elapsed().as_secs_f64()
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                times[2]
            };
            let ids = vec![1; tokens];
            let chunk = time(&|| {
                state.place(&gpu, before, &ids, before).unwrap();
                model.prefill(&gpu, &state, tokens).unwrap();
                model.logits(&gpu, &state, tokens - 1..tokens, 0).unwrap();
            });
            let steps = time(&|| {
                for at in (before..context).step_by(16) {
                    state.place(&gpu, at, &ids[..16], at).unwrap();
                    model.step(&gpu, &state, 16, Logits::None).unwrap();
                }
                model.logits(&gpu, &state, 15..16, 0).unwrap();
            });
            let speed = |seconds: f64| tokens as f64 / seconds;
            println!(
                "prefill 2B-4T {code:?}, {tokens} tokens after {before}: a chunk {:.2} ms, {:.0} tokens/s; steps of 16 {:.2} ms, {:.0} tokens/s",
                chunk * 1e3,
                speed(chunk),
                steps * 1e3,
                speed(steps)
            );
            let layers = model.layers.len();
            let qkv = gpu.zeros::<f32>(tokens * 3840).unwrap();
            let mixed = gpu.zeros::<f32>(tokens * 2560).unwrap();
            let attention = microseconds(&gpu, layers, |i| {
                let position = &state.output.position;
                attend_many(&gpu, &state.attention, &state.cache, i, &qkv, None, position, &mixed)
            });
            println!("  attention {attention:.1} us a layer");
        }
    }
}

/// Each kernel of a token by itself, one layer after the other.
fn parts(gpu: &Gpu, model: &DecodeModel, kind: FloatKind) {
    let array = |len: usize| gpu.upload(&vec![0.5f32; len]).unwrap();
    let (x, qkv, mixed, active) = (array(2560), array(3840), array(2560), array(6912));
    let layers = &model.layers;
    let run = |stack: fn(&DecodeLayer) -> &LinearStack,
               x: &DeviceArray<f32>,
               norm: &DeviceArray<f32>,
               epilogue: Epilogue<'_>| {
        microseconds(gpu, layers.len(), |i| {
            let matrix = stack(&layers[i]).single().unwrap();
            normed_ternary_gemv(gpu, matrix, x, Some(norm), 1e-5, epilogue)
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
    let Vocabulary::Floats(matrix) = model.head() else {
        return;
    };
    let time = microseconds(gpu, 4, |_| head(gpu, matrix, &x, norm, (1e-5, None), None, &output, 0));
    println!(
        "  head {time:.2} us, {:.0} GB/s ({kind:?})",
        model.head().bytes() as f64 / time / 1e3
    );
    if let Some(sketch) = &model.sketch {
        let buffers = SketchBuffers::new(gpu, [model.head().rows(), SHAPE.hidden]).unwrap();
        let head = (matrix, sketch);
        let time = microseconds(gpu, 4, |_| {
            largest(gpu, head, &x, norm, (1e-5, None), &buffers, &output, 0)
        });
        println!(
            "  its sketch {time:.2} us, {:.0} GB/s",
            sketch.bytes() as f64 / time / 1e3
        );
    }
}
