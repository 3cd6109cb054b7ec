//! Making a sketch from a head.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::math::sqrt_f64;
use onebit_kernels_cpu::{Isa, elementwise, hadamard, t2};

use super::{DEVIATIONS, FINER, HeadSketch, ROUNDING, RowFigures, signs};
use crate::runtime::executor::Executor;
use crate::runtime::floats::{FloatMatrix, FloatValues};
use crate::runtime::values::Values;
use crate::runtime::weights::PackedModel;

/// The best step of four even levels for Gaussian values of variance 1 (Max, *Quantizing for minimum distortion*, 1960).
const STEP: f32 = 0.995_7;

impl HeadSketch {
    /// The sketch of `head`, or `None` where none can be made: rows that [cannot be rotated](hadamard::can_rotate), values that are not
    /// finite, or trits, which a sketch would not be smaller than.
    pub fn build<E: Executor>(exec: &E, isa: Isa, head: &FloatMatrix) -> Option<Self> {
        let (rows, cols) = (head.rows, head.cols);
        if !Self::is_possible(rows, cols) || matches!(head.values, FloatValues::Trits { .. }) {
            return None;
        }
        let signs = signs(cols);
        let plane = |p| make_plane(exec, isa, head, p, &signs);
        Self::from_parts(rows, cols, [plane(0), plane(1)])
    }
}

/// Plane `p` of a sketch of `head`, and its figures.
fn make_plane<E: Executor>(
    exec: &E,
    isa: Isa,
    head: &FloatMatrix,
    p: usize,
    signs: &[f32],
) -> (Values<u8>, Values<RowFigures>) {
    let (rows, cols) = (head.rows, head.cols);
    let mut packed = vec![0; t2::bytes(rows, cols)];
    let mut figures = vec![RowFigures::default(); rows];
    let group = t2::group_bytes(cols);
    let work = head.values.bytes().saturating_mul(16);
    let groups = rows.div_ceil(t2::GROUP_ROWS).div_ceil(exec.pieces(work));
    exec.enter(work, || {
        exec.zip(
            &mut packed,
            groups * group,
            &mut figures,
            groups * t2::GROUP_ROWS,
            |first, packed, figures| {
                let mut maker = RowMaker::new(isa, cols, signs);
                let mut row = first / group * t2::GROUP_ROWS;
                for (packed, figures) in packed.chunks_exact_mut(group).zip(figures.chunks_mut(t2::GROUP_ROWS)) {
                    maker.group(head, row, p, packed, figures);
                    row += figures.len();
                }
            },
        );
    });
    (packed.into(), figures.into())
}

/// Buffers for making rows.
struct RowMaker<'a> {
    isa: Isa,
    signs: &'a [f32],
    /// The rotated row.
    u: Vec<f32>,
    /// What the planes so far make of it, in steps of the first.
    value: Vec<f32>,
    spare: Vec<f32>,
    /// `[4, cols]`
    levels: Vec<i8>,
}

impl<'a> RowMaker<'a> {
    fn new(isa: Isa, cols: usize, signs: &'a [f32]) -> Self {
        Self {
            isa,
            signs,
            u: vec![0.0; cols],
            value: vec![0.0; cols],
            spare: vec![0.0; cols],
            levels: vec![0; t2::GROUP_ROWS * cols],
        }
    }

    /// Packs plane `plane` of the rows from `first` on, as many as `figures` has.
    fn group(&mut self, head: &FloatMatrix, first: usize, plane: usize, packed: &mut [u8], figures: &mut [RowFigures]) {
        for (i, figures) in figures.iter_mut().enumerate() {
            head.copy_row(first + i, &mut self.u);
            *figures = self.row(plane, i);
        }
        let levels = &self.levels[..figures.len() * head.cols];
        t2::pack_four_levels(levels, figures.len(), head.cols, packed);
    }

    /// The levels of plane `plane` of the row in `u`, and the figures of the planes up to it.
    fn row(&mut self, plane: usize, i: usize) -> RowFigures {
        let (isa, n) = (self.isa, self.u.len());
        hadamard::rotate(isa, &mut self.u, self.signs, &mut self.spare);
        let levels = &mut self.levels[i * n..(i + 1) * n];
        let squares = elementwise::sum_squares(isa, &self.u);
        if squares == 0.0 {
            // A row of zeros: every logit is 0, which any levels say when their unit is 0.
            levels.fill(0);
            return RowFigures::default();
        }
        let per_step = (sqrt_f64(n as f64 / squares) as f32) / STEP;
        self.value.fill(0.0);
        let mut step = 1.0;
        for _ in 0..=plane {
            for ((level, value), u) in levels.iter_mut().zip(&mut self.value).zip(&self.u) {
                // The border between two levels is a whole number of steps, and a level's value lies half a step above it.
                let rest = u * per_step - *value;
                *level = i8::from(rest >= -step) + i8::from(rest >= 0.0) + i8::from(rest >= step) - 1;
                *value += (f32::from(*level) - 0.5) * step;
            }
            step *= FINER;
        }
        let along = elementwise::dot(isa, &self.value, &self.u) / squares;
        let length = elementwise::sum_squares(isa, &self.value);
        let across = (length - along * along * squares).max(0.0);
        let spread = sqrt_f64(across / (n as f64 - 1.0)) / along;
        RowFigures {
            unit: (1.0 / along) as f32,
            radius: DEVIATIONS * spread as f32 + ROUNDING * sqrt_f64(squares) as f32,
            rounding: DEVIATIONS * 0.5 * (sqrt_f64(length) / along) as f32,
        }
    }
}

impl PackedModel {
    /// Adds the [sketch](HeadSketch) of the head, with which [`Top`](super::Top) logits are found. Nothing changes where none can be made.
    pub fn sketch_head<E: Executor>(&mut self, exec: &E, isa: Isa) {
        self.sketch = HeadSketch::build(exec, isa, self.head());
    }

    /// Gives the model a sketch of its head that was made before; a head of trits has none.
    pub(crate) fn take_sketch(&mut self, sketch: Option<HeadSketch>) {
        let trits = matches!(self.head().values, FloatValues::Trits { .. });
        self.sketch = sketch.filter(|_| !trits);
    }

    /// The same model without a sketch of its head.
    pub fn without_sketch(mut self) -> Self {
        self.sketch = None;
        self
    }

    /// The sketch of the head, if there is one.
    pub fn sketch(&self) -> Option<&HeadSketch> {
        self.sketch.as_ref()
    }
}
