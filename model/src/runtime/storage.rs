//! In which type the embedding and the head are kept.

use half::{bf16, f16};
use onebit_kernels_cpu::{Isa, elementwise, int4_gemv, quantize};

use alloc::vec;
use alloc::vec::Vec;

use super::RuntimeError;
use super::check::{check_finite, value_error};
use super::floats::FloatValues;
use crate::config::LinearMode;

/// The type in which the embedding, the head and the linears in mode `f16` are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatStorage {
    /// As the file has them.
    #[default]
    Stored,
    /// Four bytes a value.
    F32,
    /// Two bytes a value, rounded to nearest.
    F16,
    /// Two bytes a value, rounded to nearest.
    Bf16,
    /// A byte a value in ±127 and an f32 step a row, 1/127 of the row's largest magnitude. For embedding and head: linears in mode `f16`
    /// stay as they are.
    Int8,
    /// Half a byte a value in −8..=7 and an f16 step for each group of 32 columns ([`int4_gemv`]); the input of the head is then rounded to
    /// bytes, with a step for each group too. For embedding and head alone, as `Int8` is.
    Int4,
}

impl FloatStorage {
    /// Every type, with its name.
    pub const ALL: [(&'static str, Self); 6] = [
        ("stored", Self::Stored),
        ("f32", Self::F32),
        ("f16", Self::F16),
        ("bf16", Self::Bf16),
        ("int8", Self::Int8),
        ("int4", Self::Int4),
    ];

    /// The same for a linear in mode `f16`, whose mode says that it is no matrix of integers.
    pub(crate) fn of_linears(self) -> Self {
        match self {
            Self::Int8 | Self::Int4 => Self::Stored,
            other => other,
        }
    }

    /// The same for an embedding or a head in a mode of integers, which says itself what it is kept in.
    pub(crate) fn of_table(self, mode: LinearMode) -> Self {
        match mode {
            LinearMode::Int8 => Self::Int8,
            LinearMode::Int4 => Self::Int4,
            LinearMode::F16 | LinearMode::Ternary | LinearMode::Binary => self,
        }
    }

    /// The values of a matrix with rows of `cols` in this type. What is in it already stays where it is.
    ///
    /// # Errors
    /// [`RuntimeError::TensorValue`] for a value that is not finite in that type, or too large for the step of an int4 one. Shared values that
    /// stay where they are are not read.
    pub(super) fn apply(
        self,
        isa: Isa,
        name: &str,
        cols: usize,
        values: FloatValues,
    ) -> Result<FloatValues, RuntimeError> {
        let values = match (self, values) {
            (Self::Stored, values)
            | (Self::F32, values @ FloatValues::F32(_))
            | (Self::F16, values @ FloatValues::F16(_))
            | (Self::Bf16, values @ FloatValues::Bf16(_))
            | (Self::Int8, values @ FloatValues::Int8 { .. })
            | (Self::Int4, values @ FloatValues::Int4 { .. }) => values,
            (Self::F32, values) => FloatValues::F32(values.into_f32().into()),
            (Self::F16, values) => FloatValues::F16(values.into_f32().into_iter().map(f16::from_f32).collect()),
            (Self::Bf16, values) => FloatValues::Bf16(values.into_f32().into_iter().map(bf16::from_f32).collect()),
            (Self::Int8, values) => {
                let w = finite(isa, name, values)?;
                let (mut values, mut steps) = (vec![0; w.len()], vec![0.0; w.len() / cols.max(1)]);
                quantize::int8_rowwise(isa, &w, cols, &mut values, &mut steps);
                FloatValues::Int8 {
                    values: values.into(),
                    steps: steps.into(),
                }
            }
            (Self::Int4, values) => int4(isa, name, cols, &finite(isa, name, values)?)?,
        };
        check_finite(name, &values)?;
        Ok(values)
    }
}

/// `w` as [`int4_gemv`] has it.
pub(super) fn int4(isa: Isa, name: &str, cols: usize, w: &[f32]) -> Result<FloatValues, RuntimeError> {
    let rows = w.len() / cols.max(1);
    let mut codes = vec![0; rows * int4_gemv::row_bytes(cols)];
    let mut steps = vec![f16::ZERO; rows * int4_gemv::row_steps(cols)];
    int4_gemv::quantize(isa, w, cols, &mut codes, &mut steps);
    if !steps.iter().all(|step| step.is_finite()) {
        return Err(value_error(name, "weights that an f16 step reaches, within ±491,000"));
    }
    Ok(FloatValues::Int4 {
        codes: codes.into(),
        steps: steps.into(),
        cols,
    })
}

/// The values as f32, all of them finite.
fn finite(isa: Isa, name: &str, values: FloatValues) -> Result<Vec<f32>, RuntimeError> {
    let w = values.into_f32();
    match elementwise::all_finite(isa, &w) {
        true => Ok(w),
        false => Err(value_error(name, "finite weights")),
    }
}
