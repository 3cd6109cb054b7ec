use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::attention::tests::{bits, normal, shape, wide};
use crate::attention::{causal_attention, scale, scratch_len as causal_scratch_len};
use crate::isa::{Isa, Scalar};
use crate::math::sqrt_f64;
use crate::quantize::SCALE_FLOOR;

/// The cache of a head and what was stored in it, read back: `[positions, head_dim]`, and the scale of each row.
struct Cache {
    kv: KvType,
    floats: [Vec<f32>; 2],
    halves: [Vec<f16>; 2],
    bytes: [Vec<i8>; 2],
    scales: [Vec<f32>; 2],
    stored: [Vec<f32>; 2],
    stored_scales: [Vec<f32>; 2],
}

impl Cache {
    /// Keys and values are `[positions, head_dim]`; the memory was used before.
    fn new(isa: Isa, kv: KvType, n: usize, keys: &[f32], values: &[f32]) -> Self {
        let positions = keys.len() / n;
        let (k, v, s) = (key_len(positions, n), value_len(positions, n), scale_len(positions));
        let mut cache = Self {
            kv,
            floats: [vec![9.0; k], vec![9.0; v]],
            halves: [vec![f16::NAN; k], vec![f16::NAN; v]],
            bytes: [vec![99; k], vec![99; v]],
            scales: [vec![f32::NAN; s], vec![f32::NAN; s]],
            stored: [keys, values].map(<[f32]>::to_vec),
            stored_scales: [keys, values].map(|x| {
                let scale = |row: &[f32]| 127.0 / row.iter().fold(SCALE_FLOOR, |a, x| a.max(x.abs()));
                x.chunks(n).map(|row| 1.0 / scale(row)).collect()
            }),
        };
        store(isa, cache.view_mut(), n, 0, keys, values, n);
        for (stored, scales) in cache.stored.iter_mut().zip(&mut cache.stored_scales) {
            for (row, scale) in stored.chunks_mut(n).zip(scales) {
                let s = 127.0 / row.iter().fold(SCALE_FLOOR, |a, x| a.max(x.abs()));
                for x in row {
                    *x = match kv {
                        KvType::F32 => *x,
                        KvType::F16 => f16::from_f32(*x).to_f32(),
                        KvType::Int8 => libm::rintf(*x * s),
                    };
                }
                *scale = if kv == KvType::Int8 { *scale } else { 1.0 };
            }
        }
        cache
    }

    fn view_mut(&mut self) -> KvMut<'_> {
        match self.kv {
            KvType::F32 => {
                let [keys, values] = &mut self.floats;
                KvHead::F32 { keys, values }
            }
            KvType::F16 => {
                let [keys, values] = &mut self.halves;
                KvHead::F16 { keys, values }
            }
            KvType::Int8 => {
                let ([keys, values], [key_scales, value_scales]) = (&mut self.bytes, &mut self.scales);
                KvHead::Int8 {
                    keys,
                    values,
                    key_scales,
                    value_scales,
                }
            }
        }
    }

    fn view(&self) -> KvRef<'_> {
        match self.kv {
            KvType::F32 => {
                let [keys, values] = &self.floats;
                KvHead::F32 { keys, values }
            }
            KvType::F16 => {
                let [keys, values] = &self.halves;
                KvHead::F16 { keys, values }
            }
            KvType::Int8 => {
                let ([keys, values], [key_scales, value_scales]) = (&self.bytes, &self.scales);
                KvHead::Int8 {
                    keys,
                    values,
                    key_scales,
                    value_scales,
                }
            }
        }
    }
}

/// `tokens` tokens that end at the last of `positions` positions, `group` heads each, with a gap between tokens.
fn queries(tokens: usize, positions: usize, group: usize, head_dim: usize) -> Queries {
    Queries {
        tokens,
        group,
        head_dim,
        stride: group * head_dim + 3,
        first: positions - tokens,
    }
}

