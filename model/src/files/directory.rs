//! A Hugging Face model directory, its tensors read one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;

use super::source::{ModelSource, StoredAs};
use super::{FileError, TensorView, Weights, read_config, unpack_rows};
use crate::config::json::{Parsed, nearest};
use crate::config::{LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};
use crate::runtime::{FloatValues, TensorSource};

/// Bytes of two tensors that are compared at a time.
const PIECE: usize = 8 << 20;

/// A model directory whose configuration fits its tensors: each is there, with the shape that the configuration implies and a type that
/// can be used, and none is left over. No value has been read but those of a tied head that is saved all the same.
#[derive(Debug)]
pub struct HfDirectory {
    path: PathBuf,
    parsed: Parsed,
    weights: Weights,
    places: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    shape: Vec<usize>,
    /// The name in the file, which is another in the 1bitLLM reproductions.
    name: String,
    /// The name of its scale, if it is packed.
    scale: Option<String>,
    stored: StoredAs,
}

impl HfDirectory {
    /// Maps the weights of a directory and checks their names, shapes and types against its `config.json`.
    ///
    /// # Errors
    /// A [`FileError`] that names the file and the tensor: damaged container, missing, unknown or misshapen tensor, a type that cannot be
    /// used.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        let parsed = read_config(dir)?;
        let weights = Weights::open_dir(dir)?;
        let specs = parsed.config.tensors();
        let mut unused: BTreeSet<&str> = weights.names().collect();
        let mut places = BTreeMap::new();
        for spec in &specs {
            let name = stored_name(&weights, &spec.name);
            let view = take(&weights, &mut unused, &specs, dir, &name)?;
            let packed = matches!(spec.kind, TensorKind::Linear(LinearMode::Ternary))
                && parsed.config.storage != WeightStorage::Master;
            let (scale, stored) = match packed {
                true => {
                    let scale = scale_name(&spec.name);
                    check_packed(spec, view)?;
                    check_scale(&scale, take(&weights, &mut unused, &specs, dir, &scale)?)?;
                    (Some(scale), StoredAs::Trits)
                }
                false => (None, check_float(spec, view)?),
            };
            let shape = spec.shape.clone();
            let place = Place {
                shape,
                name,
                scale,
                stored,
            };
            places.insert(spec.name.clone(), place);
        }
        unused.retain(|name| !is_harmless(&parsed.config, &weights, name));
        if let Some(name) = unused.first() {
            return Err(FileError::UnknownTensor {
                path: dir.to_path_buf(),
                name: name.to_string(),
                more: unused.len() - 1,
            });
        }
        Ok(Self {
            path: dir.to_path_buf(),
            parsed,
            weights,
            places,
        })
    }

    fn place(&self, name: &str) -> Result<&Place, FileError> {
        self.places.get(name).ok_or_else(|| FileError::MissingTensor {
            path: self.path.clone(),
            name: name.to_string(),
            suggestion: nearest(name, self.places.keys().map(String::as_str)),
        })
    }

    /// The float values of the tensor that the file calls `name`, if they are floats of 16 or 32 bits.
    fn floats(&self, name: &str) -> Option<FloatValues> {
        Some(match self.weights.get(name)?.dtype {
            Dtype::F32 => FloatValues::F32(self.weights.copy(name, f32::from_le_bytes)?.into()),
            Dtype::F16 => FloatValues::F16(self.weights.copy(name, f16::from_le_bytes)?.into()),
            Dtype::BF16 => FloatValues::Bf16(self.weights.copy(name, bf16::from_le_bytes)?.into()),
            _ => return None,
        })
    }

    fn trits(&self, name: &str, place: &Place, scale: &str) -> Result<TensorSource, FileError> {
        let cols = place.shape.last().copied().unwrap_or_default().max(1);
        let packed = self.weights.get(&place.name).map_or(&[][..], |view| view.bytes);
        let values = unpack_rows(packed).map_err(|at| FileError::Code {
            name: name.to_string(),
            row: at / cols,
            col: at % cols,
        })?;
        self.weights.give_pages_back();
        let stored = self.floats(scale).map(FloatValues::into_f32).unwrap_or_default();
        let stored = stored.first().copied().unwrap_or_default();
        let gamma = match self.parsed.config.storage {
            WeightStorage::PackedDivide => 1.0 / stored,
            _ => stored,
        };
        // Both are asked, because the reciprocal of an infinite scale is a finite 0 and that of a tiny one is infinite.
        if !(stored > 0.0 && stored.is_finite() && gamma > 0.0 && gamma.is_finite()) {
            return Err(FileError::Scale {
                name: scale.to_string(),
                value: stored,
            });
        }
        Ok(TensorSource::Trits { values, scale: gamma })
    }
}

