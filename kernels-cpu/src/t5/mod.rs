//! `t5`: ternary weights at 1.6 bits each, five to a byte.
//!
//! A weight `w ∈ {−1, 0, 1}` is the digit `d = w + 2 ∈ {1, 2, 3}`. A *block* of 320 weights of one row is 64 bytes; digit `i` of byte `j` is
//! weight `64·i + j`, so activations are read in order. Four rows are interleaved block by block as in [`t2`], columns are
//! padded to a multiple of 320 and rows to a multiple of 4 with weight 0.
//!
//! A byte is not a number to base 3, for taking that apart needs multiplications. It is an escape code, `u` (3 bits) above `v` (5 bits), that
//! two lookups of 64 entries open: [`LOW`] sees bits 0 to 5, [`HIGH`] sees bits 2 to 7, and each gives four fields of two bits:
//!
//! ```text
//! bits of an entry     7 6      5 4      3 2          1 0
//! LOW [byte & 63]      d2       d1       d4, forced   d0
//! HIGH[byte >> 2]      d2       d1       d4           d3          d1, d2, d4: LOW | HIGH
//! ```
//!
//! | `v` | what the byte means | codes |
//! |---|---|---|
//! | 0 … 26 | `v` is `(d0, d1, d2)` to base 3, `u` one of the eight pairs `(d3, d4)` other than (3, 3) | 216 |
//! | 28, 29, 30 | `(d3, d4)` = (3, 3), `d0 = v − 27`, `u` one of the eight pairs `(d1, d2)` other than (3, 3) | 24 |
//! | 31 | `(d1, d2, d3, d4)` = (3, 3, 3, 3), `d0` = 1 or 2 by the lowest bit of `u` | 2 |
//! | 27 | with `u` = 2: all five digits are 3 | 1 |
//!
//! That is each of the 243 quintuples once. The 13 other bytes never come from [`pack`]; they open to digits in range all the same, so bytes
//! from a file are safe whatever they are.

#[cfg(test)]
mod tests;

use crate::t2;
use crate::ternary::{pack_blocks, unpack_blocks, unpack_rows};

/// Weights in a block.
pub const BLOCK: usize = 320;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;
/// Rows interleaved into one stream.
pub const GROUP_ROWS: usize = 4;
/// Weights in a byte.
pub const DIGITS: usize = 5;
/// Most columns that a packed matrix may have: up to here no `i32` accumulator of any kernel can overflow (see [`t2::MAX_COLS`]).
pub const MAX_COLS: usize = t2::MAX_COLS;

/// The pairs that `u` stands for, all but (3, 3). Pair 2 begins with 3: the code of five threes relies on it.
const PAIRS: [(u8, u8); 8] = [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3)];

/// An entry of [`LOW`] or [`HIGH`].
const fn entry(bits10: u8, bits32: u8, bits54: u8, bits76: u8) -> u8 {
    bits10 | bits32 << 2 | bits54 << 4 | bits76 << 6
}

/// Fields by the low six bits of a byte: `d0`, a force on `d4`, `d1`, `d2`.
pub const LOW: [u8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (v, u0) = (i as u8 & 31, i as u8 >> 5);
        table[i] = match v {
            0..=26 => entry(v % 3 + 1, 0, v / 3 % 3 + 1, v / 9 + 1),
            27 => entry(3, 3, 3, 3),
            28..=30 => entry(v - 27, 0, 0, 0),
            _ => entry(1 + u0, 0, 3, 3),
        };
        i += 1;
    }
    table
};

/// Fields by the high six bits of a byte: `d3`, `d4`, and `d1` and `d2` where `v` is 28 or more.
pub const HIGH: [u8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 64 {
        let (a, b) = PAIRS[i >> 3];
        table[i] = if i & 7 == 7 {
            entry(3, 3, a, b)
        } else {
            entry(a, b, 0, 0)
        };
        i += 1;
    }
    table
};

/// The digits of a byte, each 1, 2 or 3.
#[inline]
pub const fn digits(byte: u8) -> [u8; DIGITS] {
    let (low, high) = (LOW[(byte & 63) as usize], HIGH[(byte >> 2) as usize]);
    let both = low | high;
    [low & 3, both >> 4 & 3, both >> 6, high & 3, both >> 2 & 3]
}

