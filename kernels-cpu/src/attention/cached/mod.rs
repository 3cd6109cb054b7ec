//! Attention over a cache of keys and values: inference, prefill and decode.
//!
//! The queries of one key head (the heads of its group, times the tokens of the chunk) share each key and value that is read.
//! Positions go in blocks of [`BLOCK`], whose borders depend on the position alone. For each query a block gives a part, and the parts
//! are merged in the order of the blocks:
//!
//! ```text
//! s[p] = q·k[p] / sqrt(head_dim)       m = max s       w[p] = exp(s[p] − m)       l = Σ w[p]       o = Σ w[p] v[p]
//!
//! merge:  M' = max(M, m)    a = exp(M − M')    c = exp(m − M')    L' = L·a + l·c    O' = O·a + o·c           out = O / L
//! ```
//!
//! So the result depends on the positions that a query sees and on nothing else: prefill, decode, a resumed cache and a split over
//! threads by blocks ([`attend_block`], then [`merge_blocks`]) agree bit for bit with [`attend`].
//!
//! # Layout of a head's cache
//! Both products are the same small matrix product: broadcast scalars of `R` rows (queries, weights) times `C` vectors of a row of the
//! cache, sums in registers over the rows of the cache, and no sum across lanes. For that the keys are kept transposed, in panels of 64
//! positions:
//!
//! ```text
//! keys    panel 0: [head_dim][64 positions]  panel 1: …          one key is a column
//! values  [positions][head_dim, padded to a multiple of 16]      one value is a row
//! scales  [positions] for keys and for values (int8 only)
//! ```
//!
//! Both are read from front to back. Each score is one chain of fused multiply-adds over `head_dim` in order, each element of `o` one chain
//! over the block's positions in order; `l` is summed in 16 lanes, lane `p mod 16`, folded 8-4-2-1.
//!
//! # Types and errors
//! | type | bytes a value | stored as | error of a value `x` |
//! |---|---|---|---|
//! | f32 | 4 | itself | 0 |
//! | f16 | 2 | rounded to nearest | `2^-11·abs(x)`, or `2^-25` below `2^-14`; infinite from 65,520 |
//! | int8 | 1, and 4 for each row | `round(x·s)`, `s = 127 / max(max abs(x), 1e-5)` of the row (one position of one key head) | `max abs(x) / 254` |
//!
//! Reading widens exactly; the scale of an int8 row multiplies the score of its key and the weight of its value.
//!
//! Cost: `4·head_dim` operations and an exponential for each query and visible position. Decode reads each key and value once for the
//! group, at the memory's speed; prefill reuses them from the caches.

mod ahead;
mod kernel;
mod merge;
mod store;
#[cfg(test)]
mod tests;

use core::ops::{Deref, DerefMut};

use half::f16;

pub use ahead::ask_for;
pub use merge::{attend, merge_blocks};
pub use store::store;

use crate::simd::{LANES, simd_kernel};

/// Positions of a block.
pub const BLOCK: usize = 128;
/// Positions of a panel of transposed keys.
const PANEL: usize = 64;
/// Vectors in a row of a panel.
const PANEL_VECTORS: usize = PANEL / LANES;
/// Queries that [`attend`] takes at once.
const QUERIES: usize = 32;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// As they are computed.
    #[default]
    F32,
    /// Half precision.
    F16,
    /// Bytes, with a scale for each position and head.
    Int8,
}

impl KvType {
    /// Every type, most precise first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// `f32`, `f16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }

    /// Bytes of a value, scales aside.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// The type called `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kv| kv.name() == name)
    }
}

/// The cache of one key head, in memory of the kinds `F` (f32), `H` (f16) and `B` (i8): lengths by [`key_len`], [`value_len`] and
/// [`scale_len`].
#[derive(Clone, Copy, Debug)]
pub enum KvHead<F, H, B> {
    /// f32
    F32 {
        /// Transposed panels.
        keys: F,
        /// Rows.
        values: F,
    },
    /// f16
    F16 {
        /// Transposed panels.
        keys: H,
        /// Rows.
        values: H,
    },
    /// int8
    Int8 {
        /// Transposed panels.
        keys: B,
        /// Rows.
        values: B,
        /// `1/s` of each key.
        key_scales: F,
        /// `1/s` of each value.
        value_scales: F,
    },
}