/// The outputs, `[rows, head_dim]`.
fn run(isa: Isa, cache: &Cache, queries: Queries, q: &[f32]) -> Vec<f32> {
    let n = queries.head_dim;
    let (mut out, mut scratch) = (vec![9.0; q.len()], vec![f32::NAN; scratch_len(n)]);
    attend(isa, cache.view(), queries, q, &mut out, &mut scratch);
    let rows: Vec<f32> = (0..queries.rows())
        .flat_map(|row| out[queries.at(row)..][..n].to_vec())
        .collect();
    // What lies between the tokens is left alone.
    assert_eq!(
        out.iter().filter(|x| **x == 9.0).count(),
        out.len() - rows.len(),
        "gaps"
    );
    rows
}

/// As [`run`], block by block.
fn run_blocks(isa: Isa, cache: &Cache, queries: Queries, q: &[f32]) -> Vec<f32> {
    let n = queries.head_dim;
    let mut parts = vec![f32::NAN; queries.blocks() * queries.part_len()];
    let mut out = vec![9.0; q.len()];
    // The order in which parts are made does not matter.
    for (block, part) in parts.chunks_exact_mut(queries.part_len()).enumerate().rev() {
        attend_block(isa, cache.view(), queries, q, block, part);
    }
    merge_blocks(isa, queries, &mut parts, &mut out);
    (0..queries.rows())
        .flat_map(|row| out[queries.at(row)..][..n].to_vec())
        .collect()
}

