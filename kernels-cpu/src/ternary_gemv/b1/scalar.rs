//! The formula: the oracle of the other paths.

use crate::b1::{BLOCK, BLOCK_BYTES, GROUP_ROWS, group_bytes};

/// See [`super::super::ternary_gemv`].
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let correction: i32 = xq[..cols].iter().map(|x| i32::from(*x)).sum();
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        for (r, out) in out.iter_mut().enumerate() {
            let mut sum = 0;
            for (b, x) in xq.chunks_exact(BLOCK).enumerate() {
                let block = &group[(b * GROUP_ROWS + r) * BLOCK_BYTES..][..BLOCK_BYTES];
                for (field, x) in x.chunks_exact(BLOCK_BYTES).enumerate() {
                    for (byte, x) in block.iter().zip(x) {
                        sum += i32::from((byte >> field) & 1) * i32::from(*x);
                    }
                }
            }
            *out = 2 * sum - correction;
        }
    }
}