impl ModelSource for HfDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &ModelConfig {
        &self.parsed.config
    }

    fn notes(&self) -> &[String] {
        &self.parsed.notes
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(self.place(name)?.stored)
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let place = self.place(name)?;
        match &place.scale {
            Some(scale) => self.trits(name, place, scale),
            // Names and types were checked when the directory was opened.
            None => Ok(TensorSource::Float(
                self.floats(&place.name).unwrap_or(FloatValues::F32(Vec::new().into())),
            )),
        }
    }
}

/// The tensor of this name, which is then no longer unused.
fn take<'w>(
    weights: &'w Weights,
    unused: &mut BTreeSet<&'w str>,
    specs: &[TensorSpec],
    dir: &Path,
    name: &str,
) -> Result<TensorView<'w>, FileError> {
    if let Some(view) = weights.get(name) {
        unused.remove(name);
        return Ok(view);
    }
    let mut spare = unused.clone();
    for spec in specs {
        spare.remove(spec.name.as_str());
        spare.remove(scale_name(&spec.name).as_str());
    }
    Err(FileError::MissingTensor {
        path: dir.to_path_buf(),
        name: name.to_string(),
        suggestion: nearest(name, spare.into_iter()),
    })
}

/// `….weight` → `….weight_scale`.
pub(super) fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// The name under which a tensor may be stored: the 1bitLLM reproductions call the sub-norms otherwise.
fn stored_name(weights: &Weights, name: &str) -> String {
    for (ours, theirs) in [("attn_sub_norm", "inner_attn_ln"), ("ffn_sub_norm", "ffn_layernorm")] {
        let other = name.replace(ours, theirs);
        if other != name && weights.get(name).is_none() && weights.get(&other).is_some() {
            return other;
        }
    }
    name.to_string()
}

/// Tensors that say nothing new: rotary tables of older files, and a head saved again although it is tied.
fn is_harmless(config: &ModelConfig, weights: &Weights, name: &str) -> bool {
    if name.ends_with(".rotary_emb.inv_freq") {
        return true;
    }
    config.tie_word_embeddings && name == "lm_head.weight" && are_equal(weights, name, "model.embed_tokens.weight")
}

fn are_equal(weights: &Weights, a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (weights.get(a), weights.get(b)) else {
        return false;
    };
    let equal = |(a, b): (&[u8], &[u8])| {
        let equal = a == b;
        weights.give_pages_back();
        equal
    };
    a.dtype == b.dtype && a.shape == b.shape && a.bytes.chunks(PIECE).zip(b.bytes.chunks(PIECE)).all(equal)
}

fn check_shape(name: &str, expected: &[usize], found: &[usize]) -> Result<(), FileError> {
    if expected == found {
        return Ok(());
    }
    Err(FileError::Shape {
        name: name.to_string(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

/// The form of float types, and `None` for the others.
fn float_form(dtype: Dtype) -> Option<StoredAs> {
    match dtype {
        Dtype::F32 => Some(StoredAs::F32),
        Dtype::F16 => Some(StoredAs::F16),
        Dtype::BF16 => Some(StoredAs::Bf16),
        _ => None,
    }
}

fn wrong_type(name: &str, expected: &'static str, found: Dtype, fix: &'static str) -> FileError {
    FileError::Type {
        name: name.to_string(),
        expected,
        found: format!("{found:?}"),
        fix,
    }
}

fn check_float(spec: &TensorSpec, view: TensorView<'_>) -> Result<StoredAs, FileError> {
    let Some(stored) = float_form(view.dtype) else {
        let fix = match view.dtype {
            Dtype::U8 => "packed weights need quantization_config in config.json",
            _ => "convert the model",
        };
        return Err(wrong_type(&spec.name, "F32, F16 or BF16", view.dtype, fix));
    };
    check_shape(&spec.name, &spec.shape, view.shape)?;
    Ok(stored)
}

fn check_packed(spec: &TensorSpec, view: TensorView<'_>) -> Result<(), FileError> {
    let name = || spec.name.clone();
    let [rows, cols] = *spec.shape.as_slice() else {
        return Err(FileError::Shape {
            name: name(),
            expected: vec![0, 0],
            found: spec.shape.clone(),
        });
    };
    if view.dtype != Dtype::U8 {
        let fix = "float weights need quantization_mode \"online\" in config.json";
        return Err(wrong_type(&spec.name, "U8", view.dtype, fix));
    }
    if rows % 4 != 0 {
        return Err(FileError::Rows { name: name(), rows });
    }
    check_shape(&spec.name, &[rows / 4, cols], view.shape)
}

fn check_scale(name: &str, view: TensorView<'_>) -> Result<(), FileError> {
    if !view.shape.is_empty() {
        check_shape(name, &[1], view.shape)?;
    }
    match float_form(view.dtype) {
        Some(_) => Ok(()),
        None => Err(wrong_type(
            name,
            "F32, F16 or BF16",
            view.dtype,
            "pack the weights again",
        )),
    }
}
