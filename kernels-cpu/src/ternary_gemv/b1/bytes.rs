//! The body over [`Bytes`]: three accumulators a row.

use super::super::bytes::sum;
use super::{sum_of_columns, twice_less};
use crate::b1::{BLOCK_BYTES, FIELDS, GROUP_ROWS, group_bytes};
use crate::bytes::Bytes;

/// All groups.
///
/// Accumulator 0 takes bits 0, 1, 6 and 7 as 0 or 1, accumulators 1 and 2 take bits 2 and 3, and 4 and 5, where they stand in a byte and in
/// its half: they count 4 and 16 times, as [`Bytes::total`] has it. Of the 2^13 blocks of the widest rows, in at most four parts each, a lane
/// of the last gets eight products of at most `16 · 128`, 2^29 in all.
#[inline(always)]
pub(in super::super) fn gemv<B: Bytes>(b: B, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let correction = sum_of_columns(&xq[..cols], |x| sum(b, x));
    let masks = [b.splat(0x01), b.splat(0x04), b.splat(0x10)];
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [[b.sums(0); 3]; GROUP_ROWS];
        let blocks = group.as_chunks::<BLOCK_BYTES>().0.as_chunks::<GROUP_ROWS>().0;
        for (rows, x) in blocks.iter().zip(xq.as_chunks::<64>().0.as_chunks::<FIELDS>().0) {
            for part in 0..B::PARTS {
                for r in 0..GROUP_ROWS {
                    let even = b.load(&rows[r], part);
                    // Its top bit is 0, so that the two top bits are bit 7 of the byte alone.
                    let odd = b.halved(even);
                    let sums = &mut acc[r];
                    for p in 0..3 {
                        sums[p] = b.dot(sums[p], b.and(even, masks[p]), b.load(&x[2 * p], part));
                        sums[p] = b.dot(sums[p], b.and(odd, masks[p]), b.load(&x[2 * p + 1], part));
                    }
                    let six = b.and(b.top2(even), masks[0]);
                    sums[0] = b.dot(sums[0], six, b.load(&x[6], part));
                    sums[0] = b.dot(sums[0], b.top2(odd), b.load(&x[7], part));
                }
            }
        }
        twice_less(b.total(acc), correction, out);
    }
}
