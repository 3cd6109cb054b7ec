//! What a tensor must be to take its place in a model.

use alloc::string::ToString;

use half::f16;
use onebit_kernels_cpu::{int4_gemv, t2};

use super::RuntimeError;
use super::floats::FloatValues;

pub(super) fn check_len(name: &str, expected: usize, found: usize) -> Result<(), RuntimeError> {
    if expected == found {
        Ok(())
    } else {
        Err(RuntimeError::TensorLength {
            name: name.to_string(),
            expected,
            found,
        })
    }
}

pub(super) fn value_error(name: &str, expected: &'static str) -> RuntimeError {
    RuntimeError::TensorValue {
        name: name.to_string(),
        expected,
    }
}

pub(super) fn check_cols(name: &str, cols: usize, limit: usize) -> Result<(), RuntimeError> {
    if cols <= limit {
        Ok(())
    } else {
        Err(RuntimeError::TooWide {
            name: name.to_string(),
            cols,
            limit,
        })
    }
}

pub(super) fn check_scale(name: &str, scale: f32) -> Result<(), RuntimeError> {
    let good = scale.is_finite() && scale > 0.0;
    if good {
        Ok(())
    } else {
        Err(value_error(name, "a positive, finite scale"))
    }
}

pub(super) fn check_steps(name: &str, rows: usize, steps: &[f32]) -> Result<(), RuntimeError> {
    check_len(name, rows, steps.len())?;
    steps.iter().try_for_each(|&step| check_scale(name, step))
}

pub(super) fn check_matrix(name: &str, rows: usize, cols: usize, values: &FloatValues) -> Result<(), RuntimeError> {
    check_len(name, rows * cols, values.len())?;
    match values {
        FloatValues::Int8 { steps, .. } => check_steps(name, rows, steps),
        FloatValues::Int4 {
            codes,
            steps,
            cols: found,
        } => {
            check_len(name, cols, *found)?;
            check_int4(name, rows, cols, codes, steps)
        }
        FloatValues::Trits {
            layout,
            packed,
            scale,
            rows: found_rows,
            cols: found,
        } => {
            check_len(name, rows, *found_rows)?;
            check_len(name, cols, *found)?;
            check_cols(name, cols, t2::MAX_COLS)?;
            check_len(name, layout.bytes(rows, cols), packed.len())?;
            check_scale(name, *scale)
        }
        _ => Ok(()),
    }
}

/// Codes and steps of a matrix in the form of [`int4_gemv`].
pub(super) fn check_int4(
    name: &str,
    rows: usize,
    cols: usize,
    codes: &[u8],
    steps: &[f16],
) -> Result<(), RuntimeError> {
    check_len(name, rows * int4_gemv::row_bytes(cols), codes.len())?;
    check_len(name, rows * int4_gemv::row_steps(cols), steps.len())?;
    match steps.iter().fold(true, |finite, step| finite & step.is_finite()) {
        true => Ok(()),
        false => Err(value_error(name, "finite steps")),
    }
}

/// Refuses NaN and infinities. Values that lie in memory which others hold are not read: a mapped file is checked by who verifies it.
pub(super) fn check_finite(name: &str, values: &FloatValues) -> Result<(), RuntimeError> {
    match values.is_shared() || values.all_finite() {
        true => Ok(()),
        false => Err(value_error(
            name,
            "values that are finite in the type in which they are kept",
        )),
    }
}
