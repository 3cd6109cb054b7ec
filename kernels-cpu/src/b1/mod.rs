//! `b1`: binary weights at one bit each.
//!
//! A weight `w ∈ {−1, 1}` is its sign: bit 1 for 1, bit 0 for −1. There is no 0. A *block* of 128 weights of one row is 16 bytes, and the
//! order of weights is natural within each of its eight fields of one bit:
//!
//! ```text
//! bit      7          6         5         …   1         0
//! byte j   w[j+112]   w[j+96]   w[j+80]   …   w[j+16]   w[j]        0 ≤ j < 16
//! ```
//!
//! Four rows are interleaved block by block as in [`t2`], columns are padded to a multiple of 128 and rows to a multiple of 4, with bit 0:
//!
//! ```text
//! group g:  [block 0: row 4g | 4g+1 | 4g+2 | 4g+3] [block 1: row 4g | …] …        64 bytes for 128 columns of four rows
//! ```
//!
//! So a line of the cache is a block of all four rows, and a register of 64, 32 or 16 bytes holds a field of four rows, two or one. With blocks
//! as large as those of [`t2`], 512 weights, narrow matrices would be padding for the most part: of 320 columns 192.
//!
//! **What is past the end** has no code that stands for weight 0, so a product may not take it for weights: of the two sums in
//!
//! ```text
//! Σ w·x = 2 · Σ x where the bit is 1 − Σ x        over the first `cols` columns
//! ```
//!
//! the first does not see activations past the end, whose bits are 0, and the second is taken over `cols` columns. Every byte means eight
//! weights, so bytes from a file are safe whatever they are; that what is past the end is 0 is for whoever reads them to ask ([`is_padded`]).

#[cfg(test)]
mod tests;

use crate::t2;
use crate::ternary::{pack_blocks, unpack_blocks, unpack_rows};

/// Weights in a block.
pub const BLOCK: usize = 128;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 16;
/// Rows interleaved into one stream.
pub const GROUP_ROWS: usize = 4;
/// Weights in a byte.
pub const FIELDS: usize = 8;
/// Most columns that a packed matrix may have: up to here no `i32` accumulator of any kernel can overflow.
///
/// The largest whole sum is twice that of as many activations of 128, `2^22 · 2 · 128 = 2^30`; kernels that keep a part of it enlarged say
/// why their lanes hold it.
pub const MAX_COLS: usize = t2::MAX_COLS;

/// `cols` rounded up to whole blocks.
pub const fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(BLOCK)
}

/// Bytes of a group of four packed rows.
pub const fn group_bytes(cols: usize) -> usize {
    GROUP_ROWS * BLOCK_BYTES * (padded_cols(cols) / BLOCK)
}

/// Bytes of a packed matrix `[rows, cols]`.
pub const fn bytes(rows: usize, cols: usize) -> usize {
    group_bytes(cols) * rows.div_ceil(GROUP_ROWS)
}

/// Packs `w`, `[rows, cols]` of −1 and 1, into `out`.
///
/// # Panics
/// If a weight is not −1 or 1, `w.len() != rows * cols` or `out.len() != bytes(rows, cols)`.
pub fn pack(w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
    assert_eq!(out.len(), bytes(rows, cols), "out holds bytes(rows, cols)");
    assert!(w.iter().all(|w| *w == 1 || *w == -1), "weights are -1 or 1");
    pack_blocks::<BLOCK, BLOCK_BYTES>(w, rows, cols, out, |block, out| {
        let bit = |at: usize| u8::from(block[at] > 0);
        for (j, out) in out.iter_mut().enumerate() {
            let low = bit(j) | bit(j + 16) << 1 | bit(j + 32) << 2 | bit(j + 48) << 3;
            let high = bit(j + 64) | bit(j + 80) << 1 | bit(j + 96) << 2 | bit(j + 112) << 3;
            *out = low | high << 4;
        }
    });
}

/// Unpacks `packed` into `out`, `[rows, cols]` (the inverse of [`pack`]).
///
/// # Panics
/// If `packed.len() != bytes(rows, cols)` or `out.len() != rows * cols`.
pub fn unpack(packed: &[u8], rows: usize, cols: usize, out: &mut [i8]) {
    assert_eq!(packed.len(), bytes(rows, cols), "packed holds bytes(rows, cols)");
    assert_eq!(out.len(), rows * cols, "out is [rows, cols]");
    unpack_rows(packed, group_bytes(cols), cols, out, |group, r, row| {
        unpack_row(group, r, row, |w| w)
    });
}

/// Unpacks the first `out.len()` weights of row `r` (0..4) of a group, each through `store`.
pub(crate) fn unpack_row<T>(group: &[u8], r: usize, out: &mut [T], store: impl Fn(i8) -> T) {
    unpack_blocks::<_, BLOCK, BLOCK_BYTES>(group, r, out, |byte, field| store(2 * ((byte >> field) & 1) as i8 - 1));
}

/// Whether every bit past the last column and past the last row of a packed matrix `[rows, cols]` is 0, as [`pack`] leaves it.
///
/// # Panics
/// If `packed.len() != bytes(rows, cols)`.
pub fn is_padded(packed: &[u8], rows: usize, cols: usize) -> bool {
    assert_eq!(packed.len(), bytes(rows, cols), "packed holds bytes(rows, cols)");
    if packed.is_empty() {
        return true;
    }
    // The bits of a row's last block that are past the end.
    let mut past = [0u8; BLOCK_BYTES];
    for k in cols - (padded_cols(cols) - BLOCK)..BLOCK {
        past[k % BLOCK_BYTES] |= 1 << (k / BLOCK_BYTES);
    }
    packed.chunks_exact(group_bytes(cols)).enumerate().all(|(g, group)| {
        let (blocks, _) = group.as_chunks::<BLOCK_BYTES>();
        blocks.iter().enumerate().all(|(i, block)| {
            let zero: &[u8; BLOCK_BYTES] = if g * GROUP_ROWS + i % GROUP_ROWS >= rows {
                &[0xff; BLOCK_BYTES]
            } else if i + GROUP_ROWS >= blocks.len() {
                &past
            } else {
                return true;
            };
            block.iter().zip(zero).all(|(byte, zero)| byte & zero == 0)
        })
    })
}
