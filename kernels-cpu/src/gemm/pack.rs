//! Packing: blocks of A and B in the order in which the tile reads them.
//!
//! A panel of B is `[kc][NR]`, a panel of A is `[kc][W]` with the first `mr` lanes in use, so that every row is whole,
//! aligned vectors; panels follow one another. Columns and lanes that a short panel lacks are left as they are and never read.

use super::{Tile, extent};

/// Rows of B copied into all panels before the next rows: long enough runs for both sides.
const ROWS: usize = 8;

/// B stored `[k, n]`: `kc` rows of `nc` values, `ld` apart.
#[inline(always)]
pub(super) fn b_rows<T: Tile>(src: &[f32], ld: usize, nc: usize, kc: usize, out: &mut [f32]) {
    for p0 in (0..kc).step_by(ROWS) {
        let rows = ROWS.min(kc - p0);
        for j in (0..nc).step_by(T::NR) {
            let nr = T::NR.min(nc - j);
            let panel = &mut out[j * kc + p0 * T::NR..][..rows * T::NR];
            for (p, to) in panel.chunks_exact_mut(T::NR).enumerate() {
                let from = &src[(p0 + p) * ld + j..][..nr];
                if nr == T::NR {
                    // The length is a constant here, so this is a few vector moves.
                    to.copy_from_slice(&from[..T::NR]);
                } else {
                    to[..nr].copy_from_slice(from);
                }
            }
        }
    }
}

/// B stored `[n, k]`: `nc` rows of `kc` values, `ld` apart.
#[inline(always)]
pub(super) fn b_transposed<T: Tile>(t: T, src: &[f32], ld: usize, nc: usize, kc: usize, out: &mut [f32]) {
    for j in (0..nc).step_by(T::W) {
        let (panel, lane) = (j / T::NR * T::NR, j % T::NR);
        for p in (0..kc).step_by(T::W) {
            let to = &mut out[panel * kc + p * T::NR + lane..];
            t.transpose(&src[j * ld + p..], ld, T::W.min(nc - j), T::W.min(kc - p), to, T::NR);
        }
    }
}

/// A stored `[k, m]`: `kc` rows of `mc` values, `ld` apart, in panels of `mr` columns.
#[inline(always)]
pub(super) fn a_rows<T: Tile>(src: &[f32], ld: usize, mc: usize, mr: usize, kc: usize, out: &mut [f32]) {
    for (panel, i) in (0..mc).step_by(mr).enumerate() {
        let out = &mut out[panel * kc * T::W..][..kc * T::W];
        // Whole vectors where the source has them down to its last row, whatever lies in the lanes that are not used.
        let whole = src.len() >= extent(kc, ld, i + T::W);
        for (p, to) in out.chunks_exact_mut(T::W).enumerate() {
            let from = &src[p * ld + i..];
            if whole {
                to.copy_from_slice(&from[..T::W]);
            } else {
                let rows = mr.min(mc - i);
                to[..rows].copy_from_slice(&from[..rows]);
            }
        }
    }
}

/// A stored `[m, k]`: `mc` rows of `kc` values, `ld` apart, in panels of `mr` rows.
#[inline(always)]
pub(super) fn a_transposed<T: Tile>(t: T, src: &[f32], ld: usize, mc: usize, mr: usize, kc: usize, out: &mut [f32]) {
    for (panel, i) in (0..mc).step_by(mr).enumerate() {
        let out = &mut out[panel * kc * T::W..][..kc * T::W];
        for (block, to) in out.chunks_mut(T::W * T::W).enumerate() {
            let p = block * T::W;
            t.transpose(&src[i * ld + p..], ld, mr.min(mc - i), T::W.min(kc - p), to, T::W);
        }
    }
}
