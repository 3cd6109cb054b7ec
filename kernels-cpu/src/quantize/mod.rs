//! Quantisers: weights to −1, 0, 1 (or to whole numbers of a row's step), activations to bytes.
//!
//! ```text
//! ternary      γ = max(mean|W|, 1e-5)          Wq = clamp(round(W · (1/γ)), −1, 1)
//! activations  s = 127 / max(max|x|, 1e-5)     xq = clamp(round(x · s), −128, 127)       per token
//! int8, int4   step = max(max|w|, 1e-5) / qmax  wq = clamp(round(w / step), −qmax, qmax)  per output row
//! binary       Wq = 1 if W ≥ 0 else −1
//! soft ternary (1−a)·W + a·γ·S(W/γ),  S(u) = ½(tanh(b(u−½)) + tanh(b(u+½))),  b = 2/(1−a)
//! ```
//! Rounding is to nearest, ties to even. The layer's output is `(Σ xq·Wq) · γ / s`, the sum an exact integer
//! (ARCHITECTURE.md §2.1; Ma et al., "The Era of 1-bit LLMs", 2024, eq. 1–3). The reciprocal of γ is taken once, as the
//! PyTorch reference does, so that both round the same weights the same way.
//!
//! Cost: one pass over the memory each; all of them run at its speed.
//!
//! A NaN never raises a maximum, and is itself stored as the lower end of the clamp.

#[cfg(test)]
mod tests;

use crate::math;
use crate::simd::{LANES, Simd, simd_kernel};

/// Smallest scale: below it a tensor counts as zero.
pub const SCALE_FLOOR: f32 = 1e-5;
/// Sharpness of the soft staircase at the start of annealing.
const BETA0: f32 = 2.0;
/// Elements that one f32 partial sum covers.
const SUM_BLOCK: usize = 4096;

/// `out = body` for each sixteen elements of `x` (the last ones filled up with 0), as bytes. A macro, since a closure would
/// be compiled without the instruction set of the function around it, and every operation in it become a call.
macro_rules! map_to_i8 {
    ($s:ident, $x:expr, $out:expr, |$v:ident| $body:expr) => {{
        let (chunks, tail) = $x.as_chunks::<LANES>();
        let (outs, out_tail) = $out.as_chunks_mut::<LANES>();
        for (x, o) in chunks.iter().zip(outs) {
            let $v = $s.load(x);
            $s.store_i8($body, o);
        }
        if !tail.is_empty() {
            let $v = $s.load_or(tail, 0.0);
            let mut last = [0i8; LANES];
            $s.store_i8($body, &mut last);
            out_tail.copy_from_slice(&last[..out_tail.len()]);
        }
    }};
}

/// As `map_to_i8`, storing f32.
macro_rules! map_to_f32 {
    ($s:ident, $x:expr, $out:expr, |$v:ident| $body:expr) => {{
        let (chunks, tail) = $x.as_chunks::<LANES>();
        let (outs, out_tail) = $out.as_chunks_mut::<LANES>();
        for (x, o) in chunks.iter().zip(outs) {
            let $v = $s.load(x);
            $s.store($body, o);
        }
        if !tail.is_empty() {
            let $v = $s.load_or(tail, 0.0);
            $s.store_part($body, out_tail);
        }
    }};
}

/// `clamp(round(v · scale), lo, hi)`.
#[inline(always)]
pub(crate) fn round_clamp<S: Simd>(s: S, v: S::F, scale: S::F, lo: f32, hi: f32) -> S::F {
    s.min(s.max(s.round(s.mul(v, scale)), s.splat(lo)), s.splat(hi))
}

#[inline(always)]
pub(crate) fn abs_max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    // Four chains: a maximum does not depend on the order, and one chain would wait for its own latency.
    let mut most = [s.splat(0.0); 4];
    let (quads, rest) = chunks.as_chunks::<4>();
    for quad in quads {
        for (m, c) in most.iter_mut().zip(quad) {
            *m = s.max(s.abs(s.load(c)), *m);
        }
    }
    for (m, c) in most.iter_mut().zip(rest) {
        *m = s.max(s.abs(s.load(c)), *m);
    }
    most[0] = s.max(s.abs(s.load_or(tail, 0.0)), most[0]);
    s.reduce_max(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])))
}

#[inline(always)]
fn abs_sum_body<S: Simd>(s: S, w: &[f32]) -> f64 {
    let mut total = 0.0;
    for block in w.chunks(SUM_BLOCK) {
        let (chunks, tail) = block.as_chunks::<LANES>();
        let mut sum = s.splat(0.0);
        for c in chunks {
            sum = s.add(sum, s.abs(s.load(c)));
        }
        sum = s.add(sum, s.abs(s.load_or(tail, 0.0)));
        total += f64::from(s.reduce_sum(sum));
    }
    total
}

