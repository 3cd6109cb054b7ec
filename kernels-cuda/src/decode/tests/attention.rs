//! Attention over the cache.

use half::f16;
use onebit_kernels_cpu::attention::cached::{self, KvHead, Queries};
use onebit_kernels_cpu::{Isa, rms_norm, rope};

use crate::decode::attention::attend_to;
use crate::decode::*;
use crate::device::Gpu;
use crate::ternary_gemv::tests::{Random, bits, small};
use crate::ternary_gemv::{
    Epilogue, MOST_PARTS, TernaryCode, TernaryMatrix, attended_ternary_gemv, normed_ternary_gemv, takes_parts,
};

/// The cache of a key head.
pub(super) type Cpu = KvHead<Vec<f32>, Vec<f16>, Vec<i8>>;

/// A layer's cache on the CPU.
pub(super) fn cpu_cache(kind: KvKind, heads: usize, dim: usize, context: usize) -> Vec<Cpu> {
    let (keys, values, scales) = (
        cached::key_len(context, dim),
        cached::value_len(context, dim),
        cached::scale_len(context),
    );
    let one = || match kind {
        KvKind::F32 => KvHead::F32 {
            keys: vec![0.0; keys],
            values: vec![0.0; values],
        },
        KvKind::F16 => KvHead::F16 {
            keys: vec![f16::ZERO; keys],
            values: vec![f16::ZERO; values],
        },
        KvKind::Int8 => KvHead::Int8 {
            keys: vec![0; keys],
            values: vec![0; values],
            key_scales: vec![0.0; scales],
            value_scales: vec![0.0; scales],
        },
    };
    (0..heads).map(|_| one()).collect()
}

/// Attention of one token on the CPU, from q, k and v as the product gives them.
pub(super) fn cpu_attend(
    cache: &mut [Cpu],
    [heads, dim]: [usize; 2],
    qkv: &[f32],
    norms: Option<[&[f32]; 2]>,
    [cos, sin]: [&[f32]; 2],
    position: usize,
) -> Vec<f32> {
    let (isa, kv) = (Isa::best(), cache.len());
    let (mut q, mut k) = (qkv[..heads * dim].to_vec(), qkv[heads * dim..][..kv * dim].to_vec());
    let v = &qkv[(heads + kv) * dim..];
    if let Some(norms) = norms {
        for (x, w) in [&mut q, &mut k].into_iter().zip(norms) {
            let from = x.clone();
            rms_norm::rms_norm(isa, &from, w, 1e-5, x);
        }
    }
    let at = position * dim / 2..(position + 1) * dim / 2;
    rope::rope(isa, &mut q, heads, dim, &cos[at.clone()], &sin[at.clone()], false);
    rope::rope(isa, &mut k, kv, dim, &cos[at.clone()], &sin[at], false);
    let (mut out, mut scratch) = (vec![0.0; heads * dim], vec![0.0; cached::scratch_len(dim)]);
    let group = heads / kv;
    for (i, head) in cache.iter_mut().enumerate() {
        cached::store(
            isa,
            head.view_mut(),
            dim,
            position,
            &k[i * dim..][..dim],
            &v[i * dim..][..dim],
            dim,
        );
        let queries = Queries {
            tokens: 1,
            group,
            head_dim: dim,
            stride: heads * dim,
            first: position,
        };
        let at = i * group * dim;
        cached::attend(isa, head.view(), queries, &q[at..], &mut out[at..], &mut scratch);
    }
    out
}

/// The table on both sides.
pub(super) fn rotation(gpu: &Gpu, dim: usize, context: usize) -> (Rotation, [Vec<f32>; 2]) {
    let (mut cos, mut sin) = (vec![0.0; context * dim / 2], vec![0.0; context * dim / 2]);
    rope::rope_table(10_000.0, dim, 0, &mut cos, &mut sin);
    (
        Rotation {
            cos: gpu.upload(&cos).unwrap(),
            sin: gpu.upload(&sin).unwrap(),
        },
        [cos, sin],
    )
}

