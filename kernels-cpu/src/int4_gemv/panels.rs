//! Which rows meet which tokens when.
//!
//! ```text
//! panel    as many rows as fit in PANEL_BYTES, from memory once; it meets every token before the next panel does
//! strip    T tokens, which stay in the first-level cache, by all rows of the panel
//! tile     R rows by T tokens: codes are opened and steps widened once, a token's bytes and steps are read once
//! ```
//!
//! With AVX-512 a tile is 3 rows by 4 tokens: 12 sums, six registers of codes, three of steps, and a token's. 128 columns of a row and a token are
//! then two dot products, a conversion, a product of steps and a multiply-add: all but the conversion share the units of the dot products,
//! so half of the rate of those alone is the most that there is. With half as many or shorter registers a tile is one row by 4 tokens.
//!
//! Measured on one thread of an EPYC (Zen 4, its two threads busy) at 16 and 64 tokens for shapes 1024×1024, 8192×320 and 512×1408, billions
//! of operations a second, two for each multiply-add: AVX-512 208, 148 and 214, 256-bit VNNI 170, 118 and 176, AVX2 119, 84 and 122. Steps
//! multiplied and spread for each row and token, and two rows by four tokens, took 196 to 211, 136 to 147 and 203 to 206; 139, 102 to 111
//! and 142; 110, 79 to 87 and 114 to 117.

use super::{BLOCK_BYTES, Dots, InputBlock, Rows, dots};

/// Bytes of a panel's codes: half of a small second-level cache, so that the tokens find room beside it.
const PANEL_BYTES: usize = 64 << 10;

/// All rows of `w` by all tokens of `x` in tiles of `R` rows by `T` tokens, into `out`, `[tokens, rows]`.
#[inline(always)]
pub(super) fn panels<D: Dots, const R: usize, const T: usize>(
    d: D,
    w: Rows<'_>,
    x: &[InputBlock],
    rows: usize,
    out: &mut [f32],
) {
    let tokens = out.len() / rows;
    // Whole tiles, at least one. A single token meets every row once, so there it does not matter.
    let panel = R * (PANEL_BYTES / (R * BLOCK_BYTES * w.blocks).max(1)).max(1);
    for first in (0..rows).step_by(panel) {
        let end = rows.min(first.saturating_add(panel));
        let mut t = 0;
        while t + T <= tokens {
            strip::<D, R, T>(d, w, &x[t * w.blocks..], &mut out[t * rows..], rows, first, end);
            t += T;
        }
        while t < tokens {
            strip::<D, R, 1>(d, w, &x[t * w.blocks..], &mut out[t * rows..], rows, first, end);
            t += 1;
        }
    }
}

/// Rows `first..end` by the first `T` tokens of `x`, whose results are the first of `out`.
#[inline(always)]
fn strip<D: Dots, const R: usize, const T: usize>(
    d: D,
    w: Rows<'_>,
    x: &[InputBlock],
    out: &mut [f32],
    rows: usize,
    first: usize,
    end: usize,
) {
    let mut r = first;
    while r + R <= end {
        let mut side = [w.row(r); R];
        for i in 1..R {
            side[i] = w.row(r + i);
        }
        let sums = dots::<D, R, T, true>(d, side, x);
        for i in 0..R {
            for t in 0..T {
                out[t * rows + r + i] = sums[i][t];
            }
        }
        r += R;
    }
    while r < end {
        let [sums] = dots::<D, 1, T, true>(d, [w.row(r)], x);
        for t in 0..T {
            out[t * rows + r] = sums[t];
        }
        r += 1;
    }
}
