//! Single tokens through `down_proj` by columns: under ReLU² most of its input is 0, and what is multiplied by 0 is not read.
//!
//! That takes a second copy of the matrix, two bits a weight ([`ternary_columns`]), beside the rows that several tokens go through. So it is
//! for models that come from memory, on CPUs with a kernel for it, and for models loaded from directories; a `.1bit` file holds rows alone.
//! The sums are the same integers, so the answers are the same, bit for bit.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::ternary_columns::{self, LINE_ROWS, Line, column_lines};
use onebit_kernels_cpu::{Isa, t2};
#[cfg(feature = "std")]
use rayon::prelude::*;

use super::executor::Executor;
use super::linear::Input;
use super::weights::{Linear, PackedModel};
use crate::config::FeedForward;

/// From one in so many values that are not 0, rows are read. Measured from memory at 2560 × 6912, against `t5`: at 0.12 columns are 3.4 to 4.5
/// times as fast, at 0.35 1.8 to 2.2 times, at 0.5 at least 1.4 times, and they stay ahead to 0.65; a little is left for other machines.
const ONE_IN: usize = 2;

/// Least lines of a column that a piece reads: 64 bytes alone, with other threads at those beside them, were slower than rows.
const LEAST_LINES: usize = 2;

/// A piece is as large as two of other products, one for each thread: what it reads of a column lies together.
const PIECES: usize = 2;

impl PackedModel {
    /// The same model with a copy of each ternary `down_proj` by columns, if its activation is ReLU²: the same answers, bit for bit.
    pub fn with_columns(mut self) -> Self {
        self.add_columns();
        self
    }

    pub(super) fn add_columns(&mut self) {
        if self.config.feed_forward == FeedForward::SwiGlu {
            return;
        }
        #[cfg(feature = "std")]
        self.blocks.par_iter_mut().for_each(|block| add(&mut block.down));
        #[cfg(not(feature = "std"))]
        self.blocks.iter_mut().for_each(|block| add(&mut block.down));
    }
}

fn add(linear: &mut Linear) {
    if let Linear::Ternary {
        rows,
        cols,
        layout,
        packed,
        columns,
        ..
    } = linear
    {
        let mut lines: Vec<Line> = vec![Line::ZERO; ternary_columns::lines(*rows, *cols)];
        let mut scratch = vec![0; t2::GROUP_ROWS * *cols];
        ternary_columns::from_rows(*layout, packed, *rows, *cols, &mut lines, &mut scratch);
        *columns = Some(lines);
    }
}

/// `out = W·x` by columns, if `linear` has them, `x` is one token and they are the faster: the bytes that it read. `None` if
/// it was not done.
pub(super) fn multiply<E: Executor>(
    exec: &E,
    isa: Isa,
    linear: &Linear,
    x: Input<'_>,
    out: &mut [f32],
) -> Option<usize> {
    let (
        Linear::Ternary {
            rows,
            cols,
            scale,
            columns: Some(columns),
            ..
        },
        [s],
    ) = (linear, x.scales)
    else {
        return None;
    };
    let xq = &x.bytes[..*cols];
    let nonzero = xq.iter().filter(|x| **x != 0).count();
    let pieces = exec.pieces(linear.bytes()).div_ceil(PIECES);
    let lines = column_lines(*rows).div_ceil(pieces);
    if !ternary_columns::is_fast(isa) || ONE_IN * nonzero > *cols || (pieces > 1 && lines < LEAST_LINES) {
        return None;
    }
    let factor = scale / s;
    exec.rows(out, lines * LINE_ROWS, |first, out| {
        // The sums take the place of what they become.
        let sums: &mut [i32] = bytemuck::cast_slice_mut(out);
        ternary_columns::ternary_columns(isa, columns, *rows, first, xq, sums);
        for y in out {
            *y = y.to_bits() as i32 as f32 * factor;
        }
    });
    Some(nonzero * column_lines(*rows) * size_of::<Line>())
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::super::{Serial, weights::FloatValues};
    use super::*;
    use onebit_kernels_cpu::ternary::{Layout, padded_cols};
    use onebit_kernels_cpu::ternary_gemv::ternary_gemv;

    /// Rows and columns, with the columns' weights all −1 if `broken`: what differs then shows which were read.
    fn linear(rows: usize, cols: usize, broken: bool) -> Linear {
        let trits: Vec<i8> = (0..rows * cols).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect();
        let mut packed = vec![0; Layout::T5.bytes(rows, cols)];
        Layout::T5.pack(&trits, rows, cols, &mut packed);
        let mut linear = Linear::Ternary {
            rows,
            cols,
            layout: Layout::T5,
            packed: packed.into(),
            scale: 0.37,
            columns: None,
        };
        add(&mut linear);
        if broken
            && let Linear::Ternary {
                columns: Some(columns), ..
            } = &mut linear
        {
            columns.fill(Line::ZERO);
        }
        linear
    }

    #[test]
    fn columns_are_read_below_the_break_even_and_give_the_products_of_rows() {
        let (rows, cols) = (300, 96);
        for nonzero in [0, 1, 5, cols / ONE_IN, cols / ONE_IN + 1, cols] {
            let mut bytes = vec![0i8; padded_cols(cols)];
            for (i, x) in bytes[..nonzero].iter_mut().enumerate() {
                *x = (i as i8).wrapping_mul(37) | 1;
            }
            let x = Input {
                tokens: 1,
                float: &[],
                bytes: &bytes,
                scales: &[1.7],
                blocks: &[],
            };
            for isa in Isa::available() {
                let (mut out, mut wrong) = (vec![0f32; rows], vec![0f32; rows]);
                let whole = linear(rows, cols, false);
                let done = multiply(&Serial, isa, &whole, x, &mut out).is_some();
                assert_eq!(done, ternary_columns::is_fast(isa) && ONE_IN * nonzero <= cols);
                if !done {
                    continue;
                }
                let Linear::Ternary { packed, .. } = &whole else {
                    panic!("ternary")
                };
                let mut sums = vec![0; rows];
                ternary_gemv(isa, Layout::T5, packed, cols, &bytes, &mut sums);
                let want: Vec<f32> = sums.iter().map(|&sum| sum as f32 * (0.37 / 1.7)).collect();
                assert_eq!(out, want);
                assert!(multiply(&Serial, isa, &linear(rows, cols, true), x, &mut wrong).is_some());
                assert_eq!(out == wrong, nonzero == 0, "the columns are what is read");
            }
        }
    }

    #[test]
    fn what_has_no_columns_is_left_to_the_rows() {
        let float = Linear::Float(super::super::FloatMatrix {
            rows: 1,
            cols: 1,
            values: FloatValues::F32(vec![1.0].into()),
        });
        let x = Input {
            tokens: 1,
            float: &[1.0],
            bytes: &[0; 320],
            scales: &[1.0],
            blocks: &[],
        };
        assert!(multiply(&Serial, Isa::best(), &float, x, &mut [0.0]).is_none());
        let two = Input {
            tokens: 2,
            scales: &[1.0; 2],
            ..x
        };
        assert!(multiply(&Serial, Isa::best(), &linear(300, 96, false), two, &mut [0.0; 600]).is_none());
    }
}
