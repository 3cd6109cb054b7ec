//! `out[t, r] = Σ_k w[r,k] · x[t,k]` for f32, f16, bfloat16 or row-wise int8 weights and f32 activations: the head and the linears that
//! stay high precision.
//!
//! Weights are widened exactly to f32 as they are read. Each sum runs in sixteen lanes, lane `k mod 16` a chain of fused
//! multiply-adds in index order (the last columns filled up with zeros), folded 8-4-2-1: the same bits on every path and
//! however tokens and rows are split over calls and threads.
//!
//! An int8 weight is `q · step[r]`: the chains sum `q · x`, with `q` widened exactly, and the row's sum is multiplied by its step once, at the end.
//!
//! Since the order of a chain is fixed, it cannot be split to hide the latency of the multiply-add; `ROWS` rows side by
//! side hide it instead, and several tokens share each weight that is read (`many.rs`). Rows side by side are as
//! many short streams, which the hardware prefetcher follows at half the memory's speed or less: while one set of rows is
//! worked on, the next is asked for in address order, so that memory sees a single stream.
//!
//! Cost: 4, 2 or 1 bytes and 1 multiply-add per weight and token: one token runs at the memory's speed, many at that of the multiply-adds.

mod many;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::simd::{Element, LANES, Simd, simd_kernel};

/// Rows side by side for one token.
const ROWS: usize = 4;

/// The first `R` rows of `w` (each `n` long) by `T` tokens of `x`: `[[sum; T]; R]`.
#[inline(always)]
fn tile<S: Simd, W: Element, const R: usize, const T: usize>(s: S, w: &[W], x: &[f32], n: usize) -> [[f32; T]; R] {
    // Only a hint: past the last row it points at nothing that is read.
    let next = w.as_ptr().wrapping_add(R * n);
    let w: [&[W]; R] = core::array::from_fn(|r| &w[r * n..(r + 1) * n]);
    dots::<S, W, R, T, true>(s, w, x, next)
}

/// The rows `w` by `T` tokens of `x`. With `AHEAD` what lies from `next` on, as much as the rows themselves, is asked for meanwhile.
#[inline(always)]
fn dots<S: Simd, W: Element, const R: usize, const T: usize, const AHEAD: bool>(
    s: S,
    w: [&[W]; R],
    x: &[f32],
    next: *const W,
) -> [[f32; T]; R] {
    let n = w[0].len();
    let whole = n / LANES;
    let x: [&[f32]; T] = core::array::from_fn(|t| &x[t * n..(t + 1) * n]);
    // Cut to one length, so that the compiler sees every index inside.
    let wc: [&[[W; LANES]]; R] = core::array::from_fn(|r| &w[r].as_chunks::<LANES>().0[..whole]);
    let xc: [&[[f32; LANES]]; T] = core::array::from_fn(|t| &x[t].as_chunks::<LANES>().0[..whole]);
    let mut acc = [[s.splat(0.0); T]; R];
    let alone = R == 1 && T == 1 && S::REGISTERS <= ROWS;
    if alone {
        acc[0][0] = s.chain(wc[0], xc[0], acc[0][0]);
    }
    for c in if alone { whole } else { 0 }..whole {
        if AHEAD {
            for line in 0..(R * size_of::<[W; LANES]>()).div_ceil(64) {
                s.prefetch(next.wrapping_add(c * R * LANES).cast::<u8>().wrapping_add(64 * line));
            }
        }
        let mut wv = [s.splat(0.0); R];
        for r in 0..R {
            wv[r] = W::load(s, &wc[r][c]);
        }
        for t in 0..T {
            let xv = s.load(&xc[t][c]);
            for r in 0..R {
                acc[r][t] = s.fma(wv[r], xv, acc[r][t]);
            }
        }
    }
    if !n.is_multiple_of(LANES) {
        for r in 0..R {
            let mut last = [W::ZERO; LANES];
            let tail = &w[r][whole * LANES..];
            last[..tail.len()].copy_from_slice(tail);
            let wv = W::load(s, &last);
            for t in 0..T {
                acc[r][t] = s.fma(wv, s.load_or(&x[t][whole * LANES..], 0.0), acc[r][t]);
            }
        }
    }
    s.reduce_tile(acc)
}

#[inline(always)]
fn gemv_body<S: Simd, W: Element>(s: S, w: &[W], x: &[f32], tokens: usize, out: &mut [f32]) {
    let (n, rows) = (
        x.len().checked_div(tokens).unwrap_or(0),
        out.len().checked_div(tokens).unwrap_or(0),
    );
    assert_eq!(x.len(), tokens * n, "x is [tokens, n]");
    assert_eq!(out.len(), tokens * rows, "out is [tokens, rows]");
    if out.is_empty() {
        return;
    }
    assert_eq!(w.len(), rows * n, "w is [rows, n]");
    if tokens > 1 {
        return many::gemv::<S, W>(s, w, x, n, tokens, out);
    }
    let mut r = 0;
    if S::REGISTERS > ROWS {
        while r + ROWS <= rows {
            let sums = tile::<S, W, ROWS, 1>(s, &w[r * n..], x, n);
            out[r..r + ROWS].copy_from_slice(sums.as_flattened());
            r += ROWS;
        }
    }
    for r in r..rows {
        out[r] = tile::<S, W, 1, 1>(s, &w[r * n..], x, n)[0][0];
    }
}

