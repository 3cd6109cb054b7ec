//! A file as a source of tensors, in the forms that every format has: trits, integers, floats.

use std::path::Path;

use half::{bf16, f16};
use onebit_kernels_cpu::ternary::Layout;
use safetensors::Dtype;

use super::{OneFile, SCALES};
use crate::config::json::nearest;
use crate::config::{LinearMode, LinearShape, ModelConfig, TensorKind, TensorSpec};
use crate::files::{FileError, ModelSource, PartProblem, StoredAs};
use crate::image::parts::{PartsOf, layouts};
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
            TensorKind::Linear(LinearMode::Ternary | LinearMode::Binary) => StoredAs::Trits,
            TensorKind::Linear(LinearMode::Int8 | LinearMode::Int4) => StoredAs::Int8,
            _ => self.float_form(name),
        })
    }

    /// As the trait has it: a ternary or binary linear as [`TensorSource::Trits`], one in mode `int8` or `int4` as
    /// [`TensorSource::Integers`], everything else as [`TensorSource::Float`], all in memory of their own.
    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let spec = self.spec(name)?;
        let parts = PartsOf::new(&self.image);
        let failed = |error| self.error(error);
        let given = match (spec.kind, spec.shape.as_slice()) {
            (TensorKind::Linear(mode @ (LinearMode::Ternary | LinearMode::Binary)), &[rows, cols]) => {
                let layout = self.layout_of(name, mode);
                let stored = format!("{name}.{}", layout.name());
                let group = layout.group_bytes(cols);
                let shape = [layout.bytes(rows, cols) / group.max(1), group];
                let packed = parts.values::<u8>(&stored, Dtype::U8, &shape).map_err(failed)?;
                if !layout.is_valid(&packed, rows, cols) {
                    return Err(self.refuse(&stored, PartProblem::Code));
                }
                let mut values = vec![0; rows * cols];
                layout.unpack(&packed, rows, cols, &mut values);
                let scale = self.scale_of(name)?;
                TensorSource::Trits { values, scale }
            }
            (TensorKind::Linear(LinearMode::Int8 | LinearMode::Int4), &[rows, cols]) => {
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

    /// The layout of a ternary or binary linear; of one that is in none, the first.
    fn layout_of(&self, name: &str, mode: LinearMode) -> Layout {
        let there = |layout: &Layout| self.image.weights.get(&format!("{name}.{}", layout.name())).is_some();
        layouts(mode).iter().copied().find(there).unwrap_or_default()
    }

    /// In which form a table, a norm or a linear in mode `f16` lies.
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

    /// γ of a ternary or binary linear: the scales lie in the order of the forward pass.
    pub(super) fn scale_of(&self, name: &str) -> Result<f32, FileError> {
        let ternary = |linear: &LinearShape| matches!(linear.mode, LinearMode::Ternary | LinearMode::Binary);
        let config = self.config();
        let linears = (0..config.num_hidden_layers).flat_map(|layer| config.linears(layer).filter(ternary));
        let names: Vec<String> = linears.map(|linear| linear.name).collect();
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