#[test]
fn attention_has_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("attention over the cache") else {
        return;
    };
    let mut random = Random::seeded("attention over the cache");
    let shapes: &[(usize, usize, usize, usize)] = match small(&gpu) {
        // Heads, key heads, head_dim, positions.
        true => &[(4, 1, 16, 150), (3, 3, 20, 20), (6, 2, 16, 270)],
        false => &[
            (4, 1, 16, 150),
            (6, 2, 32, 270),
            (20, 5, 128, 700),
            (12, 12, 64, 1030),
            (32, 8, 128, 1100),
        ],
    };
    for &(heads, kv, dim, positions) in shapes {
        for kind in [KvKind::F32, KvKind::F16, KvKind::Int8] {
            if kind == KvKind::F32 && dim > 128 {
                continue;
            }
            let normed = random.next().is_multiple_of(2);
            let norms = [random.floats(dim), random.floats(dim)];
            let cache = KvCache::new(&gpu, kind, 2, kv, dim, positions).unwrap();
            let (table, [cos, sin]) = rotation(&gpu, dim, cache.context());
            let attention = Attention::new(&gpu, heads, 1e-5, 3, table, &cache).unwrap();
            let mut mirror = cpu_cache(kind, kv, dim, positions);
            let arrays = norms.each_ref().map(|w| gpu.upload(w).unwrap());
            let width = (heads + 2 * kv) * dim;
            let place = gpu.zeros::<u32>(1).unwrap();
            let (mut position, mut round) = (0, 0);
            while position < positions {
                let tokens = [1, 3, 2, 1][round % 4].min(positions - position);
                round += 1;
                let qkv = random.floats(tokens * width);
                gpu.write(&place, &[position as u32]).unwrap();
                let (x, out) = (
                    gpu.upload(&qkv).unwrap(),
                    gpu.poisoned::<f32>(tokens * heads * dim).unwrap(),
                );
                attend(
                    &gpu,
                    &attention,
                    &cache,
                    1,
                    &x,
                    normed.then_some(arrays.each_ref()),
                    &place,
                    &out,
                )
                .unwrap();
                let found = gpu.download(&out).unwrap();
                for (t, found) in found.chunks_exact(heads * dim).enumerate() {
                    let norms = normed.then_some(norms.each_ref().map(|w| &w[..]));
                    let want = cpu_attend(
                        &mut mirror,
                        [heads, dim],
                        &qkv[t * width..][..width],
                        norms,
                        [&cos, &sin],
                        position + t,
                    );
                    assert_eq!(
                        bits(found),
                        bits(&want),
                        "{heads}/{kv} x {dim} {kind:?}, position {position} + {t} of {tokens}"
                    );
                }
                position += tokens;
            }
            // A token outside the cache is not stored, and nothing is touched.
            gpu.write(&place, &[cache.context() as u32]).unwrap();
            let (x, out) = (gpu.zeros::<f32>(width).unwrap(), gpu.zeros::<f32>(heads * dim).unwrap());
            attend(&gpu, &attention, &cache, 1, &x, None, &place, &out).unwrap();
            gpu.synchronize().unwrap();
            assert!(attend(&gpu, &attention, &cache, 2, &x, None, &place, &out).is_err());
            assert!(attend(&gpu, &attention, &cache, 0, &x.slice(1..), None, &place, &out).is_err());
        }
    }
}

#[test]
fn many_tokens_have_the_bits_of_few() {
    let Some(gpu) = Gpu::for_test("attention of many tokens") else {
        return;
    };
    let mut random = Random::seeded("attention of many tokens");
    // Heads, key heads, head_dim, and tokens of each piece.
    let mut shapes = vec![
        (4, 1, 16, vec![1, 130, 9]),
        (3, 3, 20, vec![33, 31]),
        (5, 1, 64, vec![17, 112]),
        (2, 1, 128, vec![18, 115]),
    ];
    if !small(&gpu) {
        shapes.extend([
            (20, 5, 128, vec![512, 300, 77]),
            (12, 12, 64, vec![5, 700]),
            (64, 2, 32, vec![200]),
        ]);
    }
    for (heads, kv, dim, pieces) in shapes {
        for kind in [KvKind::F32, KvKind::F16, KvKind::Int8] {
            let norms = [random.floats(dim), random.floats(dim)].map(|w| gpu.upload(&w).unwrap());
            let norms = random.next().is_multiple_of(2).then_some(norms.each_ref());
            let positions = pieces.iter().sum();
            let caches = [(); 2].map(|()| KvCache::new(&gpu, kind, 2, kv, dim, positions).unwrap());
            let (table, _) = rotation(&gpu, dim, caches[0].context());
            let attention = Attention::new(&gpu, heads, 1e-5, 16, table, &caches[0]).unwrap();
            let (place, width) = (gpu.zeros::<u32>(1).unwrap(), (heads + 2 * kv) * dim);
            let mut position = 0;
            for &tokens in &pieces {
                let qkv = random.floats(tokens * width);
                let x = gpu.upload(&qkv).unwrap();
                let [many, few] = [(); 2].map(|()| gpu.poisoned::<f32>(tokens * heads * dim).unwrap());
                gpu.write(&place, &[position as u32]).unwrap();
                let again = gpu.upload(&qkv).unwrap();
                attend_many(&gpu, &attention, &caches[0], 1, &again, norms, &place, &many).unwrap();
                for first in (0..tokens).step_by(16) {
                    let rows = |width: usize| first * width..tokens.min(first + 16) * width;
                    gpu.write(&place, &[(position + first) as u32]).unwrap();
                    let (x, out) = (x.slice(rows(width)), few.slice(rows(heads * dim)));
                    attend(&gpu, &attention, &caches[1], 1, &x, norms, &place, &out).unwrap();
                }
                let [many, few] = [many, few].map(|out| gpu.download(&out).unwrap());
                for (t, (many, few)) in many
                    .chunks_exact(heads * dim)
                    .zip(few.chunks_exact(heads * dim))
                    .enumerate()
                {
                    let at = position + t;
                    assert_eq!(bits(many), bits(few), "{heads}/{kv} x {dim} {kind:?}, position {at}");
                }
                position += tokens;
            }
            for (a, b) in caches[0].heads().zip(caches[1].heads()) {
                for (a, b) in a.iter().zip(&b) {
                    assert_eq!(gpu.download(a).unwrap(), gpu.download(b).unwrap(), "{kind:?} cache");
                }
            }
            // Tokens outside the cache are not stored, and nothing is touched.
            gpu.write(&place, &[caches[0].context() as u32 - 1]).unwrap();
            let before: Vec<_> = caches[0].heads().map(|head| gpu.download(&head[0]).unwrap()).collect();
            let (x, out) = (
                gpu.zeros::<f32>(2 * width).unwrap(),
                gpu.zeros::<f32>(2 * heads * dim).unwrap(),
            );
            attend_many(&gpu, &attention, &caches[0], 1, &x, norms, &place, &out).unwrap();
            let after: Vec<_> = caches[0].heads().map(|head| gpu.download(&head[0]).unwrap()).collect();
            assert_eq!(before, after);
            assert!(attend_many(&gpu, &attention, &caches[0], 2, &x, norms, &place, &out).is_err());
            assert!(attend_many(&gpu, &attention, &caches[0], 0, &x.slice(1..), norms, &place, &out).is_err());
        }
    }
}

