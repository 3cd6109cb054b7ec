//! A whole network, token by token.

use onebit_kernels_cpu::{Isa, activation, elementwise, quantize, rms_norm, softcap};

use super::attention::{Cpu, cpu_attend, cpu_cache, rotation};
use super::head::{Floats, KINDS, greedy};
use crate::decode::*;
use crate::device::Gpu;
use crate::mixed_linear::LinearStack;
use crate::ternary_gemv::tests::{Both, CODES, Random, bits, small};
use crate::ternary_gemv::{TernaryCode, TernaryMatrix, TernaryPart};

/// A layer on the CPU.
struct Layer {
    norms: [Vec<f32>; 2],
    qk_norms: Option<[Vec<f32>; 2]>,
    sub_norms: Option<[Vec<f32>; 2]>,
    /// q, k, v, o, gate, up, down.
    linears: Vec<Both>,
}

/// A small network on both sides.
struct Network {
    shape: DecodeShape,
    layers: Vec<Layer>,
    embedding: Floats,
    norm: Vec<f32>,
}

impl Network {
    fn new(
        random: &mut Random,
        code: TernaryCode,
        shape: DecodeShape,
        depth: usize,
        options: bool,
        kind: FloatKind,
        vocab: usize,
    ) -> Self {
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            inner,
            ..
        } = shape;
        let layers = (0..depth).map(|_| {
            let sizes = [
                (heads * head_dim, hidden),
                (kv_heads * head_dim, hidden),
                (kv_heads * head_dim, hidden),
                (hidden, heads * head_dim),
                (inner, hidden),
                (inner, hidden),
                (hidden, inner),
            ];
            Layer {
                norms: [random.floats(hidden), random.floats(hidden)],
                qk_norms: options.then(|| [random.floats(head_dim), random.floats(head_dim)]),
                sub_norms: options.then(|| [random.floats(heads * head_dim), random.floats(inner)]),
                linears: sizes
                    .iter()
                    .map(|&(rows, cols)| Both::new(random, code, rows, cols))
                    .collect(),
            }
        });
        let layers = layers.collect();
        Network {
            shape,
            layers,
            embedding: Floats::new(random, kind, vocab, hidden),
            norm: random.floats(hidden),
        }
    }

    fn upload(&self, gpu: &Gpu) -> DecodeModel {
        let put = |x: &Vec<f32>| gpu.upload(x).unwrap();
        let stacked = |parts: &[&Both]| {
            let parts: Vec<TernaryPart<'_>> = parts.iter().map(|both| both.part()).collect();
            LinearStack::from(TernaryMatrix::stacked(gpu, &parts).unwrap())
        };
        let layers = self.layers.iter().map(|layer| {
            let [q, k, v, o, gate, up, down] = &layer.linears[..] else {
                unreachable!()
            };
            DecodeLayer {
                input_norm: put(&layer.norms[0]),
                post_attention_norm: put(&layer.norms[1]),
                qk_norms: layer.qk_norms.as_ref().map(|norms| norms.each_ref().map(put)),
                attn_sub_norm: layer.sub_norms.as_ref().map(|norms| put(&norms[0])),
                ffn_sub_norm: layer.sub_norms.as_ref().map(|norms| put(&norms[1])),
                qkv: stacked(&[q, k, v]),
                o: stacked(&[o]),
                up: match self.shape.feed_forward {
                    FeedForwardKind::Relu2 => stacked(&[up]),
                    _ => TernaryMatrix::paired(gpu, gate.part(), up.part()).unwrap().into(),
                },
                down: stacked(&[down]),
            }
        });
        let embedding = self.embedding.upload(gpu);
        DecodeModel {
            shape: self.shape,
            sketch: HeadSketch::new(gpu, &embedding).unwrap(),
            embedding: embedding.into(),
            head: None,
            norm: put(&self.norm),
            layers: layers.collect(),
        }
    }

    fn project(&self, parts: &[&Both], x: &[f32], norm: Option<&Vec<f32>>) -> Vec<f32> {
        let (isa, stride) = (Isa::best(), x.len().next_multiple_of(parts[0].code.block()));
        let (mut xq, mut scale) = (vec![0; stride], [0.0]);
        match norm {
            Some(w) => rms_norm::rms_norm_i8(isa, x, w, self.shape.eps, &mut xq, stride, &mut scale),
            None => quantize::absmax_i8(isa, x, x.len(), &mut xq, stride, &mut scale),
        }
        parts.iter().flat_map(|part| part.product(&xq, scale[0])).collect()
    }

    /// Logits of a token.
    fn read(&self, caches: &mut [Vec<Cpu>], table: [&[f32]; 2], id: u32, position: usize) -> Vec<f32> {
        let (
            isa,
            DecodeShape {
                heads,
                head_dim,
                inner,
                residual_scale,
                ..
            },
        ) = (Isa::best(), self.shape);
        let mut x = self.embedding.row(id as usize);
        for (layer, cache) in self.layers.iter().zip(caches) {
            let [q, k, v, o, gate, up, down] = &layer.linears[..] else {
                unreachable!()
            };
            let qkv = self.project(&[q, k, v], &x, Some(&layer.norms[0]));
            let norms = layer.qk_norms.as_ref().map(|norms| norms.each_ref().map(|w| &w[..]));
            let mixed = cpu_attend(cache, [heads, head_dim], &qkv, norms, table, position);
            let sub = |i: usize| layer.sub_norms.as_ref().map(|norms| &norms[i]);
            elementwise::axpy(isa, residual_scale, &self.project(&[o], &mixed, sub(0)), &mut x);
            let (g, u) = (
                self.project(&[gate], &x, Some(&layer.norms[1])),
                self.project(&[up], &x, Some(&layer.norms[1])),
            );
            let mut active = vec![0.0; inner];
            match self.shape.feed_forward {
                FeedForwardKind::Relu2 => activation::relu2(isa, &u, &mut active),
                FeedForwardKind::GatedRelu2 => activation::relu2_gate(isa, &g, &u, &mut active),
                FeedForwardKind::SwiGlu => activation::swiglu(isa, &g, &u, &mut active),
            }
            elementwise::axpy(isa, residual_scale, &self.project(&[down], &active, sub(1)), &mut x);
        }
        let mut normed = vec![0.0; x.len()];
        rms_norm::rms_norm(isa, &x, &self.norm, self.shape.eps, &mut normed);
        let mut logits = self.embedding.product(&normed);
        if let Some(cap) = self.shape.softcap {
            softcap::softcap(isa, cap, &mut logits);
        }
        logits
    }
}

