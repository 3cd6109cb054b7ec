//! Root-mean-square normalisation (Zhang and Sennrich, 2019), rows of `n = w.len()` values.
//!
//! ```text
//! r  = 1 / sqrt(mean(x²) + eps)          y = (x·r)·w
//! dx = r·(dy·w − x̂·c)                    x̂ = x·r,  c = r·mean(dy·w·x) = mean(dy·w·x̂)
//! dw += Σ_rows dy·x̂                      rows in order
//! ```
//! **The gradient at a row of zeros is zero.** `1/√eps` of the formula is 316 for an eps of 1e-5. Where a word at the beginning of a text is dropped, its row is zero through all blocks,
//! and the norms of ten blocks multiplied past the largest f32, for nothing: what the gradient meets there are the zeros of that row, in every weight's gradient.
//!
//! The squares of a row are added in 64 lanes, lane `i mod 64`, each a chain of fused multiply-adds, folded 32-16-8-4-2-1: four vectors, so that no chain waits for itself, here or
//! on a GPU, where a token waits for the chains of four such sums in each layer. Other sums over a row run in sixteen lanes.
//! [`rms_norm_i8`] goes on to the bytes of the linear behind the norm.
//!
//! Cost: the row is read twice, the second time from the first cache level, so memory sees one read and one write.

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
    1.0 / sqrt_f32(sum_of_squares(s, x) / x.len() as f32 + eps)
}

/// `Σ x²` of one row.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    const CHAINS: usize = 4;
    let mut chains = [s.splat(0.0); CHAINS];
    let (whole, rest) = x.as_chunks::<{ CHAINS * LANES }>();
    for x in whole {
        for (chain, x) in chains.iter_mut().zip(x.as_chunks::<LANES>().0) {
            let x = s.load(x);
            *chain = s.fma(x, x, *chain);
        }
    }
    let (vectors, last) = rest.as_chunks::<LANES>();
    for (chain, x) in chains.iter_mut().zip(vectors) {
        let x = s.load(x);
        *chain = s.fma(x, x, *chain);
    }
    if let Some(chain) = chains.get_mut(vectors.len()) {
        let x = s.load_or(last, 0.0);
        *chain = s.fma(x, x, *chain);
    }
    let [a, b, c, d] = chains;
    s.reduce_sum(s.add(s.add(a, c), s.add(b, d)))
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
        let squares = sum_of_squares(s, x);
        let r = match squares == 0.0 {
            true => 0.0,
            false => 1.0 / sqrt_f32(squares / n as f32 + eps),
        };
        let (x, x_rest) = x.as_chunks::<LANES>();
        let (dy, dy_rest) = dy.as_chunks::<LANES>();
        let (dx, dx_rest) = dx.as_chunks_mut::<LANES>();
        let mut products = s.splat(0.0);
        for ((x, dy), w) in x.iter().zip(dy).zip(w) {
            products = s.fma(s.mul(s.load(dy), s.load(w)), s.load(x), products);
        }
        let (xt, gt) = (s.load_or(x_rest, 0.0), s.load_or(dy_rest, 0.0));
        let gwt = s.mul(gt, s.load_or(w_rest, 0.0));
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
