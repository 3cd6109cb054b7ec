//! `t2`: ternary weights at two bits each.
//!
//! A weight `w ∈ {−1, 0, 1}` is stored as the code `w + 1`. A *block* of 256 weights of one row is 64 bytes, and the
//! order of weights is natural within each of its four fields:
//!
//! ```text
//! bits      7 6        5 4        3 2       1 0
//! byte j   w[j+192]   w[j+128]   w[j+64]   w[j]        0 ≤ j < 64
//! ```
//!
//! Four rows form a *group* and are interleaved block by block, so that a kernel that works on four rows at a time reads
//! one sequential stream (256 bytes a step), which is what the hardware prefetcher needs:
//!
//! ```text
//! group g:  [block 0: row 4g | 4g+1 | 4g+2 | 4g+3] [block 1: row 4g | …] …
//! ```
//!
//! Columns are padded to a multiple of 256 and rows to a multiple of 4 with weight 0 (byte `0x55`). The same bytes serve
//! every instruction set, decode ([`ternary_gemv`](crate::ternary_gemv)) and prefill
//! ([`ternary_gemm`](crate::ternary_gemm)). Packed rows are usable in place from a file: there is no header and no
//! alignment need.

#[cfg(test)]
pub(crate) mod tests;

use crate::ternary::{pack_blocks, unpack_blocks, unpack_rows};

/// Weights in a block.
pub const BLOCK: usize = 256;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;
/// Rows interleaved into one stream.
pub const GROUP_ROWS: usize = 4;
/// Most columns that a packed matrix may have: up to here no `i32` accumulator of any kernel can overflow.
///
/// The largest sum is that of codes 3 and activations of 128, `2^22 · 3 · 128 ≈ 1.61e9 < 2^31`; kernels that keep a part of it enlarged
/// have several lanes for it.
pub const MAX_COLS: usize = 1 << 22;

/// `cols` rounded up to whole blocks.
pub const fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(BLOCK)
}

/// `rows` rounded up to whole groups.
pub const fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(GROUP_ROWS)
}

/// Bytes of a group of four packed rows.
pub const fn group_bytes(cols: usize) -> usize {
    GROUP_ROWS * BLOCK_BYTES * (padded_cols(cols) / BLOCK)
}

/// Bytes of a packed matrix `[rows, cols]`.
pub const fn bytes(rows: usize, cols: usize) -> usize {
    group_bytes(cols) * (padded_rows(rows) / GROUP_ROWS)
}

/// Packs `w`, `[rows, cols]` of −1, 0 and 1, into `out`.
///
/// # Panics
/// If a weight is not −1, 0 or 1, `w.len() != rows * cols` or `out.len() != bytes(rows, cols)`.
pub fn pack(w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
    // Kept as an OR so that the check costs one instruction beside the packing instead of a pass of its own.
    let mut strange = 0u8;
    pack_each(w, rows, cols, out, |code| strange |= (code & !3) | (code & (code >> 1)));
    assert_eq!(strange, 0, "weights are -1, 0 or 1");
}

/// As [`pack`] for weights of −1 to 2: the fourth code, which every kernel takes as weight 2, is used too. Not a ternary matrix, but what
/// two bits can hold.
///
/// # Panics
/// If a weight is not in −1..=2, `w.len() != rows * cols` or `out.len() != bytes(rows, cols)`.
pub fn pack_four_levels(w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
    let mut strange = 0u8;
    pack_each(w, rows, cols, out, |code| strange |= code & !3);
    assert_eq!(strange, 0, "weights are -1 to 2");
}

#[inline(always)]
fn pack_each(w: &[i8], rows: usize, cols: usize, out: &mut [u8], mut see: impl FnMut(u8)) {
    assert_eq!(out.len(), bytes(rows, cols), "out holds bytes(rows, cols)");
    pack_blocks::<BLOCK, BLOCK_BYTES>(w, rows, cols, out, |block, out| {
        let mut code = |j: usize| {
            let code = (block[j] as u8).wrapping_add(1);
            see(code);
            code
        };
        for (j, out) in out.iter_mut().enumerate() {
            *out = code(j) | code(j + 64) << 2 | code(j + 128) << 4 | code(j + 192) << 6;
        }
    });
}

/// Unpacks `bytes` into `out`, `[rows, cols]` (the inverse of [`pack`]).
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
    unpack_blocks::<_, BLOCK, BLOCK_BYTES>(group, r, out, |byte, field| {
        store(((byte >> (2 * field)) & 3) as i8 - 1)
    });
}

/// Whether every code is one of the three that stand for a weight. The fourth code, `3`, never comes from [`pack`]; every
/// kernel takes it as weight 2, so bytes from a file are safe to use but should be refused by whoever reads them.
pub fn is_valid(packed: &[u8]) -> bool {
    packed.iter().fold(0, |bad, b| bad | (b & (b >> 1) & 0x55)) == 0
}
