//! The shortcut to the largest logits of many tokens at a time: an integer product ranks the rows of the head, and those that can win are computed exactly.
//!
//! The [sketch](super::HeadSketch) saves bytes, which is what a token alone waits for. Many tokens share what is read; they wait for the multiply-adds, and those of
//! bytes are several times as fast as those of floats. So the head is multiplied as bytes, `ŵ` (its own where it is an int8 one), with the input as bytes, `x̂`:
//!
//! ```text
//! w·x  ≤  most = ŵ·x̂ + ‖ŵ‖·‖x − x̂‖ + ‖w − ŵ‖·‖x‖                                     (kernels_cpu::estimate)
//! ```
//!
//! which holds always, not only as a rule. Of each token then, as with the sketch: the rows with the largest `most` are computed exactly; the k-th largest of these logits is a
//! threshold that the k winners reach; rows whose `most` stays below it are out, and the others are computed exactly, by the chain of operations of the whole head, so
//! that the bits are the same. All others are −∞. If too many rows can win, or a number is not finite, the whole head is computed for the token.
//!
//! ```text
//! rows of the head     panel 0: 64 rows      panel 1 …            pieces: panels, each meets every token
//! most                 [panel][token][64]    and the largest of each 64, [panel][token], so that few panels are looked at again
//! tokens               threshold, winners, exact logits            pieces: tokens
//! ```
//!
//! The room that the bounds leave is that of an input in bytes: `‖x − x̂‖` is about 0.009·‖x‖ where the largest value is four deviations away, a sixth of the spread of the logits of
//! rows that point anywhere. Measured: for the 40 largest of the 33,278 of `wikitext2-25m`, 71 rows a token, over 32,820 tokens that were drawn, none of which took the whole head.

mod search;
#[cfg(test)]
mod tests;

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::math::sqrt_f64;
use onebit_kernels_cpu::{Isa, estimate, int8_gemm, int8_gemv, quantize};

use super::RuntimeError;
use super::buffers::zeros;
use super::executor::{Executor, Shares};
use super::floats::{FloatMatrix, FloatValues};
use super::sketch::Top;
use super::winners::MORE;

pub(super) use search::ShortlistBuffers;

/// The whole head is computed if more than one row in so many can win.
const FEW: usize = 8;
/// Rows of a panel.
const PANEL: usize = 64;
/// More than rounding takes from a length of up to 2¹⁷ squares that are summed in f64 and rounded once.
const LONGER: f64 = 1.0 + 1e-6;

/// What an integer product needs to know of a head.
#[derive(Debug)]
pub(super) struct Shortlist {
    rows: usize,
    cols: usize,
    /// The rows as bytes, `[rows, cols]`, where the head does not hold bytes itself.
    bytes: Option<Vec<i8>>,
    /// What a byte of a row stands for, `[rows]`.
    unit: Vec<f32>,
    /// `‖ŵ‖`, `[rows]`.
    length: Vec<f32>,
    /// `‖w − ŵ‖`, `[rows]`.
    off: Vec<f32>,
}

impl Shortlist {
    /// Whether integer products are faster than those of floats on this path.
    pub fn pays(isa: Isa) -> bool {
        int8_gemm::has_tiles(isa)
    }

