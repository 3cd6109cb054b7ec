//! One query against a cache of keys and values: the decode step of one head.

use super::softmax::{dot, weights};
use crate::simd::{LANES, Simd, simd_kernel};

simd_kernel! {
    /// Attention of one query of one head over `positions` cached positions, which are all visible to it.
    ///
    /// `q` and `out` are `[head_dim]`; position `p` has its key at `keys[p·stride..][..head_dim]` and its value at the same place
    /// of `values`; `scores` is scratch, left holding the unnormalised weights. The numerics are those of ARCHITECTURE.md §2.2:
    /// each score is a 16-lane chain folded 8-4-2-1 and times `1/sqrt(head_dim)`, the weights are summed in 16 lanes, each output
    /// element is one chain of fused multiply-adds over the positions in order, divided by the sum at the end. The result
    /// depends on the given positions alone, so prefill, decode and a resumed cache agree bit for bit.
    ///
    /// # Panics
    /// If `positions` is 0, `q` is empty or as long as `out` is not, `stride` is shorter than a head, or `keys`, `values` or
    /// `scores` are too short.
    pub fn attend(q: &[f32], keys: &[f32], values: &[f32], stride: usize, positions: usize, out: &mut [f32], scores: &mut [f32]) = body;
}

#[inline(always)]
fn body<S: Simd>(
    s: S,
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    stride: usize,
    positions: usize,
    out: &mut [f32],
    scores: &mut [f32],
) {
    let n = q.len();
    assert!(positions > 0, "attention over no position");
    assert!(n > 0 && out.len() == n, "q and out must have the same length, not 0");
    assert!(stride >= n, "positions overlap");
    let needed = (positions - 1) * stride + n;
    assert!(
        keys.len() >= needed && values.len() >= needed,
        "keys or values too short"
    );
    assert!(scores.len() >= positions, "scores too short");

    let scores = &mut scores[..positions];
    let scale = super::scale(n);
    for (p, score) in scores.iter_mut().enumerate() {
        *score = dot(s, q, &keys[p * stride..][..n]) * scale;
    }
    let sum = weights(s, scores);

    // Four vectors at a time stay in registers on every instruction set; the order of each element's chain is the same in all.
    let mut at = 0;
    while n - at >= 4 * LANES {
        weighted::<S, 4>(s, scores, &values[at..], stride, sum, &mut out[at..]);
        at += 4 * LANES;
    }
    while n - at >= LANES {
        weighted::<S, 1>(s, scores, &values[at..], stride, sum, &mut out[at..]);
        at += LANES;
    }
    if at < n {
        let mut acc = s.splat(0.0);
        for (p, w) in scores.iter().enumerate() {
            acc = s.fma(s.splat(*w), s.load_or(&values[p * stride + at..][..n - at], 0.0), acc);
        }
        s.store_part(s.div(acc, s.splat(sum)), &mut out[at..]);
    }
}

/// `out[..16·V] = Σ_p scores[p] · values[p·stride..][..16·V] / sum`.
#[inline(always)]
fn weighted<S: Simd, const V: usize>(s: S, scores: &[f32], values: &[f32], stride: usize, sum: f32, out: &mut [f32]) {
    let mut acc = [s.splat(0.0); V];
    for (p, w) in scores.iter().enumerate() {
        let w = s.splat(*w);
        let (value, _) = values[p * stride..][..V * LANES].as_chunks::<LANES>();
        for i in 0..V {
            acc[i] = s.fma(w, s.load(&value[i]), acc[i]);
        }
    }
    let (out, _) = out[..V * LANES].as_chunks_mut::<LANES>();
    for i in 0..V {
        s.store(s.div(acc[i], s.splat(sum)), &mut out[i]);
    }
}
