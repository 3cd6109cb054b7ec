//! The formula: the oracle of the other paths.

use crate::t5::{BLOCK, BLOCK_BYTES, GROUP_ROWS, digits, group_bytes};

/// See [`super::super::ternary_gemv`].
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        for (r, out) in out.iter_mut().enumerate() {
            *out = 0;
            for (b, x) in xq.chunks_exact(BLOCK).enumerate() {
                let block = &group[(b * GROUP_ROWS + r) * BLOCK_BYTES..][..BLOCK_BYTES];
                for (j, byte) in block.iter().enumerate() {
                    for (i, digit) in digits(*byte).into_iter().enumerate() {
                        *out += (i32::from(digit) - 2) * i32::from(x[BLOCK_BYTES * i + j]);
                    }
                }
            }
        }
    }
}