fn fold(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

fn exp(x: f32) -> f32 {
    crate::math::exp(Scalar, [x; LANES])[0]
}

/// One query over the first `positions` positions in scalar f32, from the numerics that the module promises.
fn by_definition(cache: &Cache, q: &[f32], positions: usize) -> Vec<f32> {
    let n = q.len();
    let [keys, values] = &cache.stored;
    let [key_scales, value_scales] = &cache.stored_scales;
    let (mut most, mut sum, mut whole) = (0.0f32, 0.0f32, vec![0.0f32; n]);
    for first in (0..positions).step_by(BLOCK) {
        let end = positions.min(first + BLOCK);
        let scores: Vec<f32> = (first..end)
            .map(|p| {
                let chain = (0..n).fold(0.0f32, |acc, d| q[d].mul_add(keys[p * n + d], acc));
                let factor = scale(n) * if cache.kv == KvType::Int8 { key_scales[p] } else { 1.0 };
                chain * factor
            })
            .collect();
        let m = scores.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut weights: Vec<f32> = scores.iter().map(|score| exp(score - m)).collect();
        let mut lanes = [0.0; LANES];
        for (i, w) in weights.iter_mut().enumerate() {
            lanes[i % LANES] += *w;
            *w *= value_scales[first + i];
        }
        let l = fold(lanes);
        let o = (0..n).map(|d| (first..end).fold(0.0f32, |acc, p| weights[p - first].mul_add(values[p * n + d], acc)));
        if first == 0 {
            (most, sum, whole) = (m, l, o.collect());
            continue;
        }
        let higher = if most > m { most } else { m };
        let (a, c) = (exp(most - higher), exp(m - higher));
        sum = l.mul_add(c, sum * a);
        whole = whole.iter().zip(o).map(|(x, o)| o.mul_add(c, x * a)).collect();
        most = higher;
    }
    whole.iter().map(|x| x / sum).collect()
}

/// The answer in f64 and, from norms, how far f32 may be from it.
fn oracle(cache: &Cache, q: &[f32], positions: usize) -> (Vec<f64>, f64) {
    let n = q.len();
    let [keys, values] = [0, 1].map(|i| {
        let rows = wide(&cache.stored[i]);
        let scales = &cache.stored_scales[i];
        rows.iter()
            .enumerate()
            .map(|(at, x)| x * f64::from(scales[at / n]))
            .collect::<Vec<_>>()
    });
    let dot = |p: usize, f: fn(f64) -> f64| -> f64 {
        (0..n).map(|d| f(f64::from(q[d]) * keys[p * n + d])).sum::<f64>() / sqrt_f64(n as f64)
    };
    let scores: Vec<f64> = (0..positions).map(|p| dot(p, |x| x)).collect();
    let sizes = (0..positions).map(|p| dot(p, f64::abs)).fold(0.0, f64::max);
    let most = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let weights: Vec<f64> = scores.iter().map(|s| libm::exp(s - most)).collect();
    let sum: f64 = weights.iter().sum();
    let out = (0..n)
        .map(|d| (0..positions).map(|p| weights[p] * values[p * n + d]).sum::<f64>() / sum)
        .collect();
    let largest = values[..positions * n].iter().fold(0.0f64, |a, x| a.max(x.abs()));
    // A score is off by (n + 4) roundings of its terms, which is the relative error of its weight; a weighted mean of values adds a
    // rounding for each position of a block, and one for each block.
    let roundings = 2.0 * (n as f64 + 4.0) * sizes + (BLOCK + positions / BLOCK + 20) as f64;
    (
        out,
        roundings * f64::from(f32::EPSILON) * largest + f64::from(f32::MIN_POSITIVE),
    )
}

/// `positions` keys and values of `n`, and queries for `tokens` tokens.
fn inputs(queries: Queries, positions: usize) -> [Vec<f32>; 3] {
    let kv = positions * queries.head_dim;
    [normal(1, queries.tokens * queries.stride), normal(2, kv), normal(3, kv)]
}

#[test]
fn keeps_its_promised_numerics_on_every_path() {
    let mut cases = Vec::new();
    for n in [1, 8, 15, 16, 17, 64, 66, 80, 128, 131] {
        for positions in [1, 2, 15, 16, 17, 63, 65, 101] {
            cases.push((n, positions, 1, 4));
        }
    }
    for positions in [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 37] {
        for (tokens, group) in [(1, 1), (1, 3), (1, 5), (7, 1), (5, 3), (40, 1), (positions, 2)] {
            cases.push((20, positions, tokens, group));
        }
    }
    for kv in KvType::ALL {
        for &(n, positions, tokens, group) in &cases {
            let queries = queries(tokens, positions, group, n);
            let [q, keys, values] = inputs(queries, positions);
            let cache = Cache::new(Isa::SCALAR, kv, n, &keys, &values);
            let mut want = Vec::new();
            for row in 0..queries.rows() {
                let q = &q[queries.at(row)..][..n];
                let seen = queries.first + row / group + 1;
                let row = by_definition(&cache, q, seen);
                let (exact, bound) = oracle(&cache, q, seen);
                for (got, exact) in row.iter().zip(&exact) {
                    let error = (f64::from(*got) - exact).abs();
                    assert!(error <= bound, "{kv:?} {queries:?}: {error:e} of at most {bound:e}");
                }
                want.extend(bits(&row));
            }
            for isa in Isa::available() {
                let stored_here = Cache::new(isa, kv, n, &keys, &values);
                let what = (isa.name(), kv, queries);
                assert!(bits(&run(isa, &stored_here, queries, &q)) == want, "{what:?}");
                assert!(
                    bits(&run_blocks(isa, &cache, queries, &q)) == want,
                    "by blocks, {what:?}"
                );
            }
        }
    }
    std::println!("paths: {:?}", Isa::available().map(Isa::name).collect::<Vec<_>>());
}

#[test]
fn a_growing_prefix_is_causal_attention() {
    for s in [shape(300, 4, 2, 16), shape(33, 2, 1, 20), shape(140, 1, 1, 83)] {
        let n = s.head_dim;
        let (q, k, v) = (
            normal(1, s.seq * s.row()),
            normal(2, s.seq * s.kv_row()),
            normal(3, s.seq * s.kv_row()),
        );
        let (mut want, mut lse) = (vec![0.0; q.len()], vec![0.0; s.heads * s.seq]);
        let mut scratch = vec![0.0; causal_scratch_len(&s)];
        causal_attention(Isa::best(), &s, None, &q, &k, &v, &mut want, &mut lse, &mut scratch);
        let queries = Queries {
            tokens: s.seq,
            group: s.heads / s.kv_heads,
            head_dim: n,
            stride: s.row(),
            first: 0,
        };
        let (mut out, mut scratch) = (vec![0.0; q.len()], vec![0.0; scratch_len(n)]);
        for head in 0..s.kv_heads {
            let mut cache = Cache::new(Isa::best(), KvType::F32, n, &k[..s.seq * n], &v[..s.seq * n]);
            store(
                Isa::best(),
                cache.view_mut(),
                n,
                0,
                &k[head * n..],
                &v[head * n..],
                s.kv_row(),
            );
            let at = head * queries.group * n;
            attend(
                Isa::best(),
                cache.view(),
                queries,
                &q[at..],
                &mut out[at..],
                &mut scratch,
            );
        }
        for (got, want) in out.iter().zip(&want) {
            assert!(
                (got - want).abs() <= 1e-5 * want.abs().max(1.0),
                "{s:?}: {got} for {want}"
            );
        }
    }
}

#[test]
fn what_a_query_does_not_see_does_not_touch_it() {
    let (n, positions, seen) = (24, 2 * BLOCK + 9, BLOCK + 21);
    for kv in KvType::ALL {
        let queries = queries(3, seen, 2, n);
        let [q, keys, values] = inputs(queries, positions);
        let clean = Cache::new(Isa::best(), kv, n, &keys, &values);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut keys, mut values) = (keys.clone(), values.clone());
            keys[seen * n..].fill(poison);
            values[seen * n..].fill(poison);
            let poisoned = Cache::new(Isa::best(), kv, n, &keys, &values);
            for isa in Isa::available() {
                let want = bits(&run(isa, &clean, queries, &q));
                assert_eq!(bits(&run(isa, &poisoned, queries, &q)), want, "{}", isa.name());
                assert_eq!(bits(&run_blocks(isa, &poisoned, queries, &q)), want, "{}", isa.name());
            }
        }
        // The token before the last does not see the last position, whatever the tile that it is worked on in.
        let (mut keys, mut values) = (keys.clone(), values.clone());
        keys[(seen - 1) * n..seen * n].fill(f32::NAN);
        values[(seen - 1) * n..seen * n].fill(f32::NAN);
        let poisoned = Cache::new(Isa::best(), kv, n, &keys, &values);
        let rows = 2 * queries.group * n;
        let want = bits(&run(Isa::best(), &clean, queries, &q)[..rows]);
        assert_eq!(bits(&run(Isa::best(), &poisoned, queries, &q)[..rows]), want);
    }
}

