//! The body over [`Bytes`]: the tiles of the ternary GEMM, 16 rows (lane = row) by up to six tokens.

use super::{Job, PASS, corrections, lay_out};
use crate::bytes::{Bytes, byte_kernel};
use crate::ternary_gemm::bytes::tiles;

/// Rows of a panel.
const PANEL: usize = 16;

byte_kernel! {
    /// See [`super::int8_gemm`].
    pub(super) fn gemm(job: &Job, w: &[i8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) = gemm_body;
}

#[inline(always)]
fn gemm_body<B: Bytes>(b: B, job: &Job, w: &[i8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let (rows, stride, steps) = (job.rows, job.stride, job.cols.div_ceil(4));
    let flip = B::OFFSET as u8;
    // On 32 bits the product of the widest rows does not fit.
    let (pass, pass_out) = (PASS.saturating_mul(stride), PASS.saturating_mul(rows));
    for (xq, out) in xq.chunks(pass).zip(out.chunks_mut(pass_out)) {
        let sums = corrections(xq, stride, 4 * steps, B::OFFSET);
        for (p, w) in w.chunks(PANEL * job.cols).enumerate() {
            lay_out::<4>(w, job.cols, flip, scratch, |step, row| PANEL * step + row);
            tiles::<B, true>(b, stride, rows, &scratch[..steps], xq, &sums, out, p * PANEL);
        }
    }
}
