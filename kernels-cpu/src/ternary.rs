//! The layouts of packed ternary and binary matrices, for those who take any.

#[cfg(test)]
pub(crate) mod tests;

use crate::{b1, t2, t5};

/// How a packed ternary or binary matrix lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Two bits a weight, the faster to open: [`t2`].
    #[default]
    T2,
    /// 1.6 bits a weight, the faster to read: [`t5`].
    T5,
    /// One bit a weight, for weights of which none is 0: [`b1`].
    B1,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 3] = [Layout::T2, Layout::T5, Layout::B1];
    /// Those that hold any ternary matrix.
    pub const TERNARY: [Layout; 2] = [Layout::T2, Layout::T5];

    /// Whether it has a code for weight 0. One that has not holds binary matrices alone.
    pub const fn has_zero(self) -> bool {
        match self {
            Layout::T2 | Layout::T5 => true,
            Layout::B1 => false,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::T2 => "t2",
            Layout::T5 => "t5",
            Layout::B1 => "b1",
        }
    }

    /// Weights in a block.
    pub const fn block(self) -> usize {
        match self {
            Layout::T2 => t2::BLOCK,
            Layout::T5 => t5::BLOCK,
            Layout::B1 => b1::BLOCK,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Layout::T2 => t2::BLOCK_BYTES,
            Layout::T5 => t5::BLOCK_BYTES,
            Layout::B1 => b1::BLOCK_BYTES,
        }
    }

    /// `cols` rounded up to whole blocks.
    pub const fn padded_cols(self, cols: usize) -> usize {
        cols.next_multiple_of(self.block())
    }

    /// Bytes of a group of four packed rows.
    pub const fn group_bytes(self, cols: usize) -> usize {
        match self {
            Layout::T2 => t2::group_bytes(cols),
            Layout::T5 => t5::group_bytes(cols),
            Layout::B1 => b1::group_bytes(cols),
        }
    }

    /// Bytes of a packed matrix `[rows, cols]`.
    pub const fn bytes(self, rows: usize, cols: usize) -> usize {
        match self {
            Layout::T2 => t2::bytes(rows, cols),
            Layout::T5 => t5::bytes(rows, cols),
            Layout::B1 => b1::bytes(rows, cols),
        }
    }

    /// Packs `w`, `[rows, cols]` of −1, 1 and, where [it has one](Self::has_zero), 0, into `out`.
    ///
    /// # Panics
    /// If a weight is of another value or a length does not belong to `[rows, cols]`.
    pub fn pack(self, w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
        match self {
            Layout::T2 => t2::pack(w, rows, cols, out),
            Layout::T5 => t5::pack(w, rows, cols, out),
            Layout::B1 => b1::pack(w, rows, cols, out),
        }
    }

    /// Whether every code of a packed matrix `[rows, cols]` stands for a weight, and where there is none that stands for 0, none is past the
    /// end: [`t2::is_valid`], [`b1::is_padded`]. Every byte of `t5` opens to weights.
    ///
    /// # Panics
    /// If the length does not belong to `[rows, cols]`.
    pub fn is_valid(self, packed: &[u8], rows: usize, cols: usize) -> bool {
        assert_eq!(packed.len(), self.bytes(rows, cols), "packed is [rows, cols]");
        match self {
            Layout::T2 => t2::is_valid(packed),
            Layout::T5 => true,
            Layout::B1 => b1::is_padded(packed, rows, cols),
        }
    }

    /// The inverse of [`pack`](Self::pack).
    ///
    /// # Panics
    /// If a length does not belong to `[rows, cols]`.
    pub fn unpack(self, packed: &[u8], rows: usize, cols: usize, out: &mut [i8]) {
        match self {
            Layout::T2 => t2::unpack(packed, rows, cols, out),
            Layout::T5 => t5::unpack(packed, rows, cols, out),
            Layout::B1 => b1::unpack(packed, rows, cols, out),
        }
    }
}

impl Layout {
    /// Row `row` of a packed matrix with rows of `out.len()` weights, times `scale`.
    ///
    /// # Panics
    /// If `packed` has no such row.
    pub fn dequantize_row(self, packed: &[u8], row: usize, scale: f32, out: &mut [f32]) {
        let bytes = self.group_bytes(out.len());
        let (group, r) = (&packed[row / GROUP_ROWS * bytes..][..bytes], row % GROUP_ROWS);
        let weight = |w: i8| f32::from(w) * scale;
        match self {
            Layout::T2 => t2::unpack_row(group, r, out, weight),
            Layout::T5 => t5::unpack_row(group, r, out, weight),
            Layout::B1 => b1::unpack_row(group, r, out, weight),
        }
    }
}

/// Activations of `cols` columns padded for every layout.
pub const fn padded_cols(cols: usize) -> usize {
    // A block of `t2` is two of `b1`.
    let (two, five) = (t2::padded_cols(cols), t5::padded_cols(cols));
    if two > five { two } else { five }
}

/// Rows of a group, in every layout.
const GROUP_ROWS: usize = t2::GROUP_ROWS;

/// Calls `encode(weights, bytes)` for each block (`BLOCK` weights in `BYTES` bytes) of `w`, `[rows, cols]`, where it lies in `out`; what is missing of a block, or of a
/// group's rows, is 0 in `weights`.
#[inline(always)]
pub(crate) fn pack_blocks<const BLOCK: usize, const BYTES: usize>(
    w: &[i8],
    rows: usize,
    cols: usize,
    out: &mut [u8],
    mut encode: impl FnMut(&[i8; BLOCK], &mut [u8; BYTES]),
) {
    assert_eq!(w.len(), rows * cols, "w is [rows, cols]");
    let blocks = cols.div_ceil(BLOCK);
    let mut at = w;
    let (out, _) = out.as_chunks_mut::<BYTES>();
    for out in out.chunks_exact_mut((GROUP_ROWS * blocks).max(1)) {
        for r in 0..GROUP_ROWS {
            let (row, rest) = at.split_at(at.len().min(cols));
            at = rest;
            for (b, out) in out.chunks_exact_mut(GROUP_ROWS).enumerate() {
                let rest = &row[row.len().min(b * BLOCK)..];
                match rest.first_chunk::<BLOCK>() {
                    Some(whole) => encode(whole, &mut out[r]),
                    None => {
                        let mut padded = [0i8; BLOCK];
                        padded[..rest.len()].copy_from_slice(rest);
                        encode(&padded, &mut out[r]);
                    }
                }
            }
        }
    }
}

/// Calls `unpack(group, row of the group, weights)` for each row of `out`, `[rows, cols]`.
pub(crate) fn unpack_rows(
    packed: &[u8],
    group_bytes: usize,
    cols: usize,
    out: &mut [i8],
    unpack: impl Fn(&[u8], usize, &mut [i8]),
) {
    for (r, row) in out.chunks_exact_mut(cols.max(1)).enumerate() {
        unpack(&packed[r / GROUP_ROWS * group_bytes..], r % GROUP_ROWS, row);
    }
}

/// Writes the first `out.len()` weights of row `r` (0..4) of a group: `weight(byte, field)` in the order of the fields.
#[inline(always)]
pub(crate) fn unpack_blocks<T, const BLOCK: usize, const BYTES: usize>(
    group: &[u8],
    r: usize,
    out: &mut [T],
    weight: impl Fn(u8, usize) -> T,
) {
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let bytes = &group[(b * GROUP_ROWS + r) * BYTES..][..BYTES];
        for (field, out) in out.chunks_mut(BYTES).enumerate() {
            for (o, byte) in out.iter_mut().zip(bytes) {
                *o = weight(*byte, field);
            }
        }
    }
}
