//! Packing: blocks of A and B in the order in which the tile reads them.
//!
//! A panel of B is `[kc][NR]`, a panel of A is `[kc][W]` with the first `mr` lanes in use, so that every row is whole,
//! aligned vectors; panels follow one another. Columns and lanes that a short panel lacks are left as they are and never read.
//! `depth` values of k are `kc = ⌈depth / DEPTH⌉` units.

use super::{Tile, extent};

/// Rows packed into all panels before the next rows: long enough runs for both sides.
pub(crate) const ROWS: usize = 8;

/// B stored `[k, n]`: `depth` rows of `nc` values, `ld` apart.
#[inline(always)]
pub(super) fn b_rows<T: Tile>(t: T, src: &[f32], ld: usize, nc: usize, depth: usize, out: &mut [T::Unit]) {
    let kc = depth.div_ceil(T::DEPTH);
    for p0 in (0..kc).step_by(ROWS) {
        let rows = ROWS.min(kc - p0);
        for j in (0..nc).step_by(T::NR) {
            let nr = T::NR.min(nc - j);
            let panel = &mut out[j * kc + p0 * T::NR..][..rows * T::NR];
            for (p, to) in panel.chunks_exact_mut(T::NR).enumerate() {
                let first = (p0 + p) * T::DEPTH;
                for v in (0..nr).step_by(T::W) {
                    let from = &src[first * ld + j + v..];
                    t.zip(
                        from,
                        ld,
                        T::DEPTH.min(depth - first),
                        T::W.min(nr - v),
                        &mut to[v..][..T::W],
                    );
                }
            }
        }
    }
}

/// B stored `[n, k]`: `nc` rows of `depth` values, `ld` apart.
#[inline(always)]
pub(super) fn b_transposed<T: Tile>(t: T, src: &[f32], ld: usize, nc: usize, depth: usize, out: &mut [T::Unit]) {
    let kc = depth.div_ceil(T::DEPTH);
    for j in (0..nc).step_by(T::W) {
        let (panel, lane) = (j / T::NR * T::NR, j % T::NR);
        for p in (0..kc).step_by(T::W) {
            let to = &mut out[panel * kc + p * T::NR + lane..];
            let first = p * T::DEPTH;
            let cols = (T::W * T::DEPTH).min(depth - first);
            t.transpose(&src[j * ld + first..], ld, T::W.min(nc - j), cols, to, T::NR);
        }
    }
}

/// A stored `[k, m]`: `depth` rows of `mc` values, `ld` apart, in panels of `mr` columns.
#[inline(always)]
pub(super) fn a_rows<T: Tile>(t: T, src: &[f32], ld: usize, mc: usize, mr: usize, depth: usize, out: &mut [T::Unit]) {
    let kc = depth.div_ceil(T::DEPTH);
    for p0 in (0..kc).step_by(ROWS) {
        let units = ROWS.min(kc - p0);
        for (panel, i) in (0..mc).step_by(mr).enumerate() {
            let out = &mut out[(panel * kc + p0) * T::W..][..units * T::W];
            // Whole vectors where the source has them down to its last row, whatever lies in the lanes that are not used.
            let whole = src.len() >= extent(depth, ld, i + T::W);
            let cols = if whole { T::W } else { mr.min(mc - i) };
            for (p, to) in out.chunks_exact_mut(T::W).enumerate() {
                let first = (p0 + p) * T::DEPTH;
                t.zip(&src[first * ld + i..], ld, T::DEPTH.min(depth - first), cols, to);
            }
        }
    }
}

/// A stored `[m, k]`: `mc` rows of `depth` values, `ld` apart, in panels of `mr` rows.
#[inline(always)]
pub(super) fn a_transposed<T: Tile>(
    t: T,
    src: &[f32],
    ld: usize,
    mc: usize,
    mr: usize,
    depth: usize,
    out: &mut [T::Unit],
) {
    let kc = depth.div_ceil(T::DEPTH);
    for (panel, i) in (0..mc).step_by(mr).enumerate() {
        let out = &mut out[panel * kc * T::W..][..kc * T::W];
        for (block, to) in out.chunks_mut(T::W * T::W).enumerate() {
            let first = block * T::W * T::DEPTH;
            let cols = (T::W * T::DEPTH).min(depth - first);
            t.transpose(&src[i * ld + first..], ld, mr.min(mc - i), cols, to, T::W);
        }
    }
}