#[inline(always)]
fn gather_body<S: Simd, W: Element>(s: S, w: &[W], x: &[f32], rows: &[u32], out: &mut [f32]) {
    let n = x.len();
    assert_eq!(rows.len(), out.len(), "out is [rows.len()]");
    assert!(n > 0 && w.len().is_multiple_of(n), "w is [rows, n]");
    let row = |r: u32| &w[r as usize * n..(r as usize + 1) * n];
    let (fours, rest) = rows.as_chunks::<ROWS>();
    let (out_fours, out_rest) = out.as_chunks_mut::<ROWS>();
    for (rows, out) in fours.iter().zip(out_fours) {
        let w = [row(rows[0]), row(rows[1]), row(rows[2]), row(rows[3])];
        let sums = dots::<S, W, ROWS, 1, false>(s, w, x, core::ptr::null());
        out.copy_from_slice(sums.as_flattened());
    }
    for (&r, out) in rest.iter().zip(out_rest) {
        *out = dots::<S, W, 1, 1, false>(s, [row(r)], x, core::ptr::null())[0][0];
    }
}

#[inline(always)]
fn gemv_i8_body<S: Simd>(s: S, w: &[i8], steps: &[f32], x: &[f32], tokens: usize, out: &mut [f32]) {
    assert_eq!(
        out.len(),
        tokens * steps.len(),
        "out is [tokens, rows], with a step for each row"
    );
    gemv_body::<S, i8>(s, w, x, tokens, out);
    for out in out.chunks_exact_mut(steps.len().max(1)) {
        for (y, step) in out.iter_mut().zip(steps) {
            *y *= step;
        }
    }
}

simd_kernel! {
    /// `out[t, r] = steps[r] · Σ_k w[r,k] · x[t,k]`: int8 weights `[rows, n]` with a step for each row, `x` `[tokens, n]`, `out` `[tokens, rows]`.
    ///
    /// # Panics
    /// If `x.len()` is not a multiple of `tokens`, `out.len() != tokens * steps.len()` or `w.len() != steps.len() * n`.
    pub fn gemv_i8(w: &[i8], steps: &[f32], x: &[f32], tokens: usize, out: &mut [f32]) = gemv_i8_body;
}

#[inline(always)]
fn gather_i8_body<S: Simd>(s: S, w: &[i8], steps: &[f32], x: &[f32], rows: &[u32], out: &mut [f32]) {
    gather_body::<S, i8>(s, w, x, rows, out);
    for (y, &row) in out.iter_mut().zip(rows) {
        *y *= steps[row as usize];
    }
}

simd_kernel! {
    /// `out[i] = steps[rows[i]] · Σ_k w[rows[i], k] · x[k]`: some rows of int8 weights `[rows, n]` with a step for each, `x` `[n]`, one token.
    ///
    /// The sums are those of all rows at once, bit for bit.
    ///
    /// # Panics
    /// If `x` is empty, `w` is not whole rows of its length, `out` is not as long as `rows`, or `w` or `steps` has no such row.
    pub fn gather_i8(w: &[i8], steps: &[f32], x: &[f32], rows: &[u32], out: &mut [f32]) = gather_i8_body;
}

macro_rules! gather {
    ($name:ident, $weight:ty, $words:literal) => {
        simd_kernel! {
            #[doc = concat!("`out[i] = Σ_k w[rows[i], k] · x[k]`: some rows of ", $words, " weights `[rows, n]`, `x` `[n]`, one token.")]
            ///
            /// The sums are those of all rows at once, bit for bit.
            ///
            /// # Panics
            /// If `x` is empty, `w` is not whole rows of its length, `out` is not as long as `rows`, or `w` has no such row.
            pub fn $name(w: &[$weight], x: &[f32], rows: &[u32], out: &mut [f32]) = gather_body::<_, $weight>;
        }
    };
}
gather!(gather_f32, f32, "f32");
gather!(gather_f16, f16, "f16");
gather!(gather_bf16, bf16, "bfloat16");

simd_kernel! {
    /// `out[t, r] = Σ_k w[r,k] · x[t,k]`: f32 weights `[rows, n]`, `x` `[tokens, n]`, `out` `[tokens, rows]`.
    ///
    /// # Panics
    /// If `x.len()` or `out.len()` is not a multiple of `tokens`, or `w.len() != rows * n`.
    pub fn gemv_f32(w: &[f32], x: &[f32], tokens: usize, out: &mut [f32]) = gemv_body::<_, f32>;
}

simd_kernel! {
    /// `out[t, r] = Σ_k w[r,k] · x[t,k]`: f16 weights `[rows, n]`, `x` `[tokens, n]`, `out` `[tokens, rows]`.
    ///
    /// # Panics
    /// If `x.len()` or `out.len()` is not a multiple of `tokens`, or `w.len() != rows * n`.
    pub fn gemv_f16(w: &[f16], x: &[f32], tokens: usize, out: &mut [f32]) = gemv_body::<_, f16>;
}

simd_kernel! {
    /// `out[t, r] = Σ_k w[r,k] · x[t,k]`: bfloat16 weights `[rows, n]`, `x` `[tokens, n]`, `out` `[tokens, rows]`.
    ///
    /// # Panics
    /// If `x.len()` or `out.len()` is not a multiple of `tokens`, or `w.len() != rows * n`.
    pub fn gemv_bf16(w: &[bf16], x: &[f32], tokens: usize, out: &mut [f32]) = gemv_body::<_, bf16>;
}
