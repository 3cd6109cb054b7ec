//! The formula: the oracle of the other paths.

use crate::t2::{BLOCK_BYTES, GROUP_ROWS, group_bytes};

/// See [`super::ternary_gemv`].
pub(super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        for (r, out) in out.iter_mut().enumerate() {
            *out = row(group, r, xq);
        }
    }
}

/// Row `r` of a group times `xq` (whole blocks).
pub(crate) fn row(group: &[u8], r: usize, xq: &[i8]) -> i32 {
    let mut sum = 0;
    for (blocks, x) in group
        .as_chunks::<{ GROUP_ROWS * BLOCK_BYTES }>()
        .0
        .iter()
        .zip(xq.as_chunks::<256>().0)
    {
        let block = &blocks[r * BLOCK_BYTES..][..BLOCK_BYTES];
        for field in 0..4 {
            for j in 0..BLOCK_BYTES {
                let weight = i32::from((block[j] >> (2 * field)) & 3) - 1;
                sum += weight * i32::from(x[field * BLOCK_BYTES + j]);
            }
        }
    }
    sum
}