impl<F, H, B> KvHead<F, H, B>
where
    F: Deref<Target = [f32]>,
    H: Deref<Target = [f16]>,
    B: Deref<Target = [i8]>,
{
    /// The same, to be read.
    pub fn view(&self) -> KvRef<'_> {
        match self {
            Self::F32 { keys, values } => KvHead::F32 { keys, values },
            Self::F16 { keys, values } => KvHead::F16 { keys, values },
            Self::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            } => KvHead::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            },
        }
    }

    /// The same, to be written.
    pub fn view_mut(&mut self) -> KvMut<'_>
    where
        F: DerefMut,
        H: DerefMut,
        B: DerefMut,
    {
        match self {
            Self::F32 { keys, values } => KvHead::F32 { keys, values },
            Self::F16 { keys, values } => KvHead::F16 { keys, values },
            Self::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            } => KvHead::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            },
        }
    }
}

/// A cache that is read.
pub type KvRef<'a> = KvHead<&'a [f32], &'a [f16], &'a [i8]>;
/// A cache that is written.
pub type KvMut<'a> = KvHead<&'a mut [f32], &'a mut [f16], &'a mut [i8]>;

/// Length of the keys of `positions` positions.
pub const fn key_len(positions: usize, head_dim: usize) -> usize {
    scale_len(positions) * head_dim
}

/// Length of the values of `positions` positions.
pub const fn value_len(positions: usize, head_dim: usize) -> usize {
    scale_len(positions) * head_dim.next_multiple_of(LANES)
}

/// Length of the scales of `positions` positions: whole panels.
pub const fn scale_len(positions: usize) -> usize {
    positions.next_multiple_of(PANEL)
}

/// Which queries share a key head, and where they lie: query head `h` of the group at token `t` is `head_dim` values from `t·stride +
/// h·head_dim`, of queries and of outputs. Token `t` stands at position `first + t` and sees the positions up to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queries {
    /// Tokens.
    pub tokens: usize,
    /// Query heads of the key head.
    pub group: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements from one token to the next.
    pub stride: usize,
    /// Position of the first token.
    pub first: usize,
}

impl Queries {
    /// Queries, by token and then by head.
    pub fn rows(&self) -> usize {
        self.tokens * self.group
    }

    /// Blocks that the last token sees.
    pub fn blocks(&self) -> usize {
        (self.first + self.tokens).div_ceil(BLOCK)
    }

    /// Length of the part of a block: see [`attend_block`].
    pub fn part_len(&self) -> usize {
        part_len(self.rows(), self.head_dim)
    }

    /// Where query `row` begins.
    #[inline(always)]
    fn at(&self, row: usize) -> usize {
        row / self.group * self.stride + row % self.group * self.head_dim
    }

    /// Positions of `block` that query `row` sees.
    #[inline(always)]
    fn visible(&self, row: usize, block: usize) -> usize {
        (self.first + row / self.group + 1)
            .saturating_sub(block * BLOCK)
            .min(BLOCK)
    }

    /// The first query that sees `block`.
    #[inline(always)]
    fn first_row(&self, block: usize) -> usize {
        (block * BLOCK).saturating_sub(self.first) * self.group
    }

    fn check(&self, len: usize) {
        assert!(self.group > 0 && self.head_dim > 0, "no query head, or an empty one");
        assert!(
            self.stride >= self.group * self.head_dim || self.tokens < 2,
            "tokens overlap"
        );
        let needed = self
            .rows()
            .checked_sub(1)
            .map_or(0, |last| self.at(last) + self.head_dim);
        assert!(len >= needed, "queries or outputs too short");
    }

    fn check_cache(&self, kv: &KvRef<'_>) {
        let positions = self.first + self.tokens;
        let (keys, values) = match kv {
            KvHead::F32 { keys, values } => (keys.len(), values.len()),
            KvHead::F16 { keys, values } => (keys.len(), values.len()),
            KvHead::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            } => {
                let scales = key_scales.len().min(value_scales.len());
                assert!(scales >= scale_len(positions), "scales too short");
                (keys.len(), values.len())
            }
        };
        assert!(
            keys >= key_len(positions, self.head_dim) && values >= value_len(positions, self.head_dim),
            "keys or values too short"
        );
    }
}

/// Length of the part of a block for `rows` queries: `[rows, padded head_dim]` of `o`, then `[rows]` of `m` and of `l`.
pub const fn part_len(rows: usize, head_dim: usize) -> usize {
    rows * (head_dim.next_multiple_of(LANES) + 2)
}

/// Length of the scratch of [`attend`].
pub const fn scratch_len(head_dim: usize) -> usize {
    2 * part_len(QUERIES, head_dim)
}

simd_kernel! {
    /// The part of one block: `o` (`[rows, padded head_dim]`), `m` and `l` (`[rows]` each) of every query, one after the other in `part`. Those
    /// of queries that see nothing of the block are unspecified.
    ///
    /// # Panics
    /// If `q` or the cache is too short for the queries, or `part` is not [`Queries::part_len`] long.
    pub fn attend_block(kv: KvRef<'_>, queries: Queries, q: &[f32], block: usize, part: &mut [f32]) = kernel::block;
}
