//! From a tensor in one of the forms of a file to the form that the runtime keeps.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, elementwise, int8_gemv, quantize, t2, ternary_columns};

use super::RuntimeError;
use super::check::{check_cols, check_finite, check_len, check_matrix, check_scale, check_steps, value_error};
use super::storage::FloatStorage;
use super::values::Values;
use super::weights::{FloatMatrix, FloatValues, Linear};
use crate::config::LinearMode;

/// Weights whose magnitudes are summed before the sum goes on: the training side cuts there too, so that both find the
/// same γ to the last bit.
const SUM_BLOCK: usize = 1 << 16;

/// A tensor in one of the forms in which a file may hold it.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorSource {
    /// Float values, row by row. A linear in a quantised mode is quantised from them.
    Float(FloatValues),
    /// A ternary or binary linear as −1, 0, 1, row by row, and γ.
    Trits {
        /// `[rows, cols]`.
        values: Vec<i8>,
        /// γ.
        scale: f32,
    },
    /// A ternary or binary linear packed as [`t2`], and γ.
    Packed {
        /// `t2::bytes(rows, cols)` bytes.
        bytes: Vec<u8>,
        /// γ.
        scale: f32,
    },
    /// A linear in mode `int8` or `int4`.
    Integers {
        /// `[rows, cols]`, within ±127 or ±7.
        values: Vec<i8>,
        /// A step for each row.
        steps: Vec<f32>,
    },
    /// A linear as the runtime keeps it, whose weights are not read here: the kernels are safe whatever the bytes are.
    Ready(Linear),
}

impl TensorSource {
    pub(crate) fn form(&self) -> &'static str {
        match self {
            Self::Float(FloatValues::Int4 { .. }) => "int4 codes with a step for each group of columns",
            Self::Float(_) => "float values",
            Self::Trits { .. } | Self::Packed { .. } => "ternary weights with one scale",
            Self::Integers { .. } => "integers with a step for each row",
            Self::Ready(_) => "a packed linear",
        }
    }

    /// The weights of a ternary or binary linear `[rows, cols]`, row by row, each −1, 0 or 1, and γ: as they are, or quantised from float
    /// values as [`PackedModel::from_parts`](super::PackedModel::from_parts) quantises them.
    ///
    /// # Errors
    /// A [`RuntimeError`] with the name if the tensor is of another form or shape, or holds a weight or a scale that stands for nothing.
    pub fn into_trits(
        self,
        name: &str,
        rows: usize,
        cols: usize,
        mode: LinearMode,
    ) -> Result<(Vec<i8>, f32), RuntimeError> {
        let name = name.to_string();
        let site = LinearSite { name, rows, cols, mode };
        // Every path gives the same bits, so the fastest will do.
        site.trits(Isa::best(), self)
    }
}

/// γ of `w`, as training computes it.
fn absmean(isa: Isa, w: &[f32]) -> f32 {
    let sum = w.chunks(SUM_BLOCK).map(|block| quantize::abs_sum(isa, block)).sum();
    quantize::absmean_scale(sum, w.len())
}

/// The name, the shape and the mode of the linear that is being built.
pub(crate) struct LinearSite {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    pub mode: LinearMode,
}

impl LinearSite {
    fn form_error(&self, expected: &'static str, found: &TensorSource) -> RuntimeError {
        RuntimeError::TensorForm {
            name: self.name.clone(),
            expected,
            found: found.form(),
        }
    }

    /// The linear as the runtime keeps it: quantised from float values, or packed as it came.
    pub(crate) fn build(self, isa: Isa, storage: FloatStorage, source: TensorSource) -> Result<Linear, RuntimeError> {
        if let TensorSource::Ready(linear) = source {
            return self.ready(linear);
        }
        match self.mode {
            LinearMode::F16 => match source {
                // Only embedding and head may be int4: their input is quantised as it takes it.
                TensorSource::Float(values) if !matches!(values, FloatValues::Int4 { .. }) => {
                    check_matrix(&self.name, self.rows, self.cols, &values)?;
                    let values = storage.of_linears().apply(isa, &self.name, self.cols, values)?;
                    Ok(Linear::Float(FloatMatrix {
                        rows: self.rows,
                        cols: self.cols,
                        values,
                    }))
                }
                other => Err(self.form_error("float values", &other)),
            },
            LinearMode::Int8 => self.integers(isa, 8, source),
            LinearMode::Int4 => self.integers(isa, 4, source),
            LinearMode::Ternary | LinearMode::Binary => self.ternary(isa, source),
        }
    }

