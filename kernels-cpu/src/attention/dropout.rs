//! Dropout of probabilities (Vaswani et al. 2017, where the name is attention dropout; Srivastava et al. 2014).
//!
//! Of a row of scores the mask is a run of numbers of a key, one for each key position. Rows are numbered by sequence, head and query, and each begins at a
//! multiple of four numbers, so that a row is whole blocks of Philox wherever it stands:
//!
//! ```text
//! number(sequence, head, i, j) = ((sequence·heads + head)·seq + i)·stride + j        stride = seq, rounded up to a multiple of 4
//! ```

use super::{AttentionShape, visible};
use crate::dropout::drop_in_place;
use crate::rng::Key;
use crate::simd::{Simd, simd_kernel};

/// Dropout of the probabilities of a sequence: each is zeroed with probability `p`, after the softmax, and what is kept is divided by `1 − p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionDropout {
    /// Probability of zeroing, in `[0, 1)`.
    pub p: f32,
    /// The stream of numbers that decide.
    pub key: Key,
    /// Which of the sequences that share the stream this is, or the first of several.
    pub sequence: u64,
}

impl AttentionDropout {
    /// Arguments of [`drop_tile`] for queries from `first` on of `head`: the number at which the first row begins, and the stride of rows.
    pub(super) fn place(&self, shape: &AttentionShape, head: usize, first: usize) -> (u64, u64) {
        let stride = shape.seq.next_multiple_of(4) as u64;
        let row = (self.sequence * shape.heads as u64 + head as u64) * shape.seq as u64 + first as u64;
        (row * stride, stride)
    }
}

#[inline(always)]
fn drop_rows<S: Simd>(
    s: S,
    tile: &mut [f32],
    columns: usize,
    first: usize,
    dropout: &AttentionDropout,
    (begin, stride): (u64, u64),
) {
    for (r, row) in tile.chunks_exact_mut(columns).enumerate() {
        let seen = &mut row[..visible(first, r)];
        drop_in_place(s, seen, dropout.p, dropout.key, begin + r as u64 * stride);
    }
}

simd_kernel! {
    /// Drops what the causal mask leaves of a tile (`[rows, columns]`, first row = query `first`), which is probabilities, up to a factor of each row, or
    /// their gradient.
    pub fn drop_tile(tile: &mut [f32], columns: usize, first: usize, dropout: &AttentionDropout, place: (u64, u64)) = drop_rows;
}
