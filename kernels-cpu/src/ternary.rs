//! The two layouts of packed ternary matrices, for those who take either.

use crate::{t2, t5};

/// How a packed ternary matrix lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Two bits a weight, the faster to open: [`t2`].
    #[default]
    T2,
    /// 1.6 bits a weight, the faster to read: [`t5`].
    T5,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::T2, Layout::T5];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::T2 => "t2",
            Layout::T5 => "t5",
        }
    }

    /// Weights in a block.
    pub const fn block(self) -> usize {
        match self {
            Layout::T2 => t2::BLOCK,
            Layout::T5 => t5::BLOCK,
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
        }
    }

    /// Bytes of a packed matrix `[rows, cols]`.
    pub const fn bytes(self, rows: usize, cols: usize) -> usize {
        match self {
            Layout::T2 => t2::bytes(rows, cols),
            Layout::T5 => t5::bytes(rows, cols),
        }
    }

    /// Packs `w`, `[rows, cols]` of −1, 0 and 1, into `out`.
    ///
    /// # Panics
    /// If a weight is not −1, 0 or 1 or a length does not belong to `[rows, cols]`.
    pub fn pack(self, w: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
        match self {
            Layout::T2 => t2::pack(w, rows, cols, out),
            Layout::T5 => t5::pack(w, rows, cols, out),
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
        }
    }
}

/// Activations of `cols` columns padded for either layout.
pub const fn padded_cols(cols: usize) -> usize {
    let (two, five) = (t2::padded_cols(cols), t5::padded_cols(cols));
    if two > five { two } else { five }
}