#[test]
fn extreme_inputs() {
    let (n, positions) = (20, 2 * BLOCK + 5);
    let queries = queries(2, positions, 3, n);
    let [q, keys, values] = inputs(queries, positions);
    let every = |q: &[f32], keys: &[f32], values: &[f32], check: &dyn Fn(KvType, &[f32])| {
        for kv in KvType::ALL {
            for isa in Isa::available() {
                let cache = Cache::new(isa, kv, n, keys, values);
                let got = run(isa, &cache, queries, q);
                assert!(got.iter().all(|x| x.is_finite()), "{kv:?} {}", isa.name());
                check(kv, &got);
            }
        }
    };
    // Equal keys: the mean of the values. Zeros: zero.
    let equal: Vec<f32> = keys[..n].repeat(positions);
    every(&q, &equal, &vec![2.0; values.len()], &|_, got| {
        assert!(got.iter().all(|x| (x - 2.0).abs() < 1e-5));
    });
    every(&q, &vec![0.0; keys.len()], &vec![0.0; values.len()], &|_, got| {
        assert!(got.iter().all(|x| *x == 0.0));
    });
    // Scores of ±10^6: the exponentials neither overflow nor all vanish, and the answer lies among the values.
    for size in [1e6, -1e6] {
        let large: Vec<f32> = q.iter().map(|x| x * size).collect();
        let highest = values.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        every(&large, &keys, &values, &|_, got| {
            assert!(got.iter().all(|x| x.abs() <= 1.01 * highest));
        });
    }
    // One position dominates, in each of the blocks in turn: its value is the answer.
    for at in [0, BLOCK - 1, BLOCK, 2 * BLOCK + 1] {
        let mut keys = vec![0.0; keys.len()];
        keys[at * n..(at + 1) * n].fill(100.0);
        let ones = vec![10.0; q.len()];
        every(&ones, &keys, &values, &|kv, got| {
            let tolerance = if kv == KvType::F32 { 0.0 } else { 0.02 };
            for row in got.chunks_exact(n) {
                for (x, v) in row.iter().zip(&values[at * n..]) {
                    assert!((x - v).abs() <= tolerance, "{kv:?}: {x} for {v}");
                }
            }
        });
    }
}

