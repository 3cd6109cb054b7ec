//! Matrices that stand for floats: embedding, head, and linears in mode `f16`.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};
use onebit_kernels_cpu::int4_gemv;
use onebit_kernels_cpu::ternary::Layout;

use super::values::Values;

/// Float values in the type in which they are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum FloatValues {
    /// IEEE single precision.
    F32(Values<f32>),
    /// IEEE half precision.
    F16(Values<f16>),
    /// The upper half of a single.
    Bf16(Values<bf16>),
    /// Bytes in ±127 times a step a row: `w[r, k] = values[r, k] · steps[r]`.
    Int8 {
        /// Row by row.
        values: Values<i8>,
        /// `[rows]`
        steps: Values<f32>,
    },
    /// Half bytes in −8..=7 times a step for each group of 32 columns, as [`int4_gemv`] has them.
    Int4 {
        /// `[rows, int4_gemv::row_bytes(cols)]`
        codes: Values<u8>,
        /// `[rows, int4_gemv::row_steps(cols)]`, finite.
        steps: Values<f16>,
        /// Values of a row, which the padded codes do not tell.
        cols: usize,
    },
    /// −1, 0 or 1 times one γ: an embedding or a head in mode `ternary` or `binary`.
    Trits {
        /// How `packed` lies.
        layout: Layout,
        /// `layout.bytes(rows, cols)` bytes.
        packed: Values<u8>,
        /// γ.
        scale: f32,
        /// Rows, which the padded groups do not tell.
        rows: usize,
        /// Values of a row.
        cols: usize,
    },
}

impl FloatValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
            Self::Int4 { steps, cols, .. } => cols * steps.len().checked_div(int4_gemv::row_steps(*cols)).unwrap_or(0),
            Self::Trits { rows, cols, .. } => rows * cols,
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the values lie in memory that others hold, such as a mapped file.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::F32(values) => values.is_shared(),
            Self::F16(values) => values.is_shared(),
            Self::Bf16(values) => values.is_shared(),
            Self::Int8 { values, .. } => values.is_shared(),
            Self::Int4 { codes: bytes, .. } | Self::Trits { packed: bytes, .. } => bytes.is_shared(),
        }
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::F16(values) => 2 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
            Self::Int8 { values, steps } => values.len() + 4 * steps.len(),
            Self::Int4 { codes, steps, .. } => codes.len() + 2 * steps.len(),
            Self::Trits { packed, .. } => packed.len(),
        }
    }

    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F16(_) => "f16",
            Self::Bf16(_) => "bf16",
            Self::Int8 { .. } => "int8",
            Self::Int4 { .. } => "int4",
            Self::Trits { layout, .. } => trits_name(*layout),
        }
    }

    /// Whether no value is NaN or infinite; of integers their steps are asked.
    pub(crate) fn all_finite(&self) -> bool {
        // All of them, without a branch on each: an embedding has hundreds of millions.
        fn all<T>(values: &[T], is_finite: impl Fn(&T) -> bool) -> bool {
            values.iter().fold(true, |finite, value| finite & is_finite(value))
        }
        match self {
            Self::F32(values) | Self::Int8 { steps: values, .. } => all(values, |v| v.is_finite()),
            Self::F16(values) | Self::Int4 { steps: values, .. } => all(values, |v| v.is_finite()),
            Self::Bf16(values) => all(values, |v| v.is_finite()),
            Self::Trits { scale, .. } => scale.is_finite(),
        }
    }

    /// The values as f32: floats, trits and int4 exactly, int8 times their step, rounded.
    pub fn into_f32(self) -> Vec<f32> {
        let len = self.len();
        match self {
            Self::F32(values) => values.into_vec(),
            Self::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::Int8 { values, steps } => {
                let rows = values.chunks((values.len() / steps.len().max(1)).max(1)).zip(&*steps);
                rows.flat_map(|(row, step)| row.iter().map(move |v| f32::from(*v) * step))
                    .collect()
            }
            Self::Int4 { codes, steps, cols } => {
                let mut out = vec![0.0; len];
                int4_gemv::dequantize(&codes, &steps, cols, &mut out);
                out
            }
            Self::Trits {
                layout,
                packed,
                scale,
                rows,
                cols,
            } => {
                let mut trits = vec![0; len];
                layout.unpack(&packed, rows, cols, &mut trits);
                trits.into_iter().map(|trit| f32::from(trit) * scale).collect()
            }
        }
    }
}

/// The mode whose weights lie so.
fn trits_name(layout: Layout) -> &'static str {
    match layout {
        Layout::T2 | Layout::T5 => "ternary",
        Layout::B1 => "binary",
    }
}

/// A high-precision matrix `[rows, cols]`: embedding, head, or a linear in mode `f16`.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatMatrix {
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// Row by row.
    pub values: FloatValues,
}

impl FloatMatrix {
    /// Writes row `row` as f32.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        let at = row * self.cols..(row + 1) * self.cols;
        match &self.values {
            FloatValues::F32(values) => out.copy_from_slice(&values[at]),
            FloatValues::F16(values) => out.iter_mut().zip(&values[at]).for_each(|(o, v)| *o = v.to_f32()),
            FloatValues::Bf16(values) => out.iter_mut().zip(&values[at]).for_each(|(o, v)| *o = v.to_f32()),
            FloatValues::Int8 { values, steps } => {
                let step = steps[row];
                out.iter_mut()
                    .zip(&values[at])
                    .for_each(|(o, v)| *o = f32::from(*v) * step);
            }
            FloatValues::Int4 { codes, steps, cols } => {
                let (bytes, groups) = (int4_gemv::row_bytes(*cols), int4_gemv::row_steps(*cols));
                let (codes, steps) = (&codes[row * bytes..][..bytes], &steps[row * groups..][..groups]);
                int4_gemv::dequantize(codes, steps, *cols, out);
            }
            FloatValues::Trits {
                layout, packed, scale, ..
            } => layout.dequantize_row(packed, row, *scale, out),
        }
    }
}
