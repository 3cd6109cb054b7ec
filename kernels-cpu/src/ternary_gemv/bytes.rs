//! The body over [`Bytes`], for every layout: three accumulators a row, fields masked where they stand but for the topmost.

use super::{b1, less};
use crate::bytes::{Bytes, byte_kernel};
use crate::t2::{BLOCK_BYTES, GROUP_ROWS};
use crate::ternary::Layout;
use crate::{t2, t5};

byte_kernel! {
    /// See [`super::ternary_gemv`].
    pub(super) fn gemv(layout: Layout, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) = gemv_body;
}

#[inline(always)]
fn gemv_body<B: Bytes>(b: B, layout: Layout, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let group = layout.group_bytes(cols);
    match layout {
        Layout::T2 => groups::<B, { t2::BLOCK / BLOCK_BYTES }>(b, w, group, xq, sum(b, xq), out),
        Layout::T5 => groups::<B, { t5::DIGITS }>(b, w, group, xq, 2 * sum(b, xq), out),
        Layout::B1 => b1::bytes::gemv(b, w, cols, xq, out),
    }
}

/// `Σ x` of whole blocks.
#[inline(always)]
pub(super) fn sum<B: Bytes>(b: B, xq: &[i8]) -> i32 {
    let (zero, ones) = (b.sums(0), b.splat(1));
    let mut total = zero;
    for x in xq.as_chunks::<64>().0 {
        for part in 0..B::PARTS {
            total = b.dot(total, ones, b.load(x, part));
        }
    }
    b.total([[total, zero, zero], [zero; 3], [zero; 3], [zero; 3]])[0]
}

/// All groups. A byte holds `F` weights: in four fields (`t2`), or as five digits that two lookups open into fields (`t5`).
///
/// Accumulator 0 takes the fields at bits 0 and 6 (shifted down: 64 times a product is too much for 32 bits at [`t2::MAX_COLS`]), 1 and 2
/// those at bits 2 and 4, which stay where they are and count 4 and 16 times.
#[inline(always)]
fn groups<B: Bytes, const F: usize>(b: B, w: &[u8], group: usize, xq: &[i8], correction: i32, out: &mut [i32]) {
    // Where in its block the activations of bits 0, 2, 4 and 6 are; a fifth digit is at bits 0 of the second lookup.
    let order = if F == t5::DIGITS { [0, 4, 1, 2] } else { [0, 1, 2, 3] };
    let (mask0, mask1, mask2, tables) = (b.splat(0x03), b.splat(0x0c), b.splat(0x30), b.tables());
    for (group, out) in w.chunks_exact(group).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [[b.sums(0); 3]; GROUP_ROWS];
        let blocks = group.as_chunks::<BLOCK_BYTES>().0.as_chunks::<GROUP_ROWS>().0;
        for (rows, x) in blocks.iter().zip(xq.as_chunks::<64>().0.as_chunks::<F>().0) {
            for part in 0..B::PARTS {
                for r in 0..GROUP_ROWS {
                    let bytes = b.load(&rows[r], part);
                    let (low, high) = if F == t5::DIGITS {
                        b.look_up(&tables, bytes)
                    } else {
                        (bytes, bytes)
                    };
                    let both = if F == t5::DIGITS { b.or(low, high) } else { bytes };
                    let sums = &mut acc[r];
                    sums[0] = b.dot(sums[0], b.and(low, mask0), b.load(&x[order[0]], part));
                    sums[1] = b.dot(sums[1], b.and(both, mask1), b.load(&x[order[1]], part));
                    sums[2] = b.dot(sums[2], b.and(both, mask2), b.load(&x[order[2]], part));
                    sums[0] = b.dot(sums[0], b.top2(both), b.load(&x[order[3]], part));
                    if F == t5::DIGITS {
                        sums[0] = b.dot(sums[0], b.and(high, mask0), b.load(&x[3], part));
                    }
                }
            }
        }
        less(b.total(acc), correction, out);
    }
}
