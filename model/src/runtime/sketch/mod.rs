//! The exact shortcut to the largest logits: a sketch of the head at two bits a weight ranks its rows, two bits more of those that can still
//! win rank them better, and the rows that can win even then are computed exactly.
//!
//! The head of a large vocabulary is the largest matrix of a small model, and greedy and top-k sampling use a few of its rows. Which ones
//! they are, the sketch tells within a bound; it must hold for the rows that win, and these are few.
//!
//! **Estimate.** Head rows `w` and the input `x` are turned by the same random rotation `R` ([`hadamard`]), which leaves every logit
//! `w·x = u·x'` as it is, with `u = R·w`, `x' = R·x`. A row is kept as `ŵ = step·(q − ½)`, `q ∈ {−1, 0, 1, 2}`. With `g = ŵ·u / ‖u‖²` the part `e = ŵ − g·u` is
//! orthogonal to `u`, and
//!
//! ```text
//! u·x' = (ŵ·x' − e·x') / g
//! ```
//!
//! The sketch gives `ŵ·x'`; what is unknown is `e·x'`. Given `u`, and with it `e`, the part of `x'` that is orthogonal to `u` points in a uniformly random
//! direction, so that (a spherical cap; the estimator is that of Gao and Long, *RaBitQ*, 2024)
//!
//! ```text
//! P( |e·x'| > t · ‖e‖ · ‖x‖ / √(n−1) ) ≤ 2·exp(−t²/2)
//! ```
//!
//! The input goes in as bytes, `x'ᵢ ≈ s·⌊x'ᵢ/s + θᵢ⌋` with fixed random `θᵢ` in [0, 1): errors with mean 0 in a range of `s`, for which Hoeffding's inequality
//! gives `t · ½·s·‖ŵ‖` with the same probability. The randomness is drawn without looking at the model, and as long as the answers are exact no input depends on it.
//!
//! **Planes.** What two bits leave of a row, `u − ŵ`, is kept in the same way at another two: a second plane, which is read for those rows alone that the
//! first leaves. With it `ŵ` is the sum of both, and the same bound holds with an `e` a third as long.
//!
//! **Search.** The rows with the largest estimates are computed exactly; the k-th largest of these logits is a threshold that the k winners reach.
//! Rows whose estimate plus bound stays below it are out, first by one plane, then by both. What is left is computed exactly, by the same
//! chain of operations as in the whole head, so that the bits are the same, and all others are −∞. A winner is lost only if an estimate of its own fails
//! its bound: with `t` = [`DEVIATIONS`] about once in 10¹² tokens.
//! If too many rows can win, or a number is not finite, the whole head is computed.
//!
//! The rotation is a fast one and not drawn from all rotations; that the bound holds for it is tested, with the answers of
//! more than a hundred thousand tokens.

mod build;
mod search;
#[cfg(test)]
mod tests;

use alloc::vec;
use alloc::vec::Vec;

use bytemuck::{Pod, Zeroable};
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::{hadamard, t2};

use super::values::Values;

#[cfg(test)]
use search::Found;
pub(super) use search::SearchBuffers;

/// `t` of the [module's](self) bounds: `exp(−t²/2)` is 6·10⁻¹³.
const DEVIATIONS: f32 = 7.5;
/// What rounding in f32 can add, as a part of `‖w‖·‖x‖`: chains of up to some 1,000 roundings of 6·10⁻⁸ each, which
/// do not all go one way.
const ROUNDING: f32 = 1e-5;
/// The second plane's step as a part of the first's. A quarter would cut the inner cells evenly; the outer cells, which have no end, want more.
const FINER: f32 = 0.31;
/// The seed of the rotation ("skch") and of the thresholds θ ("dith"). They and the constants above are part of the version of one-file
/// models, which hold planes and figures alone: a sketch is of use only with its rotation.
const ROTATION: u32 = u32::from_be_bytes(*b"skch");
const THRESHOLDS: u32 = u32::from_be_bytes(*b"dith");

/// A head at two and at four bits a weight. See the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSketch {
    rows: usize,
    cols: usize,
    planes: [Plane; 2],
    /// The rotation, `[hadamard::ROUNDS · cols]`.
    signs: Vec<f32>,
    /// θ, `[cols]`.
    thresholds: Vec<f32>,
}

