//! From weights in memory to a model directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::Dtype;

use super::directory_write::{DirectoryOptions, save_directory};
use super::{FileError, GenerationConfig, MasterTensor, ModelSource, StoredAs};
use crate::config::json::nearest;
use crate::config::{ModelConfig, TensorSpec};
use crate::runtime::{FloatValues, TensorSource};

/// A float tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct NamedTensor<'a> {
    /// Full name, such as `model.norm.weight`.
    pub name: &'a str,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Values in row-major order.
    pub data: &'a [f32],
}

impl<'a> NamedTensor<'a> {
    /// The tensors that [`load_master`](super::load_master) returns, in the form that the writers take.
    pub fn all(tensors: &'a BTreeMap<String, MasterTensor>) -> Vec<Self> {
        tensors
            .iter()
            .map(|(name, t)| NamedTensor {
                name,
                shape: &t.shape,
                data: &t.data,
            })
            .collect()
    }
}

/// What goes into a model directory beside configuration and weights.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The bytes of `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// Recommended sampling settings.
    pub generation: Option<&'a GenerationConfig>,
}

/// The type of the tensors that are not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HighPrecision {
    /// IEEE half precision: 11 significant bits, largest value 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of f32.
    #[default]
    BF16,
    /// Single precision.
    F32,
}

impl HighPrecision {
    /// The type of the container.
    pub(super) const fn dtype(self) -> Dtype {
        match self {
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::F32 => Dtype::F32,
        }
    }

    /// The word used in `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
        }
    }
}

/// Tensors in memory as a source.
struct Named<'t, 'a> {
    dir: &'t Path,
    config: &'t ModelConfig,
    tensors: BTreeMap<String, &'t NamedTensor<'a>>,
}

impl Named<'_, '_> {
    fn find(&self, name: &str) -> Result<&NamedTensor<'_>, FileError> {
        let missing = || FileError::MissingTensor {
            path: self.dir.to_path_buf(),
            name: name.to_string(),
            suggestion: None,
        };
        self.tensors.get(name).copied().ok_or_else(missing)
    }
}

impl ModelSource for Named<'_, '_> {
    fn path(&self) -> &Path {
        self.dir
    }

    fn config(&self) -> &ModelConfig {
        self.config
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        self.find(name).map(|_| StoredAs::F32)
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let values = self.find(name)?.data.to_vec();
        Ok(TensorSource::Float(FloatValues::F32(values.into())))
    }
}

/// Writes a model directory with f32 weights, which is what training resumes from and `transformers` quantises online.
/// The directory is made if need be; files of these names in it are replaced.
///
/// # Errors
/// A [`FileError`] when the tensors are not those of the configuration, a value is not finite, or the system refuses.
pub fn save_master(
    dir: &Path,
    config: &ModelConfig,
    tensors: &[NamedTensor<'_>],
    extras: Extras<'_>,
) -> Result<(), FileError> {
    save(dir, config, tensors, extras, false, HighPrecision::F32)
}

/// Writes a model directory in Hugging Face's packed layout (`autobitlinear`, offline). Ternary linears are quantised as in
/// ARCHITECTURE.md §2.1 with their scale in f32; everything else is stored in `high_precision`. Without any ternary linear
/// the result is a float model of that type.
///
/// # Errors
/// As [`save_master`]; [`FileError::Rows`] when a ternary linear's rows are no multiple of 4, [`FileError::Value`] when a value
/// does not fit the type.
pub fn save_packed(
    dir: &Path,
    config: &ModelConfig,
    tensors: &[NamedTensor<'_>],
    extras: Extras<'_>,
    high_precision: HighPrecision,
) -> Result<(), FileError> {
    save(dir, config, tensors, extras, true, high_precision)
}

fn save(
    dir: &Path,
    config: &ModelConfig,
    tensors: &[NamedTensor<'_>],
    extras: Extras<'_>,
    pack: bool,
    floats: HighPrecision,
) -> Result<(), FileError> {
    config.validate().map_err(|source| FileError::Config {
        path: dir.join(super::CONFIG_FILE),
        source,
    })?;
    let tensors = matched(dir, config, tensors)?.into_iter();
    let source = Named {
        dir,
        config,
        tensors: tensors.map(|(spec, tensor)| (spec.name, tensor)).collect(),
    };
    let options = DirectoryOptions {
        pack,
        floats: Some(floats),
        // One file, whatever its size.
        shard_bytes: u64::MAX,
    };
    save_directory(dir, &source, &options, extras, &|_, _| ())
}

/// Finds each tensor that the configuration calls for, with its shape; nothing missing, nothing over.
fn matched<'t, 'a>(
    dir: &Path,
    config: &ModelConfig,
    tensors: &'t [NamedTensor<'a>],
) -> Result<Vec<(TensorSpec, &'t NamedTensor<'a>)>, FileError> {
    let mut given: BTreeMap<&str, &NamedTensor<'_>> = tensors.iter().map(|tensor| (tensor.name, tensor)).collect();
    let mut pairs = Vec::new();
    for spec in config.tensors() {
        let Some(tensor) = given.remove(spec.name.as_str()) else {
            let expected: BTreeSet<String> = config.tensors().into_iter().map(|spec| spec.name).collect();
            let suggestion = nearest(
                &spec.name,
                given.keys().copied().filter(|name| !expected.contains(*name)),
            );
            return Err(FileError::MissingTensor {
                path: dir.to_path_buf(),
                name: spec.name,
                suggestion,
            });
        };
        if tensor.shape != spec.shape.as_slice() || tensor.data.len() != spec.len() {
            let found = if tensor.shape == spec.shape {
                vec![tensor.data.len()]
            } else {
                tensor.shape.to_vec()
            };
            return Err(FileError::Shape {
                name: spec.name,
                expected: spec.shape,
                found,
            });
        }
        pairs.push((spec, tensor));
    }
    match given.keys().next() {
        None => Ok(pairs),
        Some(&name) => Err(FileError::UnknownTensor {
            path: dir.to_path_buf(),
            name: name.to_string(),
            more: given.len() - 1,
        }),
    }
}