simd_kernel! {
    /// `Σ|w|`: sixteen f32 lanes within blocks of 4096 elements, the blocks added in f64 in order.
    ///
    /// A caller that splits `w` over threads gets the same bits if it splits at multiples of 4096 and adds in order.
    pub fn abs_sum(w: &[f32]) -> f64 = abs_sum_body;
}

/// `γ = max(mean|W|, 1e-5)` from `abs_sum = Σ|W|` over `n` weights; the floor for `n = 0`.
pub fn absmean_scale(abs_sum: f64, n: usize) -> f32 {
    if n == 0 {
        SCALE_FLOOR
    } else {
        ((abs_sum / n as f64) as f32).max(SCALE_FLOOR)
    }
}

#[inline(always)]
fn ternary_f32_body<S: Simd>(s: S, w: &[f32], gamma: f32, out: &mut [f32]) {
    assert_eq!(w.len(), out.len(), "out is as long as w");
    let scale = s.splat(1.0 / gamma);
    map_to_f32!(s, w, out, |v| round_clamp(s, v, scale, -1.0, 1.0));
}

simd_kernel! {
    /// `out = clamp(round(w / γ), −1, 1)` as f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn ternary_f32(w: &[f32], gamma: f32, out: &mut [f32]) = ternary_f32_body;
}

#[inline(always)]
fn ternary_i8_body<S: Simd>(s: S, w: &[f32], gamma: f32, out: &mut [i8]) {
    assert_eq!(w.len(), out.len(), "out is as long as w");
    let scale = s.splat(1.0 / gamma);
    map_to_i8!(s, w, out, |v| round_clamp(s, v, scale, -1.0, 1.0));
}

simd_kernel! {
    /// `out = clamp(round(w / γ), −1, 1)` as bytes, ready for [`t2::pack`](crate::t2::pack).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn ternary_i8(w: &[f32], gamma: f32, out: &mut [i8]) = ternary_i8_body;
}

#[inline(always)]
fn absmax_i8_body<S: Simd>(s: S, x: &[f32], n: usize, out: &mut [i8], out_stride: usize, scales: &mut [f32]) {
    assert_eq!(x.len(), scales.len() * n, "x is [rows, n], with a scale for each row");
    assert!(out_stride >= n, "a row of out holds n bytes");
    assert_eq!(out.len(), scales.len() * out_stride, "out is [rows, out_stride]");
    for (r, scale) in scales.iter_mut().enumerate() {
        let x = &x[r * n..(r + 1) * n];
        let (row, pad) = out[r * out_stride..(r + 1) * out_stride].split_at_mut(n);
        *scale = 127.0 / abs_max(s, x).max(SCALE_FLOOR);
        let v = s.splat(*scale);
        map_to_i8!(s, x, row, |x| round_clamp(s, x, v, -128.0, 127.0));
        pad.fill(0);
    }
}

simd_kernel! {
    /// Quantises each row of `x`, `[rows, n]`, by its own largest magnitude: `scales[r] = s`, and row `r` of `out`,
    /// `[rows, out_stride]`, is `xq` followed by zeros.
    ///
    /// # Panics
    /// If `x.len() != scales.len() * n`, `out_stride < n` or `out.len() != scales.len() * out_stride`.
    pub fn absmax_i8(x: &[f32], n: usize, out: &mut [i8], out_stride: usize, scales: &mut [f32]) = absmax_i8_body;
}

#[inline(always)]
fn dequantize_rows_body<S: Simd>(s: S, xq: &[i8], stride: usize, n: usize, scales: &[f32], out: &mut [f32]) {
    assert!(stride >= n, "a row of xq holds n bytes");
    assert_eq!(
        xq.len(),
        scales.len() * stride,
        "xq is [rows, stride], with a scale for each row"
    );
    assert_eq!(out.len(), scales.len() * n, "out is [rows, n]");
    for (r, scale) in scales.iter().enumerate() {
        let (chunks, tail) = xq[r * stride..][..n].as_chunks::<LANES>();
        let (outs, out_tail) = out[r * n..(r + 1) * n].as_chunks_mut::<LANES>();
        let inverse = s.splat(1.0 / scale);
        for (x, o) in chunks.iter().zip(outs) {
            s.store(s.mul(s.load_i8(x), inverse), o);
        }
        let mut last = [0i8; LANES];
        last[..tail.len()].copy_from_slice(tail);
        s.store_part(s.mul(s.load_i8(&last), inverse), out_tail);
    }
}

