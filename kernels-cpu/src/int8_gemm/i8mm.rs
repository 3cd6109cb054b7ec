//! FEAT_I8MM: the tiles of the ternary GEMM, 16 rows by four tokens, whose panels have eight columns a step.

use super::{Job, PASS, lay_out};
use crate::ternary_gemm::i8mm::tiles;

/// Rows of a panel.
const PANEL: usize = 16;

/// See [`super::int8_gemm`].
#[target_feature(enable = "neon,i8mm")]
pub(super) fn gemm(job: &Job, w: &[i8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let (rows, stride, steps) = (job.rows, job.stride, job.cols.div_ceil(8));
    for (xq, out) in xq.chunks(PASS * stride).zip(out.chunks_mut(PASS * rows)) {
        for (p, w) in w.chunks(PANEL * job.cols).enumerate() {
            lay_out::<8>(w, job.cols, 0, scratch, |step, row| PANEL * step + row);
            tiles(
                stride,
                rows,
                &scratch.as_chunks::<2>().0[..steps],
                xq,
                &[0; PASS],
                out,
                p * PANEL,
            );
        }
    }
}
