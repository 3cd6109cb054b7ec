//! From a tensor in one of the forms of a file to the form that the runtime keeps.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, elementwise, int8_gemv, quantize, t2, ternary_columns};

use super::RuntimeError;
use super::check::{
    check_cols, check_finite, check_int4, check_len, check_matrix, check_scale, check_steps, value_error,
};
use super::floats::{FloatMatrix, FloatValues};
use super::storage::{FloatStorage, int4};
use super::values::Values;
use super::weights::Linear;
use crate::config::LinearMode;

/// Weights whose magnitudes are summed before the sum goes on: the training side cuts there too, so that both find the
/// same γ to the last bit.
const SUM_BLOCK: usize = 1 << 16;

/// A tensor in one of the forms in which a file may hold it.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorSource {
    /// Float values, row by row, or what stands for them. What is in another form than its mode's is quantised from them.
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
    /// A linear in mode `int8`.
    Integers {
        /// `[rows, cols]`, within ±127.
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
            Self::Float(FloatValues::Trits { .. }) => "ternary weights with one scale",
            Self::Float(_) => "float values",
            Self::Trits { .. } | Self::Packed { .. } => "ternary weights with one scale",
            Self::Integers { .. } => "integers with a step for each row",
            Self::Ready(_) => "a packed linear",
        }
    }

    /// The values, or what integers, trits and their steps stand for, as f32.
    ///
    /// # Errors
    /// The tensor itself, if it is a packed linear.
    pub fn into_floats(self) -> Result<FloatValues, Self> {
        Ok(match self {
            Self::Float(values) => values,
            Self::Trits { values, scale } => {
                FloatValues::F32(values.into_iter().map(|trit| f32::from(trit) * scale).collect())
            }
            Self::Integers { values, steps } => {
                let (values, steps) = (values.into(), steps.into());
                FloatValues::F32(FloatValues::Int8 { values, steps }.into_f32().into())
            }
            packed => return Err(packed),
        })
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
                TensorSource::Float(values) if is_plain(&values) => {
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
            LinearMode::Int8 => self.int8(isa, source),
            LinearMode::Int4 => self.int4(isa, source),
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
            (LinearMode::Int8, Linear::Int8 { values, steps, .. }) => {
                check_cols(&self.name, cols, int8_gemv::MAX_COLS)?;
                check_len(&self.name, rows * cols, values.len())?;
                check_steps(&self.name, rows, steps)?;
            }
            (LinearMode::Int4, Linear::Int4 { codes, steps, .. }) => {
                check_int4(&self.name, rows, cols, codes, steps)?;
            }
            (LinearMode::F16, Linear::Float(matrix)) if is_plain(&matrix.values) => {
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
        let layout = match self.mode {
            LinearMode::Binary => Layout::B1,
            _ => Layout::T2,
        };
        let (packed, scale) = match source {
            TensorSource::Packed { bytes: packed, scale } if layout == Layout::T2 => {
                self.check_packed(&packed, scale)?;
                (packed, scale)
            }
            other => {
                let (trits, scale) = self.trits(isa, other)?;
                let mut packed = vec![0; layout.bytes(rows, cols)];
                layout.pack(&trits, rows, cols, &mut packed);
                (packed, scale)
            }
        };
        Ok(Linear::Ternary {
            rows,
            cols,
            layout,
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
        let binary = self.mode == LinearMode::Binary;
        if trits
            .iter()
            .any(|trit| !(-1..=1).contains(trit) || (binary && *trit == 0))
        {
            let expected = match binary {
                true => "weights of -1 and 1 alone, for mode binary has no 0",
                false => "weights of -1, 0 and 1 alone",
            };
            return Err(value_error(&self.name, expected));
        }
        Ok((trits, scale))
    }

    fn int4(self, isa: Isa, source: TensorSource) -> Result<Linear, RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        let values = match source {
            TensorSource::Float(values @ FloatValues::Int4 { .. }) => {
                check_matrix(&self.name, rows, cols, &values)?;
                values
            }
            TensorSource::Float(values) => int4(isa, &self.name, cols, &self.master(isa, values)?)?,
            other => return Err(self.form_error("float values or int4 codes with a step for each group", &other)),
        };
        match values {
            FloatValues::Int4 { codes, steps, .. } => Ok(Linear::Int4 {
                rows,
                cols,
                codes,
                steps,
            }),
            other => Err(self.form_error("int4 codes", &TensorSource::Float(other))),
        }
    }

    fn int8(self, isa: Isa, source: TensorSource) -> Result<Linear, RuntimeError> {
        let (rows, cols) = (self.rows, self.cols);
        check_cols(&self.name, cols, int8_gemv::MAX_COLS)?;
        let (values, steps) = match source {
            TensorSource::Integers { values, steps } => (values, steps),
            TensorSource::Float(values) => {
                let w = self.master(isa, values)?;
                let (mut values, mut steps) = (vec![0; w.len()], vec![0.0; rows]);
                quantize::int8_rowwise(isa, &w, cols, &mut values, &mut steps);
                (values, steps)
            }
            other => return Err(self.form_error("float values or integers with a step for each row", &other)),
        };
        check_len(&self.name, rows * cols, values.len())?;
        check_steps(&self.name, rows, &steps)?;
        if values.contains(&i8::MIN) {
            return Err(value_error(&self.name, "integers within ±127"));
        }
        Ok(Linear::Int8 {
            rows,
            cols,
            values: values.into(),
            steps: steps.into(),
        })
    }
}

/// Whether a linear in mode `f16` may be kept so: of what stands for floats, only a row of bytes and its step is multiplied by floats.
fn is_plain(values: &FloatValues) -> bool {
    !matches!(values, FloatValues::Int4 { .. } | FloatValues::Trits { .. })
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

/// Embedding or head, `[rows, cols]`, in its mode: one in high precision in the type `storage`.
pub(crate) fn table(
    isa: Isa,
    (mode, storage): (LinearMode, FloatStorage),
    name: &str,
    (rows, cols): (usize, usize),
    source: TensorSource,
) -> Result<FloatMatrix, RuntimeError> {
    let values = match (mode, source) {
        (LinearMode::Ternary | LinearMode::Binary, source) => trits(isa, mode, name, (rows, cols), source)?,
        (_, source) => {
            let values = floats(name, rows * cols, source)?;
            check_matrix(name, rows, cols, &values)?;
            storage.of_table(mode).apply(isa, name, cols, values)?
        }
    };
    Ok(FloatMatrix { rows, cols, values })
}

/// A table of −1, 0 and 1: as it comes if it is one in a layout of its mode, else quantised as a linear is.
fn trits(
    isa: Isa,
    mode: LinearMode,
    name: &str,
    (rows, cols): (usize, usize),
    source: TensorSource,
) -> Result<FloatValues, RuntimeError> {
    let source = match source {
        TensorSource::Float(values @ FloatValues::Trits { .. }) => {
            check_matrix(name, rows, cols, &values)?;
            return Ok(values);
        }
        other => other,
    };
    let name = name.to_string();
    match (LinearSite { name, rows, cols, mode }).ternary(isa, source)? {
        Linear::Ternary {
            layout, packed, scale, ..
        } => Ok(FloatValues::Trits {
            layout,
            packed,
            scale,
            rows,
            cols,
        }),
        other => Err(RuntimeError::TensorForm {
            name: String::new(),
            expected: "ternary weights",
            found: TensorSource::Ready(other).form(),
        }),
    }
}