    /// A linear that only has to be of this mode and shape.
    fn ready(self, linear: Linear) -> Result<Linear, RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        check_len(&self.name, rows, linear.rows())?;
        check_len(&self.name, cols, linear.cols())?;
        match (self.mode, &linear) {
            (
                LinearMode::Ternary | LinearMode::Binary,
                Linear::Ternary {
                    layout,
                    packed,
                    scale,
                    columns,
                    ..
                },
            ) => {
                check_cols(&self.name, cols, t2::MAX_COLS)?;
                check_len(&self.name, layout.bytes(rows, cols), packed.len())?;
                check_scale(&self.name, *scale)?;
                if let Some(columns) = columns {
                    check_len(&self.name, ternary_columns::lines(rows, cols), columns.len())?;
                }
            }
            (LinearMode::Int8 | LinearMode::Int4, Linear::Int8 { values, steps, .. }) => {
                check_cols(&self.name, cols, int8_gemv::MAX_COLS)?;
                check_len(&self.name, rows * cols, values.len())?;
                check_steps(&self.name, rows, steps)?;
            }
            (LinearMode::F16, Linear::Float(matrix)) if !matches!(matrix.values, FloatValues::Int4 { .. }) => {
                check_matrix(&self.name, rows, cols, &matrix.values)?
            }
            _ => return Err(self.form_error("the form of the layer's mode", &TensorSource::Ready(linear))),
        }
        Ok(linear)
    }

    /// Float values to be quantised: as many as the shape says, all finite.
    fn master(&self, isa: Isa, values: FloatValues) -> Result<Vec<f32>, RuntimeError> {
        check_matrix(&self.name, self.rows, self.cols, &values)?;
        let values = values.into_f32();
        let finite = elementwise::all_finite(isa, &values);
        if finite {
            Ok(values)
        } else {
            Err(value_error(&self.name, "finite weights"))
        }
    }

    fn ternary(self, isa: Isa, source: TensorSource) -> Result<Linear, RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        check_cols(&self.name, cols, t2::MAX_COLS)?;
        let (packed, scale) = match source {
            TensorSource::Packed { bytes: packed, scale } => {
                self.check_packed(&packed, scale)?;
                (packed, scale)
            }
            other => {
                let (trits, scale) = self.trits(isa, other)?;
                let mut packed = vec![0; t2::bytes(rows, cols)];
                t2::pack(&trits, rows, cols, &mut packed);
                (packed, scale)
            }
        };
        Ok(Linear::Ternary {
            rows,
            cols,
            layout: Layout::T2,
            packed: packed.into(),
            scale,
            columns: None,
        })
    }

    fn check_packed(&self, packed: &[u8], scale: f32) -> Result<(), RuntimeError> {
        check_len(&self.name, t2::bytes(self.rows, self.cols), packed.len())?;
        check_scale(&self.name, scale)?;
        match t2::is_valid(packed) {
            true => Ok(()),
            false => Err(value_error(&self.name, "codes of -1, 0 and 1 alone")),
        }
    }

    /// The weights row by row, and γ.
    fn trits(&self, isa: Isa, source: TensorSource) -> Result<(Vec<i8>, f32), RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        let (trits, scale) = match source {
            TensorSource::Trits { values, scale } => (values, scale),
            TensorSource::Packed { bytes: packed, scale } => {
                self.check_packed(&packed, scale)?;
                let mut trits = vec![0; rows * cols];
                t2::unpack(&packed, rows, cols, &mut trits);
                (trits, scale)
            }
            TensorSource::Ready(Linear::Ternary {
                rows: r,
                cols: c,
                layout,
                packed,
                scale,
                ..
            }) if (r, c) == (rows, cols) && packed.len() == layout.bytes(rows, cols) => {
                let mut trits = vec![0; rows * cols];
                layout.unpack(&packed, rows, cols, &mut trits);
                (trits, scale)
            }
            TensorSource::Float(values) => {
                let w = self.master(isa, values)?;
                let scale = absmean(isa, &w);
                let mut trits = vec![0; w.len()];
                match self.mode {
                    LinearMode::Binary => quantize::binary_i8(isa, &w, &mut trits),
                    _ => quantize::ternary_i8(isa, &w, scale, &mut trits),
                }
                (trits, scale)
            }
            other => return Err(self.form_error("float values or ternary weights", &other)),
        };
        check_len(&self.name, rows * cols, trits.len())?;
        check_scale(&self.name, scale)?;
        if trits.iter().any(|trit| !(-1..=1).contains(trit)) {
            return Err(value_error(&self.name, "weights of -1, 0 and 1 alone"));
        }
        Ok((trits, scale))
    }

    fn integers(self, isa: Isa, bits: u32, source: TensorSource) -> Result<Linear, RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        check_cols(&self.name, cols, int8_gemv::MAX_COLS)?;
        let (values, steps) = match source {
            TensorSource::Integers { values, steps } => (values, steps),
            TensorSource::Float(values) => {
                let w = self.master(isa, values)?;
                let (mut values, mut steps) = (vec![0; w.len()], vec![0.0; rows]);
                quantize::int_rowwise(isa, &w, cols, bits, &mut values, &mut steps);
                (values, steps)
            }
            other => return Err(self.form_error("float values or integers with a step for each row", &other)),
        };
        check_len(&self.name, rows * cols, values.len())?;
        check_steps(&self.name, rows, &steps)?;
        let most: i8 = if bits == 8 { 127 } else { 7 };
        if values.iter().any(|value| !(-most..=most).contains(value)) {
            return Err(value_error(&self.name, "integers inside the range of the layer's mode"));
        }
        Ok(Linear::Int8 {
            rows,
            cols,
            values: values.into(),
            steps: steps.into(),
        })
    }
}

/// As many float values as were asked for.
fn floats(name: &str, n: usize, source: TensorSource) -> Result<FloatValues, RuntimeError> {
    match source {
        TensorSource::Float(values) => {
            check_len(name, n, values.len())?;
            Ok(values)
        }
        other => Err(RuntimeError::TensorForm {
            name: name.to_string(),
            expected: "float values",
            found: other.form(),
        }),
    }
}

/// The weight of a norm, `[n]`.
pub(crate) fn norm(name: &str, n: usize, source: TensorSource) -> Result<Values<f32>, RuntimeError> {
    let values = floats(name, n, source)?;
    check_finite(name, &values)?;
    Ok(match values {
        FloatValues::F32(values) => values,
        other => other.into_f32().into(),
    })
}

/// Embedding or head, `[rows, cols]`, in the type `storage`.
pub(crate) fn table(
    isa: Isa,
    storage: FloatStorage,
    name: &str,
    (rows, cols): (usize, usize),
    source: TensorSource,
) -> Result<FloatMatrix, RuntimeError> {
    let values = floats(name, rows * cols, source)?;
    check_matrix(name, rows, cols, &values)?;
    let values = storage.apply(isa, name, cols, values)?;
    Ok(FloatMatrix { rows, cols, values })
}