#[test]
fn a_network_writes_the_tokens_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("a network, token by token") else {
        return;
    };
    let mut random = Random::seeded("a network, token by token");
    for (i, feed_forward) in [
        FeedForwardKind::GatedRelu2,
        FeedForwardKind::Relu2,
        FeedForwardKind::SwiGlu,
    ]
    .into_iter()
    .enumerate()
    {
        let shape = DecodeShape {
            hidden: 72,
            heads: 6,
            kv_heads: 2,
            head_dim: 16,
            inner: 150,
            eps: 1e-5,
            softcap: [None, Some(2.0), Some(30.0)][i],
            residual_scale: [1.0, 0.6, 1.0][i],
            feed_forward,
        };
        let (code, kind) = (CODES[i], KINDS[3 - i]);
        let network = Network::new(&mut random, code, shape, 2, i > 0, kind, 211);
        let (model, kv) = (network.upload(&gpu), [KvKind::F32, KvKind::F16, KvKind::Int8][i]);
        let length = if small(&gpu) { 22 } else { 300 };
        let (table, [cos, sin]) = rotation(&gpu, 16, 384);
        let room = Room {
            context: 384,
            tokens: 8,
            chunk: 0,
        };
        let state = DecodeState::new(&gpu, &model, kv, room, table).unwrap();
        let mut caches: Vec<_> = (0..2).map(|_| cpu_cache(kv, 2, 16, 384)).collect();
        // A prompt of several tokens, then one token at a time out of a recording, which nobody tells anything.
        let prompt: Vec<u32> = (0..11).map(|_| (random.next() % 211) as u32).collect();
        let mut want = Vec::new();
        for (t, &id) in prompt.iter().enumerate() {
            want = network.read(&mut caches, [&cos, &sin], id, t);
        }
        let mut ids = prompt.clone();
        for t in prompt.len()..length {
            ids.push(greedy(&want));
            want = network.read(&mut caches, [&cos, &sin], ids[t], t);
        }
        state.place(&gpu, 0, &prompt, 0).unwrap();
        model.step(&gpu, &state, 8, Logits::None).unwrap();
        state.place(&gpu, 0, &prompt, 8).unwrap();
        model.step(&gpu, &state, 3, Logits::Next).unwrap();
        // A kernel that is used for the first time cannot be loaded while recording on every driver.
        let record = |logits| gpu.record(|| model.step(&gpu, &state, 1, logits)).unwrap();
        let (whole, sketched) = (record(Logits::Next), record(Logits::Largest));
        for t in prompt.len() + 1..length {
            [&whole, &sketched][t % 2].launch().unwrap();
        }
        whole.launch().unwrap();
        let found = gpu.download(&state.output.ids).unwrap();
        assert_eq!(found[..length], ids, "{feed_forward:?}");
        let logits = gpu.download(&state.logits.slice(..211)).unwrap();
        assert_eq!(bits(&logits), bits(&want), "{feed_forward:?}");
        assert!(model.step(&gpu, &state, 9, Logits::All).is_err());
        assert!(model.prefill(&gpu, &state, 1).is_err());
        assert!(model.logits(&gpu, &state, 7..9, 0).is_err());
        assert!(state.place(&gpu, 380, &prompt, 0).is_err());
    }
}

