//! The portable path: a row is opened once, then its dot product is taken with every token.

use super::Job;
use crate::ternary::Layout;
use crate::{b1, t2, t5};

/// See [`super::ternary_gemm`].
pub(super) fn gemm(job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [u8]) {
    let group_bytes = job.layout.group_bytes(job.cols);
    for r in 0..job.rows {
        let group = &w[r / t2::GROUP_ROWS * group_bytes..][..group_bytes];
        let row = &mut scratch[..job.cols];
        match job.layout {
            Layout::T2 => t2::unpack_row(group, r % t2::GROUP_ROWS, row, |w| w as u8),
            Layout::T5 => t5::unpack_row(group, r % t5::GROUP_ROWS, row, |w| w as u8),
            Layout::B1 => b1::unpack_row(group, r % b1::GROUP_ROWS, row, |w| w as u8),
        }
        for (x, out) in xq.chunks_exact(job.stride).zip(out.chunks_exact_mut(job.rows)) {
            out[r] = x
                .iter()
                .zip(row.iter())
                .map(|(x, w)| i32::from(*x) * i32::from(*w as i8))
                .sum();
        }
    }
}
