//! The portable path: a row is opened once, then its dot product is taken with every token.

use crate::t2::{GROUP_ROWS, group_bytes, padded_cols, unpack_row};

/// See [`super::ternary_gemm`].
pub(super) fn gemm(w: &[u8], rows: usize, cols: usize, xq: &[i8], out: &mut [i32], scratch: &mut [u8]) {
    for r in 0..rows {
        let group = &w[r / GROUP_ROWS * group_bytes(cols)..][..group_bytes(cols)];
        let row = &mut scratch[..cols];
        unpack_row(group, r % GROUP_ROWS, row, |w| w as u8);
        for (x, out) in xq.chunks_exact(padded_cols(cols)).zip(out.chunks_exact_mut(rows)) {
            out[r] = x
                .iter()
                .zip(row.iter())
                .map(|(x, w)| i32::from(*x) * i32::from(*w as i8))
                .sum();
        }
    }
}
