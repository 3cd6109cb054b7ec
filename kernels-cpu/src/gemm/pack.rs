//! Packing: blocks of A and B in the order in which the tile reads them.
//!
//! A panel of B is `[kc][NR]`, a panel of A is `[kc][MR]`; panels follow one another. Panels of A are written with whole
//! vectors that overlap (`MR` need not be a vector), each row overwriting the tail of the one before; the last vector
//! reaches up to `W - MR` values past the panel, which the next panel overwrites or the scratch's slack absorbs. What lies in the
//! unused rows of a short panel of A is never read.

use super::{Tile, extent};

/// Rows of B copied into all panels before the next rows: long enough runs for both sides.
const ROWS: usize = 8;

/// B stored `[k, n]`: `kc` rows of `nc` values, `ld` apart. Missing columns of the last panel become zeros.
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
                    to[nr..].fill(0.0);
                }
            }
        }
    }
}

/// B stored `[n, k]`: `nc` rows of `kc` values, `ld` apart. Missing columns of the last panel become zeros.
#[inline(always)]
pub(super) fn b_transposed<T: Tile>(t: T, src: &[f32], ld: usize, nc: usize, kc: usize, out: &mut [f32]) {
    for j in (0..nc.next_multiple_of(T::NR)).step_by(T::W) {
        let (panel, lane) = (j / T::NR * T::NR, j % T::NR);
        let rows = T::W.min(nc.saturating_sub(j));
        for p in (0..kc).step_by(T::W) {
            let cols = T::W.min(kc - p);
            let from = if rows == 0 { &[] } else { &src[j * ld + p..] };
            t.transpose(from, ld, rows, cols, &mut out[panel * kc + p * T::NR + lane..], T::NR);
        }
    }
}

/// A stored `[k, m]`: `kc` rows of `mc` values, `ld` apart, in panels of `mr` columns.
#[inline(always)]
pub(super) fn a_rows<T: Tile>(src: &[f32], ld: usize, mc: usize, mr: usize, kc: usize, out: &mut [f32]) {
    for (panel, i) in (0..mc).step_by(mr).enumerate() {
        let out = &mut out[panel * kc * T::MR..];
        let rows = mr.min(mc - i);
        // Whole vectors where the source has them to its last row; what they hold past the panel is overwritten or unused.
        if src.len() >= extent(kc, ld, i + T::W) {
            for p in 0..kc {
                out[p * T::MR..][..T::W].copy_from_slice(&src[p * ld + i..][..T::W]);
            }
        } else {
            for p in 0..kc {
                out[p * T::MR..][..rows].copy_from_slice(&src[p * ld + i..][..rows]);
            }
        }
    }
}

/// A stored `[m, k]`: `mc` rows of `kc` values, `ld` apart, in panels of `mr` rows.
#[inline(always)]
pub(super) fn a_transposed<T: Tile>(t: T, src: &[f32], ld: usize, mc: usize, mr: usize, kc: usize, out: &mut [f32]) {
    for (panel, i) in (0..mc).step_by(mr).enumerate() {
        let out = &mut out[panel * kc * T::MR..];
        let rows = mr.min(mc - i);
        for p in (0..kc).step_by(T::W) {
            t.transpose(
                &src[i * ld + p..],
                ld,
                rows,
                T::W.min(kc - p),
                &mut out[p * T::MR..],
                T::MR,
            );
        }
    }
}