/// Two bits a weight, and what the estimates that go this far are worth.
#[derive(Clone, Debug, PartialEq)]
struct Plane {
    /// `q`, `[rows, cols]` in the four-level form of [`t2`].
    packed: Values<u8>,
    /// `[rows]`
    figures: Values<RowFigures>,
}

/// The estimate of a row is `unit · s · Σ (q₁ + FINER·q₂ − ½·(1 + FINER)) · xq` over as many planes as are read, and its bound
/// `radius · ‖x‖ + rounding · s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowFigures {
    /// The first plane's `step / g`, with the `g` of the planes so far.
    unit: f32,
    radius: f32,
    rounding: f32,
}

/// Which logits are wanted: those that can be among the largest `count` of the tokens that are not in `except`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top<'a> {
    /// How many.
    pub count: usize,
    /// Tokens that do not count, because their logits will be lowered afterwards: unused ids, and those with a repetition penalty.
    /// They are there all the same if they are among the largest.
    pub except: &'a [u32],
}

/// What the shortcut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SketchCounts {
    /// Tokens whose logits were searched.
    pub searched: usize,
    /// Rows that the first plane left, of which the second was read.
    pub second: usize,
    /// Rows of the head that were computed exactly for them.
    pub rows: usize,
    /// Bytes of the planes and of the head that were read for them, without those of whole heads.
    pub bytes: usize,
    /// Tokens for which the whole head was computed after all.
    pub whole: usize,
}

impl HeadSketch {
    /// Bytes that a search reads in any case: the first plane.
    pub fn first_bytes(&self) -> usize {
        self.planes[0].bytes()
    }

    /// Bytes of both planes.
    pub fn bytes(&self) -> usize {
        self.planes.iter().map(Plane::bytes).sum()
    }

    /// Whether a head `[rows, cols]` can have a sketch: its rows [can be rotated](hadamard::can_rotate).
    pub(crate) fn is_possible(rows: usize, cols: usize) -> bool {
        rows > 0 && hadamard::can_rotate(cols) && cols <= t2::MAX_COLS
    }

    /// A sketch out of the [`parts`](Self::parts) of another, or `None` if they are none of a head `[rows, cols]`: too short or too long, or
    /// with figures that are not finite or below zero. The planes are not read, for whatever is in them stands for a level.
    pub(crate) fn from_parts(rows: usize, cols: usize, parts: [(Values<u8>, Values<RowFigures>); 2]) -> Option<Self> {
        if !Self::is_possible(rows, cols) {
            return None;
        }
        let planes = parts.map(|(packed, figures)| Plane { packed, figures });
        let fits = |plane: &Plane| {
            plane.packed.len() == t2::bytes(rows, cols)
                && plane.figures.len() == rows
                && plane
                    .figures
                    .iter()
                    .fold(true, |good, figures| good & figures.are_sound())
        };
        planes.iter().all(fits).then(|| Self {
            rows,
            cols,
            planes,
            signs: signs(cols),
            thresholds: thresholds(cols),
        })
    }

    /// The two planes and their figures.
    #[cfg(feature = "std")]
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&Values<u8>, &Values<RowFigures>)> {
        self.planes.iter().map(|plane| (&plane.packed, &plane.figures))
    }
}

/// The rotation of rows of `cols` weights, `[hadamard::ROUNDS · cols]`.
fn signs(cols: usize) -> Vec<f32> {
    let mut signs = vec![0.0; hadamard::ROUNDS * cols];
    hadamard::fill_signs(&Key::new(0, ROTATION, 0), &mut signs);
    signs
}

/// θ, `[cols]`.
fn thresholds(cols: usize) -> Vec<f32> {
    let dither = Key::new(0, THRESHOLDS, 0);
    (0..cols as u64).map(|i| dither.uniform(i)).collect()
}

impl RowFigures {
    /// Floats of a row's figures.
    pub(crate) const LEN: usize = 3;

    /// Whether they are finite and not below zero.
    fn are_sound(&self) -> bool {
        let sound = |x: f32| (0.0..f32::INFINITY).contains(&x);
        sound(self.unit) & sound(self.radius) & sound(self.rounding)
    }
}

impl Plane {
    fn bytes(&self) -> usize {
        self.packed.len() + size_of_val(&*self.figures)
    }
}