#[test]
fn chunks_of_a_prompt_give_what_steps_do() {
    let Some(gpu) = Gpu::for_test("a network, chunk by chunk") else {
        return;
    };
    let mut random = Random::seeded("a network, chunk by chunk");
    let kinds = [
        (FeedForwardKind::GatedRelu2, KvKind::F32),
        (FeedForwardKind::Relu2, KvKind::F16),
        (FeedForwardKind::SwiGlu, KvKind::Int8),
    ];
    for (i, (feed_forward, kv)) in kinds.into_iter().enumerate() {
        let shape = DecodeShape {
            hidden: 72,
            heads: 6,
            kv_heads: 2,
            head_dim: 16,
            inner: 150,
            eps: 1e-5,
            softcap: [None, Some(2.0), Some(30.0)][i],
            residual_scale: [1.0, 0.6, 1.0][i],
            feed_forward,
        };
        let network = Network::new(&mut random, CODES[i], shape, 2, i > 0, KINDS[i], 97);
        let model = network.upload(&gpu);
        let room = Room {
            context: 256,
            tokens: 16,
            chunk: 120,
        };
        let states = [(); 2].map(|()| DecodeState::new(&gpu, &model, kv, room, rotation(&gpu, 16, 256).0).unwrap());
        // More tokens than a block of positions has, in pieces that end within one and at its border.
        let (mut at, ids) = (0, (0..180).map(|_| (random.next() % 97) as u32).collect::<Vec<_>>());
        for piece in [33, 95, 1, 51] {
            states[0].place(&gpu, at, &ids[at..at + piece], at).unwrap();
            model.prefill(&gpu, &states[0], piece).unwrap();
            let mut want = Vec::new();
            for (few, ids) in ids[at..at + piece].chunks(16).enumerate() {
                states[1].place(&gpu, at + 16 * few, ids, at + 16 * few).unwrap();
                model.step(&gpu, &states[1], ids.len(), Logits::All).unwrap();
                let logits = gpu.download(&states[1].logits.slice(..97 * ids.len())).unwrap();
                want.extend(logits.chunks_exact(97).map(bits));
            }
            for first in (0..piece).step_by(16) {
                let rows = first..piece.min(first + 16);
                model.logits(&gpu, &states[0], rows.clone(), 0).unwrap();
                let found = gpu.download(&states[0].logits.slice(..97 * rows.len())).unwrap();
                for (row, found) in rows.zip(found.chunks_exact(97)) {
                    assert_eq!(bits(found), want[row], "{feed_forward:?} {kv:?}, token {}", at + row);
                }
            }
            at += piece;
        }
        for (a, b) in states[0].cache.heads().zip(states[1].cache.heads()) {
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(gpu.download(a).unwrap(), gpu.download(b).unwrap(), "{kv:?} cache");
            }
        }
        assert!(model.prefill(&gpu, &states[0], 121).is_err());
    }
}

#[test]
fn chunks_are_shorter_where_activations_are_wide() {
    let shape = |width: usize, head_dim: usize| DecodeShape {
        hidden: width,
        heads: width / head_dim,
        kv_heads: width / head_dim,
        head_dim,
        inner: 4 * width,
        eps: 1e-5,
        softcap: None,
        residual_scale: 1.0,
        feed_forward: FeedForwardKind::SwiGlu,
    };
    let chunk = |shape: DecodeShape, context: usize| Room::new(&shape, context).chunk;
    assert_eq!(chunk(shape(2560, 128), 4096), 512);
    assert_eq!(chunk(shape(2560, 128), 100), 100);
    assert_eq!(chunk(shape(2560, 128), 16), 0);
    assert_eq!(chunk(shape(2560, 256), 4096), 0);
    assert_eq!(chunk(shape(16_384, 128), 4096), 128);
}