#[test]
fn types_are_as_exact_as_they_say() {
    let (n, positions) = (40, 70);
    let [_, keys, values] = inputs(queries(1, positions, 1, n), positions);
    for (kv, bound) in [
        (KvType::F32, (|_, _| 0.0) as fn(f32, f32) -> f32),
        (KvType::F16, |x: f32, _| (x.abs() / 2048.0).max(1.0 / (1 << 25) as f32)),
        (KvType::Int8, |_, most: f32| most / 254.0 * 1.00001),
    ] {
        let cache = Cache::new(Isa::best(), kv, n, &keys, &values);
        // Read back through attention itself: a query that makes one position dominate returns its value.
        for (plane, x) in [&keys, &values].into_iter().enumerate() {
            for (p, row) in x.chunks(n).enumerate() {
                let most = row.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                for (d, x) in row.iter().enumerate() {
                    let read = cache.stored[plane][p * n + d] * cache.stored_scales[plane][p];
                    assert!((read - x).abs() <= bound(*x, most), "{kv:?}: {read} for {x}");
                }
            }
        }
        assert_eq!(KvType::by_name(kv.name()), Some(kv));
    }
    assert_eq!(KvType::by_name("f8"), None);
}

#[test]
fn no_token_is_no_work() {
    let mut cache = Cache::new(Isa::best(), KvType::Int8, 8, &[], &[]);
    store(Isa::best(), cache.view_mut(), 8, 0, &[], &[], 8);
    let queries = queries(0, 0, 2, 8);
    assert!(run(Isa::best(), &cache, queries, &[]).is_empty());
    merge_blocks(Isa::best(), queries, &mut [], &mut []);
}

#[test]
fn a_cache_of_any_length_can_be_asked_for() {
    for head_dim in [1, 16, 64, 80] {
        // More than there is, too: it is a hint.
        for (positions, have) in [
            (0, 0),
            (1, 0),
            (1, 1),
            (64, 64),
            (65, 70),
            (128, 200),
            (1000, 200),
            (1000, 1000),
        ] {
            let (keys, values) = (vec![0.0; key_len(have, head_dim)], vec![0.0; value_len(have, head_dim)]);
            let (keys, values) = (&*keys, &*values);
            ask_for(&KvHead::F32 { keys, values }, head_dim, positions);
            let (keys, values) = (vec![0; keys.len()], vec![0; values.len()]);
            let scales = vec![0.0; scale_len(have)];
            let kv = KvHead::Int8 {
                keys: &*keys,
                values: &*values,
                key_scales: &*scales,
                value_scales: &*scales,
            };
            ask_for(&kv, head_dim, positions);
        }
    }
}