    /// That of `head`, or `None` where there is none: trits, which are integers already, and rows that are empty, too long or not finite.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn build<E: Executor>(exec: &E, isa: Isa, head: &FloatMatrix) -> Result<Option<Self>, RuntimeError> {
        const WHAT: &str = "the bytes of the head";
        let (rows, cols) = (head.rows, head.cols);
        if rows == 0 || cols == 0 || cols > int8_gemv::MAX_COLS {
            return Ok(None);
        }
        let mut figures = zeros::<[f32; 3]>(WHAT, rows)?;
        let work = head.values.bytes();
        let chunk = rows.div_ceil(exec.pieces(work));
        let bytes = match &head.values {
            FloatValues::Trits { .. } => return Ok(None),
            FloatValues::Int8 { values, steps } => {
                exec.enter(work, || {
                    exec.rows(&mut figures, chunk, |first, figures| {
                        for (row, figures) in (first..).zip(figures) {
                            let squares = values[row * cols..(row + 1) * cols]
                                .iter()
                                .map(|q| i64::from(*q) * i64::from(*q));
                            let length = f64::from(steps[row]).abs() * sqrt_f64(squares.sum::<i64>() as f64);
                            *figures = [steps[row], (length * LONGER) as f32, 0.0];
                        }
                    });
                });
                None
            }
            _ => {
                let mut bytes = zeros::<i8>(WHAT, rows * cols)?;
                exec.enter(work, || {
                    exec.zip(
                        &mut bytes,
                        chunk * cols,
                        &mut figures,
                        chunk,
                        |first, bytes, figures| {
                            let mut w = vec![0.0; cols];
                            for ((row, bytes), figures) in
                                (first / cols..).zip(bytes.chunks_exact_mut(cols)).zip(figures)
                            {
                                head.copy_row(row, &mut w);
                                *figures = to_bytes(isa, &w, bytes);
                            }
                        },
                    );
                });
                Some(bytes)
            }
        };
        if !figures.as_flattened().iter().all(|v| v.is_finite()) {
            return Ok(None);
        }
        let part = |i: usize| figures.iter().map(|figures| figures[i]).collect();
        Ok(Some(Self {
            rows,
            cols,
            bytes,
            unit: part(0),
            length: part(1),
            off: part(2),
        }))
    }

    /// Most rows that are computed for a token.
    fn few(&self) -> usize {
        self.rows / FEW
    }

    /// Whether so many of the largest logits are worth a search.
    pub fn takes(&self, top: Top<'_>) -> bool {
        top.count > 0 && top.count.saturating_add(MORE) <= self.few()
    }

    /// The rows as bytes.
    fn bytes<'a>(&'a self, head: &'a FloatMatrix) -> &'a [i8] {
        match (&self.bytes, &head.values) {
            (Some(bytes), _) => bytes,
            (None, FloatValues::Int8 { values, .. }) => values,
            // It was built of another head.
            (None, _) => &[],
        }
    }

    /// What is known of `count` rows from `first` on.
    fn figures(&self, first: usize, count: usize) -> estimate::Rows<'_> {
        let at = first..first + count;
        estimate::Rows {
            unit: &self.unit[at.clone()],
            length: &self.length[at.clone()],
            off: &self.off[at],
        }
    }
}

/// Rounds a row to bytes and returns what one of them stands for, their length, and how far they are off.
fn to_bytes(isa: Isa, w: &[f32], bytes: &mut [i8]) -> [f32; 3] {
    let mut scale = [0.0];
    quantize::absmax_i8(isa, w, w.len(), bytes, bytes.len(), &mut scale);
    let unit = 1.0 / scale[0];
    let (length, off) = lengths(w, bytes, unit);
    [unit, length, off]
}

/// `‖unit·q‖` and `‖v − unit·q‖`, or a little more.
fn lengths(values: &[f32], bytes: &[i8], unit: f32) -> (f32, f32) {
    let unit = f64::from(unit);
    let (mut length, mut off) = (0.0f64, 0.0f64);
    for (v, q) in values.iter().zip(bytes) {
        let kept = f64::from(*q) * unit;
        let rest = f64::from(*v) - kept;
        length += kept * kept;
        off += rest * rest;
    }
    let root = |x: f64| (sqrt_f64(x) * LONGER) as f32;
    (root(length), root(off))
}

/// Pieces of a phase that takes `tokens` tokens, each of which reads `bytes`.
fn by_token<E: Executor>(exec: &E, tokens: usize, bytes: usize) -> Shares {
    Shares::even(exec.pieces(bytes.saturating_mul(tokens)).min(tokens))
}
