//! Root-mean-square normalisation (Zhang and Sennrich, 2019), rows of `n = w.len()` values.
//!
//! ```text
//! r  = 1 / sqrt(mean(x²) + eps)          y = (x·r)·w
//! dx = r·(dy·w − x̂·c)                    x̂ = x·r,  c = r·mean(dy·w·x) = mean(dy·w·x̂)
//! dw += Σ_rows dy·x̂                      rows in order
//! ```
//! A sum over a row runs in sixteen lanes, lane `i mod 16`, the missing lanes of the last vector zero, folded 8-4-2-1.
//! [`rms_norm_i8`] goes on to the bytes of the linear behind the norm.
//!
//! Cost: the row is read twice, the second time from the first cache level, so memory sees one read and one write.

use crate::elementwise::dot_lanes;
use crate::math::sqrt_f32;
use crate::simd::{LANES, Simd, simd_kernel};

mod quantized;
#[cfg(test)]
mod tests;

pub use quantized::rms_norm_i8;

simd_kernel! {
    /// `out = x / sqrt(mean(x²) + eps) · w` for each row; `x` and `out` are `[rows, w.len()]`.
    ///
    /// # Panics
    /// If `x` and `out` differ in length or are not whole rows.
    pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) = forward;
}

simd_kernel! {
    /// Backward of [`rms_norm`]: writes `dx` (`[rows, w.len()]`), adds to `dw` (`[w.len()]`).
    ///
    /// # Panics
    /// If `x`, `dy` and `dx` differ in length or are not whole rows, or `dw` is not as long as `w`.
    pub fn rms_norm_backward(
        x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32],
    ) = backward;
}

/// `1 / sqrt(mean(x²) + eps)` of one row.
#[inline(always)]
fn reciprocal_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let squares = s.reduce_sum(dot_lanes(s, x, x));
    reciprocal_of(squares, x.len(), eps)
}

/// `1 / sqrt(squares / n + eps)`.
#[inline(always)]
fn reciprocal_of(squares: f32, n: usize, eps: f32) -> f32 {
    1.0 / sqrt_f32(squares / n as f32 + eps)
}

#[inline(always)]
fn forward<S: Simd>(s: S, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "length of `out`");
    if x.is_empty() {
        return;
    }
    let n = w.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "`x` is not whole rows of {n}");
    let (w, w_rest) = w.as_chunks::<LANES>();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let r = s.splat(reciprocal_rms(s, x, eps));
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (out, out_rest) = out.as_chunks_mut::<LANES>();
        for ((x, w), out) in x.iter().zip(w).zip(out) {
            s.store(s.mul(s.mul(s.load(x), r), s.load(w)), out);
        }
        s.store_part(
            s.mul(s.mul(s.load_or(x_rest, 0.0), r), s.load_or(w_rest, 0.0)),
            out_rest,
        );
    }
}

#[inline(always)]
fn backward<S: Simd>(s: S, x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dw: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "length of `dy`");
    assert_eq!(x.len(), dx.len(), "length of `dx`");
    assert_eq!(w.len(), dw.len(), "length of `dw`");
    if x.is_empty() {
        return;
    }
    let n = w.len();
    assert!(n > 0 && x.len().is_multiple_of(n), "`x` is not whole rows of {n}");
    let (w, w_rest) = w.as_chunks::<LANES>();
    let (dw, dw_rest) = dw.as_chunks_mut::<LANES>();
    for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (dy, dy_rest) = dy.as_chunks::<LANES>();
        let (dx, dx_rest) = dx.as_chunks_mut::<LANES>();
        let (mut squares, mut products) = (s.splat(0.0), s.splat(0.0));
        for ((x, dy), w) in x.iter().zip(dy).zip(w) {
            let x = s.load(x);
            squares = s.fma(x, x, squares);
            products = s.fma(s.mul(s.load(dy), s.load(w)), x, products);
        }
        let (xt, gt) = (s.load_or(x_rest, 0.0), s.load_or(dy_rest, 0.0));
        let gwt = s.mul(gt, s.load_or(w_rest, 0.0));
        let r = reciprocal_of(s.reduce_sum(s.fma(xt, xt, squares)), n, eps);
        let c = s.splat(s.reduce_sum(s.fma(gwt, xt, products)) * r / n as f32);
        let r = s.splat(r);
        for ((((x, dy), w), dw), dx) in x.iter().zip(dy).zip(w).zip(&mut *dw).zip(dx) {
            let (xhat, g) = (s.mul(s.load(x), r), s.load(dy));
            s.store(s.fma(g, xhat, s.load(dw)), dw);
            s.store(s.mul(r, s.fnma(xhat, c, s.mul(g, s.load(w)))), dx);
        }
        let xhat = s.mul(xt, r);
        s.store_part(s.fma(gt, xhat, s.load_or(dw_rest, 0.0)), dw_rest);
        s.store_part(s.mul(r, s.fnma(xhat, c, gwt)), dx_rest);
    }
}
