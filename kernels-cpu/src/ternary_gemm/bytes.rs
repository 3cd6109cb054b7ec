//! The body over [`Bytes`]: tiles of 16 rows (lane = row) by up to six tokens.

use super::open::{PANEL, open};
use super::{Job, PASS, sums_of};
use crate::bytes::{Bytes, byte_kernel};
use crate::t2::GROUP_ROWS;

/// Most tokens of a tile: 24 accumulators of 16 bytes or 12 of 32, which leaves registers for the weights and one token.
const TILE: usize = 6;

byte_kernel! {
    /// See [`super::ternary_gemm`].
    pub(super) fn gemm(job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) = gemm_body;
}

#[inline(always)]
fn gemm_body<B: Bytes>(b: B, job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let steps = job.cols.div_ceil(4);
    let groups = PANEL / GROUP_ROWS * job.layout.group_bytes(job.cols);
    // On 32 bits the product of the widest rows does not fit.
    for (xq, out) in xq
        .chunks(PASS.saturating_mul(job.stride))
        .zip(out.chunks_mut(PASS.saturating_mul(job.rows)))
    {
        let sums = sums_of(xq, job.stride, job.counted(4 * steps));
        for (p, groups) in w.chunks(groups).enumerate() {
            open(job, groups, scratch, |step, row| PANEL * step + row);
            let (panel, row0) = (&scratch[..steps], p * PANEL);
            tiles::<B, false>(b, job.stride, job.rows, panel, xq, &sums, out, row0);
        }
    }
}

/// Takes all tokens through an opened panel: `out[t, r] = Σ codes·x − sums[t]`, modulo 2^32. Codes are 0 to 127, or `ANY` bytes as
/// [`Bytes::signed`] makes them.
#[inline(always)]
pub(crate) fn tiles<B: Bytes, const ANY: bool>(
    b: B,
    stride: usize,
    rows: usize,
    panel: &[[u8; 64]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    row0: usize,
) {
    let tokens = xq.len() / stride;
    let mut t = 0;
    while t < tokens {
        let (x, sums, out) = (&xq[t * stride..], &sums[t..], &mut out[t * rows..]);
        t += match tokens - t {
            0 | 1 => tile::<B, 1, ANY>(b, stride, rows, panel, x, sums, out, row0),
            2 => tile::<B, 2, ANY>(b, stride, rows, panel, x, sums, out, row0),
            3 => tile::<B, 3, ANY>(b, stride, rows, panel, x, sums, out, row0),
            4 => tile::<B, 4, ANY>(b, stride, rows, panel, x, sums, out, row0),
            5 => tile::<B, 5, ANY>(b, stride, rows, panel, x, sums, out, row0),
            _ => tile::<B, TILE, ANY>(b, stride, rows, panel, x, sums, out, row0),
        };
    }
}

/// Sixteen rows by `T` tokens; returns `T`.
#[inline(always)]
fn tile<B: Bytes, const T: usize, const ANY: bool>(
    b: B,
    stride: usize,
    rows: usize,
    panel: &[[u8; 64]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    row0: usize,
) -> usize {
    let x: [&[[i8; 4]]; T] =
        core::array::from_fn(|t| &xq[t * stride..(t + 1) * stride].as_chunks::<4>().0[..panel.len()]);
    // A register has at least four lanes, so sixteen rows are at most four.
    let mut acc = [[b.sums(0); 4]; T];
    for t in 0..T {
        acc[t] = [b.sums(sums[t].wrapping_neg()); 4];
    }
    for (s, step) in panel.iter().enumerate() {
        for t in 0..T {
            // SAFETY: each of `x` was cut to the panel's length, so `s` lies inside it.
            let word = b.splat_word(unsafe { *x[t].get_unchecked(s) });
            for part in 0..B::PARTS {
                let codes = b.load(step, part);
                acc[t][part] = if ANY {
                    b.dot_any_words(acc[t][part], codes, word)
                } else {
                    b.dot_words(acc[t][part], codes, word)
                };
            }
        }
    }
    for t in 0..T {
        let mut lanes = [0i32; PANEL];
        for part in 0..B::PARTS {
            b.store(acc[t][part], &mut lanes, part);
        }
        let row = &mut out[t * rows + row0..(t + 1) * rows];
        let n = row.len().min(PANEL);
        row[..n].copy_from_slice(&lanes[..n]);
    }
    T
}
