//! AVX2: tiles of 16 rows (two registers, lane = row) by four tokens, pairs summed in 16 bits by `maddubs`.

use core::arch::x86_64::*;

use super::Job;
use super::open::{PANEL, open};
use crate::bytes::avx2::load;
use crate::t2::GROUP_ROWS;

/// Tokens of a tile.
const TILE: usize = 4;
/// A step adds one pair to each 16-bit lane, at most `2 · 3 · 128 = 768` in magnitude: 32 steps reach 24576.
const WIDEN_EVERY: usize = 32;

/// See [`super::ternary_gemm`].
#[target_feature(enable = "avx2")]
pub(super) fn gemm(job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let (stride, steps, rows) = (job.stride, job.cols.div_ceil(4), job.rows);
    let counted = job.counted(4 * steps);
    let groups = PANEL / GROUP_ROWS * job.layout.group_bytes(job.cols);
    for (p, groups) in w.chunks(groups).enumerate() {
        open(job, groups, scratch, |step, row| PANEL * step + row);
        let (panel, row0) = (&scratch[..steps], p * PANEL);
        for (x, out) in xq.chunks(TILE * stride).zip(out.chunks_mut(TILE * rows)) {
            match x.len() / stride {
                1 => tile::<1>(panel, x, stride, counted, out, rows, row0),
                2 => tile::<2>(panel, x, stride, counted, out, rows, row0),
                3 => tile::<3>(panel, x, stride, counted, out, rows, row0),
                _ => tile::<TILE>(panel, x, stride, counted, out, rows, row0),
            }
        }
    }
}

/// Sixteen rows by `T` tokens; the sum of the first `counted` values of each is taken off.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(
    panel: &[[u8; 64]],
    xq: &[i8],
    stride: usize,
    counted: usize,
    out: &mut [i32],
    rows: usize,
    row0: usize,
) {
    let ones = _mm256_set1_epi16(1);
    let x: [&[[i8; 4]]; T] =
        core::array::from_fn(|t| &xq[t * stride..(t + 1) * stride].as_chunks::<4>().0[..panel.len()]);
    let mut acc = [[_mm256_setzero_si256(); 2]; T];
    for t in 0..T {
        let sum: i32 = xq[t * stride..][..counted].iter().map(|v| i32::from(*v)).sum();
        acc[t] = [_mm256_set1_epi32(-sum); 2];
    }
    let mut start = 0;
    while start < panel.len() {
        let end = panel.len().min(start + WIDEN_EVERY);
        let mut acc16 = [[_mm256_setzero_si256(); 2]; T];
        for s in start..end {
            let weights = [load(&panel[s], 0), load(&panel[s], 1)];
            for t in 0..T {
                // SAFETY: each of `x` was cut to the panel's length, so `s` lies inside it.
                let word = _mm256_set1_epi32(i32::from_ne_bytes(unsafe { *x[t].get_unchecked(s) }.map(|b| b as u8)));
                for h in 0..2 {
                    acc16[t][h] = _mm256_add_epi16(acc16[t][h], _mm256_maddubs_epi16(weights[h], word));
                }
            }
        }
        for t in 0..T {
            for h in 0..2 {
                acc[t][h] = _mm256_add_epi32(acc[t][h], _mm256_madd_epi16(acc16[t][h], ones));
            }
        }
        start = end;
    }
    for t in 0..T {
        let mut lanes = [0i32; PANEL];
        for h in 0..2 {
            // SAFETY: eight lanes from `8h`, `h` 0 or 1, lie inside the sixteen.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().add(8 * h).cast(), acc[t][h]) };
        }
        let row = &mut out[t * rows + row0..(t + 1) * rows];
        let n = row.len().min(PANEL);
        row[..n].copy_from_slice(&lanes[..n]);
    }
}
