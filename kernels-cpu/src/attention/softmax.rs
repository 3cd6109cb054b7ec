//! The row work of attention: maxima, exponentials and their sums, everything that is not a matrix product.

use super::visible;
use crate::math;
use crate::simd::{LANES, Simd, simd_kernel};

/// `Σ a[i]·b[i]`: one chain of fused multiply-adds in each of 16 lanes, folded 8-4-2-1.
#[inline(always)]
pub(super) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let mut sum = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    if !a_tail.is_empty() {
        sum = s.fma(s.load_or(a_tail, 0.0), s.load_or(b_tail, 0.0), sum);
    }
    s.reduce_sum(sum)
}

/// The largest element, −∞ for none.
#[inline(always)]
pub(super) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (x, tail) = x.as_chunks::<LANES>();
    let mut most = s.splat(f32::NEG_INFINITY);
    for x in x {
        most = s.max(s.load(x), most);
    }
    s.reduce_max(s.max(s.load_or(tail, f32::NEG_INFINITY), most))
}

/// `x ← exp(x·scale − shift)`, returning the sum in 16 lanes.
#[inline(always)]
pub(super) fn exp_shifted<S: Simd>(s: S, x: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (scale, shift) = (s.splat(scale), s.splat(-shift));
    let (x, tail) = x.as_chunks_mut::<LANES>();
    let mut sum = s.splat(0.0);
    for x in x {
        let e = math::exp(s, s.fma(s.load(x), scale, shift));
        s.store(e, x);
        sum = s.add(sum, e);
    }
    if !tail.is_empty() {
        let e = math::exp(s, s.fma(s.load_or(tail, 0.0), scale, shift));
        s.store_part(e, tail);
        sum = s.add(sum, s.load_or(tail, 0.0));
    }
    s.reduce_sum(sum)
}

#[inline(always)]
pub(super) fn weights<S: Simd>(s: S, scores: &mut [f32]) -> f32 {
    let most = largest(s, scores);
    exp_shifted(s, scores, 1.0, most)
}

simd_kernel! {
    /// The numerators of a softmax: `scores[i] ← exp(scores[i] − max)`; returns their sum, taken in 16 lanes.
    pub fn softmax_weights(scores: &mut [f32]) -> f32 = weights;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    tile: &mut [f32],
    columns: usize,
    first: usize,
    scale: f32,
    lse: &mut [f32],
    sums: &mut [f32],
) {
    for (r, row) in tile.chunks_exact_mut(columns).enumerate() {
        let (seen, hidden) = row.split_at_mut(visible(first, r));
        let most = largest(s, seen) * scale;
        sums[r] = exp_shifted(s, seen, scale, most);
        hidden.fill(0.0);
        lse[r] = most;
    }
    // lse = max + ln(sum), sixteen rows at a time.
    for (lse, sums) in lse.chunks_mut(LANES).zip(sums.chunks(LANES)) {
        let v = s.add(s.load_or(lse, 0.0), math::ln(s, s.load_or(sums, 1.0)));
        s.store_part(v, lse);
    }
}

simd_kernel! {
    /// Turns a tile of raw scores (`[rows, columns]`, first row = query `first`) into `exp(score·scale − max)` with zeros above
    /// the diagonal, and gives each row's log-sum-exp and the sum by which its output is still to be divided.
    pub fn softmax_tile(tile: &mut [f32], columns: usize, first: usize, scale: f32, lse: &mut [f32], sums: &mut [f32]) = forward;
}

#[inline(always)]
fn again<S: Simd>(s: S, tile: &mut [f32], columns: usize, first: usize, scale: f32, lse: &[f32]) {
    for (r, row) in tile.chunks_exact_mut(columns).enumerate() {
        let (seen, hidden) = row.split_at_mut(visible(first, r));
        exp_shifted(s, seen, scale, lse[r]);
        hidden.fill(0.0);
    }
}

simd_kernel! {
    /// Turns a tile of raw scores back into the probabilities of the forward pass, from its log-sum-exps.
    pub fn recompute_tile(tile: &mut [f32], columns: usize, first: usize, scale: f32, lse: &[f32]) = again;
}

#[inline(always)]
fn divide<S: Simd>(s: S, out: &mut [f32], stride: usize, n: usize, sums: &[f32]) {
    for (r, sum) in sums.iter().enumerate() {
        let sum = s.splat(*sum);
        let (row, tail) = out[r * stride..][..n].as_chunks_mut::<LANES>();
        for x in row {
            s.store(s.div(s.load(x), sum), x);
        }
        if !tail.is_empty() {
            s.store_part(s.div(s.load_or(tail, 0.0), sum), tail);
        }
    }
}

simd_kernel! {
    /// Divides the first `n` elements of each row of `out` (rows `stride` apart) by the row's sum.
    pub fn divide_rows(out: &mut [f32], stride: usize, n: usize, sums: &[f32]) = divide;
}

#[inline(always)]
fn dots<S: Simd>(s: S, a: &[f32], b: &[f32], stride: usize, n: usize, out: &mut [f32]) {
    for (r, out) in out.iter_mut().enumerate() {
        *out = dot(s, &a[r * stride..][..n], &b[r * stride..][..n]);
    }
}

simd_kernel! {
    /// `out[r] = a[r]·b[r]` over the first `n` elements of rows `stride` apart.
    pub fn row_dots(a: &[f32], b: &[f32], stride: usize, n: usize, out: &mut [f32]) = dots;
}

#[inline(always)]
fn backward<S: Simd>(s: S, p: &[f32], dp: &mut [f32], columns: usize, first: usize, scale: f32, delta: &[f32]) {
    let scale = s.splat(scale);
    for (r, (p, dp)) in p.chunks_exact(columns).zip(dp.chunks_exact_mut(columns)).enumerate() {
        let (seen, hidden) = dp.split_at_mut(visible(first, r));
        hidden.fill(0.0);
        let delta = s.splat(delta[r]);
        let ds = |p: S::F, dp: S::F| s.mul(s.mul(p, scale), s.sub(dp, delta));
        let (p, p_tail) = p[..seen.len()].as_chunks::<LANES>();
        let (seen, tail) = seen.as_chunks_mut::<LANES>();
        for (p, dp) in p.iter().zip(seen) {
            s.store(ds(s.load(p), s.load(dp)), dp);
        }
        if !tail.is_empty() {
            s.store_part(ds(s.load_or(p_tail, 0.0), s.load_or(tail, 0.0)), tail);
        }
    }
}

simd_kernel! {
    /// The gradient of the raw scores, in place of that of the probabilities: `p · scale · (dp − delta)`, zero above the diagonal.
    pub fn softmax_tile_backward(p: &[f32], dp: &mut [f32], columns: usize, first: usize, scale: f32, delta: &[f32]) = backward;
}