simd_kernel! {
    /// `out = factor · sum`: from the integer sums of a linear to its output (ARCHITECTURE.md §2.1, `factor = γ/s`).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn scale_sums(sums: &[i32], factor: f32, out: &mut [f32]) = scale_sums_body;
}

#[inline(always)]
fn scale_sums_body<S: Simd>(s: S, sums: &[i32], factor: f32, out: &mut [f32]) {
    assert_eq!(sums.len(), out.len(), "length of `out`");
    let by = s.splat(factor);
    let (sums, sums_rest) = sums.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (sums, out) in sums.iter().zip(out) {
        s.store(s.mul(s.load_i32(sums), by), out);
    }
    for (sum, out) in sums_rest.iter().zip(out_rest) {
        *out = *sum as f32 * factor;
    }
}

simd_kernel! {
    /// `out = xq · (1/s)` for each row: `xq` `[rows, stride]` of which the first `n` columns count, `out` `[rows, n]`.
    ///
    /// # Panics
    /// If `stride < n`, `xq.len() != scales.len() * stride` or `out.len() != scales.len() * n`.
    pub fn dequantize_rows(xq: &[i8], stride: usize, n: usize, scales: &[f32], out: &mut [f32]) = dequantize_rows_body;
}

#[inline(always)]
fn int8_rowwise_body<S: Simd>(s: S, w: &[f32], n: usize, out: &mut [i8], scales: &mut [f32]) {
    assert_eq!(w.len(), scales.len() * n, "w is [rows, n], with a scale for each row");
    assert_eq!(out.len(), w.len(), "out is as long as w");
    let most = 127.0;
    for (r, scale) in scales.iter_mut().enumerate() {
        let row = &w[r * n..(r + 1) * n];
        *scale = abs_max(s, row).max(SCALE_FLOOR) / most;
        let step = s.splat(*scale);
        map_to_i8!(s, row, out[r * n..(r + 1) * n], |v| {
            s.min(s.max(s.round(s.div(v, step)), s.splat(-most)), s.splat(most))
        });
    }
}

simd_kernel! {
    /// Quantises each output row of `w`, `[rows, n]`, to bytes: `scales[r]` is the step, a 127th of the row's largest magnitude, and
    /// `out = clamp(round(w / step), −127, 127)`.
    ///
    /// # Panics
    /// If `w.len() != scales.len() * n` or `out.len() != w.len()`.
    pub fn int8_rowwise(w: &[f32], n: usize, out: &mut [i8], scales: &mut [f32]) = int8_rowwise_body;
}

#[inline(always)]
fn binary_i8_body<S: Simd>(s: S, w: &[f32], out: &mut [i8]) {
    assert_eq!(w.len(), out.len(), "out is as long as w");
    let (zero, one, minus) = (s.splat(0.0), s.splat(1.0), s.splat(-1.0));
    map_to_i8!(s, w, out, |v| s.select_gt(zero, v, minus, one));
}

simd_kernel! {
    /// `out = 1` where `w ≥ 0` (also −0 and NaN), else −1.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn binary_i8(w: &[f32], out: &mut [i8]) = binary_i8_body;
}

#[inline(always)]
fn soft_ternary_body<S: Simd>(s: S, w: &[f32], gamma: f32, a: f32, out: &mut [f32]) {
    assert_eq!(w.len(), out.len(), "out is as long as w");
    let (inverse, g) = (s.splat(1.0 / gamma), s.splat(gamma));
    if a <= 0.0 {
        out.copy_from_slice(w);
    } else if a >= 1.0 {
        map_to_f32!(s, w, out, |v| s.mul(g, round_clamp(s, v, inverse, -1.0, 1.0)));
    } else {
        let (sharpness, half) = (s.splat(BETA0 / (1.0 - a)), s.splat(0.5));
        let (keep, step) = (s.splat(1.0 - a), s.splat(a * gamma * 0.5));
        map_to_f32!(s, w, out, |v| {
            let u = s.mul(v, inverse);
            let low = math::tanh(s, s.mul(sharpness, s.sub(u, half)));
            let high = math::tanh(s, s.mul(sharpness, s.add(u, half)));
            s.fma(step, s.add(low, high), s.mul(keep, v))
        });
    }
}

simd_kernel! {
    /// The soft staircase of the annealing phase: `w` itself at `a ≤ 0`, the ternary weight `γ·Wq` at `a ≥ 1`, and in
    /// between a mixture whose steps sharpen as `a` grows, continuous in `a`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn soft_ternary(w: &[f32], gamma: f32, a: f32, out: &mut [f32]) = soft_ternary_body;
}
