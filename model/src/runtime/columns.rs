//! Single tokens through `down_proj` by columns: under ReLU² most of its input is 0, and what is multiplied by 0 is not read.
//!
//! That takes a second copy of the matrix, two bits a weight ([`ternary_columns`]), beside the rows that several tokens go through. So it is
//! made for models that come from memory, on CPUs with a kernel for it, as they are loaded from directories; a `.1bit` file may hold it. The sums are the same integers, so the answers are the same, bit for bit.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::ternary_columns::{self, Line, column_lines};
use onebit_kernels_cpu::{Isa, quantize, t2};
#[cfg(feature = "std")]
use rayon::prelude::*;

use super::executor::Executor;
use super::linear::{Input, Scratch};
use super::values::Values;
use super::weights::{Linear, PackedModel};
use crate::config::FeedForward;

/// Columns are read where no more than one value in so many is not 0. Measured from memory at 2560 × 6912, as many times as fast as the rows that
/// such a CPU keeps: AVX-512 against `t5` 1.9 to 2.2 at 0.35 and 1.4 to 1.6 at 0.5, AVX2 against `t2` 1.8 and 1.2 to 1.4. What is left below
/// is for other machines, and for the ARM paths, which nobody has timed.
fn one_in(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => 2,
        _ => 3,
    }
}

/// Tapered pieces a thread: each begins with columns that nobody asked for ahead.
const PIECES_PER_THREAD: usize = 4;

impl PackedModel {
    /// The same model with a copy of each ternary `down_proj` by columns, if its activation is ReLU²: the same answers, bit for bit.
    pub fn with_columns(mut self) -> Self {
        self.add_columns();
        self
    }

    /// The same model without the copies by columns.
    pub fn without_columns(mut self) -> Self {
        for block in &mut self.blocks {
            if let Linear::Ternary { columns, .. } = &mut block.down {
                *columns = None;
            }
        }
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
    if !linear.is_worth_columns() {
        return;
    }
    let made = linear.make_columns();
    if let Linear::Ternary { columns, .. } = linear {
        *columns = made.map(Values::from);
    }
}

impl Linear {
    /// Whether columns are read where there are some: a column has two bits a weight, twice what `b1` has for the whole row.
    fn is_worth_columns(&self) -> bool {
        matches!(self, Linear::Ternary { layout, .. } if layout.has_zero())
    }

    /// The weights of a ternary or binary linear by columns, `[cols, lines of a column]`, made from its rows.
    pub(crate) fn make_columns(&self) -> Option<Vec<Line>> {
        let Linear::Ternary {
            rows,
            cols,
            layout,
            packed,
            ..
        } = self
        else {
            return None;
        };
        let mut lines = vec![Line::ZERO; ternary_columns::lines(*rows, *cols)];
        let mut scratch = vec![0; t2::GROUP_ROWS * cols];
        ternary_columns::from_rows(*layout, packed, *rows, *cols, &mut lines, &mut scratch);
        Some(lines)
    }
}

/// `out = W·x` by columns, if `linear` has them, `x` is one token and they are the faster: the bytes that it read. `None` if
/// it was not done.
///
/// Threads share the columns and not the rows: what is read lies in longer pieces, and cuts are as fine as a column. Each has sums of its own,
/// integers, that add up to the same whichever columns they are of.
pub(super) fn multiply<E: Executor>(
    exec: &E,
    isa: Isa,
    linear: &Linear,
    x: Input<'_>,
    out: &mut [f32],
    scratch: &mut [Scratch],
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
    if !linear.is_worth_columns() || !ternary_columns::is_fast(isa) || one_in(isa) * nonzero > *cols {
        return None;
    }
    let columns: &[Line] = columns;
    let read = nonzero * column_lines(*rows) * size_of::<Line>();
    for scratch in &mut *scratch {
        scratch.columns.clear();
    }
    let mut shares = exec.shares(read);
    shares.pieces = shares.pieces.min(PIECES_PER_THREAD * exec.threads());
    // Units take no memory, so nothing is allocated.
    let mut units = vec![(); *cols];
    let stride = column_lines(*rows);
    exec.share(shares, &mut units, 1, scratch, |first, units, scratch| {
        let end = first + units.len();
        // There is room for as many.
        scratch.columns.resize(*rows, 0);
        let w = &columns[first * stride..end * stride];
        ternary_columns::ternary_columns(isa, w, &xq[first..end], &mut scratch.columns);
    });
    let (all, others) = scratch.split_first_mut()?;
    all.columns.resize(*rows, 0);
    for other in others {
        for (sum, part) in all.columns.iter_mut().zip(&other.columns) {
            *sum += part;
        }
    }
    quantize::scale_sums(isa, &all.columns, scale / s, out);
    Some(read)
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::super::Serial;
    use super::super::floats::FloatValues;
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
            *columns = vec![Line::ZERO; columns.len()].into();
        }
        linear
    }

    #[test]
    fn columns_are_read_below_the_break_even_and_give_the_products_of_rows() {
        let (rows, cols) = (300, 96);
        for nonzero in [0, 1, 5, cols / 3, cols / 3 + 1, cols / 2, cols / 2 + 1, cols] {
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
            let mut scratch = [Scratch::default()];
            for isa in Isa::available() {
                let (mut out, mut wrong) = (vec![0f32; rows], vec![0f32; rows]);
                let whole = linear(rows, cols, false);
                let done = multiply(&Serial, isa, &whole, x, &mut out, &mut scratch).is_some();
                assert_eq!(done, ternary_columns::is_fast(isa) && one_in(isa) * nonzero <= cols);
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
                assert!(multiply(&Serial, isa, &linear(rows, cols, true), x, &mut wrong, &mut scratch).is_some());
                assert_eq!(out == wrong, nonzero == 0, "the columns are what is read");
            }
        }
    }

    #[test]
    fn rows_of_one_bit_are_never_read_by_columns() {
        let (rows, cols) = (8, 96);
        let signs: Vec<i8> = (0..rows * cols).map(|i| 1 - 2 * (i % 7 % 2) as i8).collect();
        let mut packed = vec![0; Layout::B1.bytes(rows, cols)];
        Layout::B1.pack(&signs, rows, cols, &mut packed);
        let mut binary = Linear::Ternary {
            rows,
            cols,
            layout: Layout::B1,
            packed: packed.into(),
            scale: 0.37,
            columns: None,
        };
        add(&mut binary);
        let made = binary.make_columns().unwrap();
        let Linear::Ternary { columns, .. } = &mut binary else {
            panic!("binary")
        };
        assert!(columns.is_none());
        *columns = Some(made.into());
        let bytes = vec![0; padded_cols(cols)];
        let x = Input {
            tokens: 1,
            float: &[],
            bytes: &bytes,
            scales: &[1.0],
            blocks: &[],
        };
        assert!(
            multiply(
                &Serial,
                Isa::best(),
                &binary,
                x,
                &mut [0.0; 8],
                &mut [Scratch::default()]
            )
            .is_none()
        );
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
        assert!(multiply(&Serial, Isa::best(), &float, x, &mut [0.0], &mut [Scratch::default()]).is_none());
        let two = Input {
            tokens: 2,
            scales: &[1.0; 2],
            ..x
        };
        assert!(
            multiply(
                &Serial,
                Isa::best(),
                &linear(300, 96, false),
                two,
                &mut [0.0; 600],
                &mut [Scratch::default()]
            )
            .is_none()
        );
    }
}