/// The byte of five digits, by `Σ (d_i − 1)·3^i`.
const BYTES: [u8; 243] = {
    let mut table = [0; 243];
    let mut byte = 256;
    // Downward, so that of several bytes with the same digits the smallest stays; for 31 and `u` it is the canonical one.
    while byte > 0 {
        byte -= 1;
        if byte & 31 == 27 && byte >> 5 != 2 {
            // Not a code: it opens to the digits of one with v = 26.
            continue;
        }
        let d = digits(byte as u8);
        let index = (d[0] - 1) as usize
            + 3 * (d[1] - 1) as usize
            + 9 * (d[2] - 1) as usize
            + 27 * (d[3] - 1) as usize
            + 81 * (d[4] - 1) as usize;
        table[index] = byte as u8;
    }
    table
};

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

/// Packs `w`, `[rows, cols]` of −1, 0 and 1, into `out`.
///
/// # Panics
/// If a weight is not −1, 0 or 1, `w.len() != rows * cols` or `out.len() != bytes(rows, cols)`.
pub fn pack(w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
    assert_eq!(out.len(), bytes(rows, cols), "out holds bytes(rows, cols)");
    assert!(w.iter().all(|w| (-1..=1).contains(w)), "weights are -1, 0 or 1");
    pack_blocks::<BLOCK, BLOCK_BYTES>(w, rows, cols, out, |block, out| {
        // A loop of byte arithmetic first, which the compiler turns into vectors; the lookups then.
        let digit = |at: usize| (block[at] + 1) as u8;
        let mut index = [0u8; BLOCK_BYTES];
        for (j, index) in index.iter_mut().enumerate() {
            *index = digit(j) + 3 * digit(64 + j) + 9 * digit(128 + j) + 27 * digit(192 + j) + 81 * digit(256 + j);
        }
        for (out, index) in out.iter_mut().zip(index) {
            *out = BYTES[index as usize];
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
    unpack_blocks::<_, BLOCK, BLOCK_BYTES>(group, r, out, |byte, i| store(digits(byte)[i] as i8 - 2));
}

/// From [`t2`] to `t5`: the same weights. `scratch` holds four rows, `[4, cols]`.
///
/// # Panics
/// If a length does not belong to `[rows, cols]`, or a code of `source` stands for no weight.
pub fn from_t2(source: &[u8], rows: usize, cols: usize, out: &mut [u8], scratch: &mut [i8]) {
    assert_eq!(
        source.len(),
        t2::bytes(rows, cols),
        "source holds t2::bytes(rows, cols)"
    );
    assert_eq!(out.len(), bytes(rows, cols), "out holds bytes(rows, cols)");
    assert_eq!(scratch.len(), GROUP_ROWS * cols, "scratch holds four rows");
    if rows == 0 || cols == 0 {
        return;
    }
    let groups = source
        .chunks_exact(t2::group_bytes(cols))
        .zip(out.chunks_exact_mut(group_bytes(cols)));
    for (source, out) in groups {
        t2::unpack(source, GROUP_ROWS, cols, scratch);
        pack(scratch, GROUP_ROWS, cols, out);
    }
}

/// From `t5` to [`t2`]: the inverse of [`from_t2`], with the same lengths.
///
/// # Panics
/// If a length does not belong to `[rows, cols]`.
pub fn to_t2(source: &[u8], rows: usize, cols: usize, out: &mut [u8], scratch: &mut [i8]) {
    assert_eq!(source.len(), bytes(rows, cols), "source holds bytes(rows, cols)");
    assert_eq!(out.len(), t2::bytes(rows, cols), "out holds t2::bytes(rows, cols)");
    assert_eq!(scratch.len(), GROUP_ROWS * cols, "scratch holds four rows");
    if rows == 0 || cols == 0 {
        return;
    }
    let groups = source
        .chunks_exact(group_bytes(cols))
        .zip(out.chunks_exact_mut(t2::group_bytes(cols)));
    for (source, out) in groups {
        unpack(source, GROUP_ROWS, cols, scratch);
        t2::pack(scratch, GROUP_ROWS, cols, out);
    }
}
