//! The body over [`Bytes`]: three accumulators for each register of a group.

use super::super::bytes::sum;
use super::{sum_of_columns, twice_less};
use crate::b1::{BLOCK_BYTES, FIELDS, GROUP_ROWS, group_bytes};
use crate::bytes::Bytes;

/// All groups.
///
/// Accumulator 0 takes bits 0, 1, 6 and 7 as 0 or 1, accumulators 1 and 2 take bits 2 and 3, and 4 and 5, where they stand in a byte and in
/// its half: they count 4 and 16 times, as [`Bytes::total_quarters`] has it. Of the 2^15 blocks of the widest rows a lane of the last gets
/// eight products of at most `16 · 128`, 2^29 in all.
#[inline(always)]
pub(in super::super) fn gemv<B: Bytes>(b: B, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let correction = sum_of_columns(&xq[..cols], |x| sum(b, x));
    let (masks, zero) = ([b.splat(0x01), b.splat(0x04), b.splat(0x10)], b.splat(0));
    let xs = xq.as_chunks::<BLOCK_BYTES>().0.as_chunks::<FIELDS>().0;
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        // A register has at least sixteen bytes, so a block of four rows is at most four.
        let mut acc = [[b.sums(0); 3]; GROUP_ROWS];
        for (block, x) in group.as_chunks::<64>().0.iter().zip(xs) {
            let (mut even, mut odd) = ([zero; 4], [zero; 4]);
            for part in 0..B::PARTS {
                even[part] = b.load(block, part);
                // Its top bit is 0, so that the two top bits are bit 7 of the byte alone.
                odd[part] = b.halved(even[part]);
            }
            for p in 0..3 {
                let (x_even, x_odd) = (b.load_quarter(&x[2 * p]), b.load_quarter(&x[2 * p + 1]));
                for part in 0..B::PARTS {
                    let sums = &mut acc[part];
                    sums[p] = b.dot(sums[p], b.and(even[part], masks[p]), x_even);
                    sums[p] = b.dot(sums[p], b.and(odd[part], masks[p]), x_odd);
                }
            }
            let (x_even, x_odd) = (b.load_quarter(&x[6]), b.load_quarter(&x[7]));
            for part in 0..B::PARTS {
                let six = b.and(b.top2(even[part]), masks[0]);
                acc[part][0] = b.dot(acc[part][0], six, x_even);
                acc[part][0] = b.dot(acc[part][0], b.top2(odd[part]), x_odd);
            }
        }
        twice_less(b.total_quarters(acc), correction, out);
    }
}
