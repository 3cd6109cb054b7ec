//! A file as a source of tensors, in the forms that every format has: trits, integers, floats.

use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use super::{OneFile, SCALES};
use crate::config::json::nearest;
use crate::config::{LinearMode, ModelConfig, TensorKind, TensorSpec};
use crate::files::{FileError, ModelSource, PartProblem, StoredAs};
use crate::image::parts::PartsOf;
use crate::runtime::{FloatValues, TensorSource};

impl ModelSource for OneFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn notes(&self) -> &[String] {
        self.notes()
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        let spec = self.spec(name)?;
        Ok(match spec.kind {
            TensorKind::Norm => StoredAs::F32,
            _ if spec.mode(self.config()).is_ternary() => StoredAs::Trits,
            _ => self.float_form(name),
        })
    }

    /// As the trait has it: a ternary or binary matrix as [`TensorSource::Trits`], a linear in mode `int8` as
    /// [`TensorSource::Integers`], everything else as [`TensorSource::Float`], all in memory of their own.
    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let spec = self.spec(name)?;
        let parts = PartsOf::new(&self.image);
        let failed = |error| self.error(error);
        let given = match (spec.mode(self.config()), spec.shape.as_slice()) {
            (mode, &[rows, cols]) if mode.is_ternary() => {
                let (layout, packed) = parts.trits(name, mode, rows, cols).map_err(failed)?;
                if !layout.is_valid(&packed, rows, cols) {
                    return Err(self.refuse(&format!("{name}.{}", layout.name()), PartProblem::Code));
                }
                let mut values = vec![0; rows * cols];
                layout.unpack(&packed, rows, cols, &mut values);
                let scale = self.scale_of(name)?;
                TensorSource::Trits { values, scale }
            }
            (LinearMode::Int8, &[rows, cols]) if matches!(spec.kind, TensorKind::Linear(_)) => {
                let (values, steps) = parts.int8(name, rows, cols).map_err(failed)?;
                TensorSource::Integers {
                    values: values.to_vec(),
                    steps: steps.to_vec(),
                }
            }
            // The types and shapes first, then copies, of which no page stays behind.
            (_, shape) => {
                parts.floats(name, shape).map_err(failed)?;
                TensorSource::Float(self.floats(name, shape.last().copied().unwrap_or_default()))
            }
        };
        self.image.weights.give_pages_back();
        Ok(given)
    }
}

impl OneFile {
    fn spec(&self, name: &str) -> Result<TensorSpec, FileError> {
        let specs = self.config().tensors();
        match specs.iter().find(|spec| spec.name == name) {
            Some(spec) => Ok(spec.clone()),
            None => Err(FileError::MissingTensor {
                path: self.path.clone(),
                name: name.to_string(),
                suggestion: nearest(name, specs.iter().map(|spec| spec.name.as_str())),
            }),
        }
    }

    /// In which form a matrix that is not of trits lies.
    fn float_form(&self, name: &str) -> StoredAs {
        let there = |suffix: &str| self.image.weights.get(&format!("{name}.{suffix}")).is_some();
        match self.image.weights.get(name).map(|view| view.dtype) {
            Some(Dtype::F16) => StoredAs::F16,
            Some(Dtype::BF16) => StoredAs::Bf16,
            None if there("i8") => StoredAs::Int8,
            None if there("i4") => StoredAs::Int4,
            _ => StoredAs::F32,
        }
    }

    /// Copies of the values of such a tensor, whose parts have been checked; rows are of `cols` values.
    fn floats(&self, name: &str, cols: usize) -> FloatValues {
        let weights = &self.image.weights;
        let of = |suffix: &str| format!("{name}.{suffix}");
        match self.float_form(name) {
            StoredAs::F16 => FloatValues::F16(weights.copy(name, f16::from_le_bytes).unwrap_or_default().into()),
            StoredAs::Bf16 => FloatValues::Bf16(weights.copy(name, bf16::from_le_bytes).unwrap_or_default().into()),
            StoredAs::Int8 => FloatValues::Int8 {
                values: weights.copy(&of("i8"), i8::from_le_bytes).unwrap_or_default().into(),
                steps: weights
                    .copy(&of("steps"), f32::from_le_bytes)
                    .unwrap_or_default()
                    .into(),
            },
            StoredAs::Int4 => FloatValues::Int4 {
                codes: weights.copy(&of("i4"), u8::from_le_bytes).unwrap_or_default().into(),
                steps: weights
                    .copy(&of("steps"), f16::from_le_bytes)
                    .unwrap_or_default()
                    .into(),
                cols,
            },
            _ => FloatValues::F32(weights.copy(name, f32::from_le_bytes).unwrap_or_default().into()),
        }
    }

    /// γ of a ternary or binary matrix.
    pub(super) fn scale_of(&self, name: &str) -> Result<f32, FileError> {
        let names = self.config().scaled();
        let scales = PartsOf::new(&self.image).values::<f32>(SCALES, Dtype::F32, &[names.len()]);
        let scales = scales.map_err(|error| self.error(error))?;
        let at = names.iter().position(|other| other == name);
        match at.and_then(|at| scales.get(at).copied()) {
            Some(scale) if scale.is_finite() && scale > 0.0 => Ok(scale),
            found => {
                let problem = PartProblem::Scale {
                    linear: name.to_string(),
                    value: found.unwrap_or(f32::NAN),
                };
                Err(self.refuse(SCALES, problem))
            }
        }
    }
}