#[test]
fn parts_are_put_together_behind_attention_as_in_it() {
    let Some(gpu) = Gpu::for_test("parts of attention") else {
        return;
    };
    let mut random = Random::seeded("parts of attention");
    // One to eight blocks of positions are left to the product, and of more the last block of attention puts them together.
    for (heads, kv, dim) in [(6, 2, 32), (4, 4, 36)] {
        let (rows, cols, context) = (24, heads * dim, 1280);
        let cache = KvCache::new(&gpu, KvKind::F16, 1, kv, dim, context).unwrap();
        let attention = Attention::new(&gpu, heads, 1e-5, 1, rotation(&gpu, dim, context).0, &cache).unwrap();
        let matrix = TernaryMatrix::synthetic(&gpu, TernaryCode::T2, rows, cols, false).unwrap();
        assert!(takes_parts(&gpu, &matrix, dim));
        let norm = gpu.upload(&random.floats(cols)).unwrap();
        let [mixed, behind, within] = [cols, rows, rows].map(|width| gpu.poisoned::<f32>(width).unwrap());
        let ends = [0, 126, 127, 128, 129, 255, 256, 700, 1023, 1024, 1200];
        for position in 0..=1200u32 {
            let width = (heads + 2 * kv) * dim;
            let qkv = gpu.upload(&random.floats(width)).unwrap();
            let place = gpu.upload(&[position]).unwrap();
            attend(&gpu, &attention, &cache, 0, &qkv, None, &place, &mixed).unwrap();
            if !ends.contains(&position) {
                continue;
            }
            let store = |y| Epilogue::Store(y);
            normed_ternary_gemv(&gpu, &matrix, &mixed, Some(&norm), 1e-5, store(&within)).unwrap();
            gpu.fill_bytes(&mixed, 0xff).unwrap();
            attend_to(&gpu, &attention, &cache, 0, &qkv, None, &place, &mixed, MOST_PARTS).unwrap();
            let parts = attention.parts(&cache, &place);
            attended_ternary_gemv(&gpu, &matrix, &mixed, Some(&norm), 1e-5, store(&behind), parts).unwrap();
            let [behind, within] = [&behind, &within].map(|y| bits(&gpu.download(y).unwrap()));
            assert_eq!(behind, within, "{heads}/{kv} x {dim}, position {position}");
            let kept = bits(&gpu.download(&mixed).unwrap()).iter().all(|x| *x == u32::MAX);
            assert_eq!(kept, (128..1024).contains(&position), "position {position}");
        }
        // Two tokens are none that parts are for, and outside the cache there are none: the product takes what is in `x`.
        let two = gpu.zeros::<f32>(2 * cols).unwrap();
        let (small, place) = (
            KvCache::new(&gpu, KvKind::F16, 1, kv, dim, 256).unwrap(),
            gpu.upload(&[256u32]).unwrap(),
        );
        let attention = Attention::new(&gpu, heads, 1e-5, 1, rotation(&gpu, dim, 256).0, &small).unwrap();
        let parts = || attention.parts(&small, &place);
        let store = |y| Epilogue::Store(y);
        assert!(attended_ternary_gemv(&gpu, &matrix, &two, None, 1e-5, store(&behind), parts()).is_err());
        let x = gpu.upload(&random.floats(cols)).unwrap();
        attended_ternary_gemv(&gpu, &matrix, &x, None, 1e-5, store(&behind), parts()).unwrap();
        normed_ternary_gemv(&gpu, &matrix, &x, None, 1e-5, store(&within)).unwrap();
        let [behind, within] = [&behind, &within].map(|y| bits(&gpu.download(y).unwrap()));
        assert_eq!(behind, within, "outside the cache");
    }
}
