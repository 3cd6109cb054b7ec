//! Several tokens: tiles of rows by tokens whose sums stay in registers.
//!
//! ```text
//! panel    as many rows as fit in PANEL_BYTES, from memory once; it meets every token before the next panel does
//! strip    T tokens, which stay in the first-level cache, by all rows of the panel
//! tile     R rows by T tokens: sixteen columns of R rows are widened once and multiplied by those of each token
//! ```
//!
//! | registers | tile | loads for as many multiply-adds |
//! |---|---|---|
//! | 32 of 16 lanes (AVX-512) | 6 rows by 4 tokens, 24 sums | 10 for 24 |
//! | fewer | 2 rows by 3 tokens, 6 sums: 12 of the 16 registers of AVX2, 24 of NEON's 32 | 5 for 6 |
//!
//! A sum is one chain in one place, whatever the tile, so its bits are those of a single token. The sums of a tile are folded four at a time
//! ([`Simd::reduce_sums`]): of a row of 320 columns the folds would otherwise be a third of the work.
//!
//! Measured on one thread of an EPYC (Zen 4, its two threads busy) in billions of operations a second, two for each multiply-add, at 16 and
//! at 64 tokens alike, for shapes 1024×1024, 8192×320 and 512×1408: AVX-512 93 to 115 of f16 and 88 to 117 of int8, AVX2 70 to 94 and 72
//! to 84. Tiles of 2 by 4 took 80 to 93 and 76 to 98, and on AVX2, which has not registers enough for them, 47 to 52 and 54 to 61. (With
//! debug assertions, as in tests, every load is checked, and all of it takes several times as long.)

use super::tile;
use crate::simd::{Element, Simd};

/// Bytes of a panel: half of a small second-level cache, so that the tokens find room beside it.
const PANEL_BYTES: usize = 64 << 10;

/// `out[t, r] = Σ_k w[r,k] · x[t,k]`, `n` columns, all lengths as [`gemv_f32`](super::gemv_f32) asks.
#[inline(always)]
pub(super) fn gemv<S: Simd, W: Element>(s: S, w: &[W], x: &[f32], n: usize, tokens: usize, out: &mut [f32]) {
    if S::REGISTERS >= 32 {
        panels::<S, W, 6, 4>(s, w, x, n, tokens, out);
    } else {
        panels::<S, W, 2, 3>(s, w, x, n, tokens, out);
    }
}

#[inline(always)]
fn panels<S: Simd, W: Element, const R: usize, const T: usize>(
    s: S,
    w: &[W],
    x: &[f32],
    n: usize,
    tokens: usize,
    out: &mut [f32],
) {
    let rows = out.len() / tokens;
    // Whole tiles, at least one.
    let panel = R * (PANEL_BYTES / (R * size_of::<W>() * n).max(1)).max(1);
    for first in (0..rows).step_by(panel) {
        let end = rows.min(first.saturating_add(panel));
        let mut t = 0;
        while t + T <= tokens {
            strip::<S, W, R, T>(s, w, &x[t * n..], n, &mut out[t * rows..], rows, first, end);
            t += T;
        }
        while t < tokens {
            strip::<S, W, R, 1>(s, w, &x[t * n..], n, &mut out[t * rows..], rows, first, end);
            t += 1;
        }
    }
}

/// Rows `first..end` by the first `T` tokens of `x`, whose results are the first of `out`.
#[inline(always)]
fn strip<S: Simd, W: Element, const R: usize, const T: usize>(
    s: S,
    w: &[W],
    x: &[f32],
    n: usize,
    out: &mut [f32],
    rows: usize,
    first: usize,
    end: usize,
) {
    let mut r = first;
    while r + R <= end {
        let sums = tile::<S, W, R, T>(s, &w[r * n..], x, n);
        for i in 0..R {
            for t in 0..T {
                out[t * rows + r + i] = sums[i][t];
            }
        }
        r += R;
    }
    while r < end {
        let [sums] = tile::<S, W, 1, T>(s, &w[r * n..], x, n);
        for t in 0..T {
            out[t * rows + r] = sums[t];
        }
        r += 1;
    }
}
