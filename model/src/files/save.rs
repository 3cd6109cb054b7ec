//! From weights in memory to a model directory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use half::{bf16, f16};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::quantize::{abs_sum, absmean_scale, ternary_i8};
use safetensors::{Dtype, SafeTensorError, View};

use super::atomic::{replace_file, replace_with};
use super::load::scale_name;
use super::{
    CONFIG_FILE, FileError, GENERATION_FILE, GenerationConfig, HeaderProblem, MasterTensor, TOKENIZER_FILE,
    WEIGHTS_FILE, WEIGHTS_INDEX_FILE, pack_rows,
};
use crate::config::json::nearest;
use crate::config::{LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};

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
    /// The word used in `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
        }
    }
}

/// One tensor of the file being written; floats are converted when their turn comes, so that one converted tensor at a
/// time is in memory.
struct Payload<'a> {
    shape: Vec<usize>,
    content: Content<'a>,
}

/// The file's tensors by name; the container sorts them.
type Payloads<'a> = Vec<(String, Payload<'a>)>;

enum Content<'a> {
    Floats(&'a [f32], HighPrecision),
    Packed(Vec<u8>),
    Scale([u8; 4]),
}

impl View for Payload<'_> {
    fn dtype(&self) -> Dtype {
        match self.content {
            Content::Packed(_) => Dtype::U8,
            Content::Floats(_, HighPrecision::F16) => Dtype::F16,
            Content::Floats(_, HighPrecision::BF16) => Dtype::BF16,
            Content::Floats(_, HighPrecision::F32) | Content::Scale(_) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.content {
            Content::Packed(bytes) => Cow::Borrowed(bytes),
            Content::Scale(bytes) => Cow::Borrowed(bytes),
            Content::Floats(x, HighPrecision::F32) if cfg!(target_endian = "little") => {
                Cow::Borrowed(bytemuck::cast_slice(x))
            }
            Content::Floats(x, HighPrecision::F32) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Content::Floats(x, HighPrecision::F16) => x.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Content::Floats(x, HighPrecision::BF16) => {
                x.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()
            }
        }
    }

    fn data_len(&self) -> usize {
        match &self.content {
            Content::Packed(bytes) => bytes.len(),
            Content::Scale(bytes) => bytes.len(),
            Content::Floats(x, HighPrecision::F32) => x.len() * 4,
            Content::Floats(x, _) => x.len() * 2,
        }
    }
}

/// Writes a model directory with f32 weights, which is what training resumes from and `transformers` quantises online.
/// The directory is made if need be; files of these names in it are replaced.
///
/// # Errors
/// A [`FileError`] when the tensors are not those of the configuration, or the system refuses.
pub fn save_master<'a>(
    dir: &Path,
    config: &ModelConfig,
    tensors: &[NamedTensor<'a>],
    extras: Extras<'_>,
) -> Result<(), FileError> {
    let config = ModelConfig {
        storage: WeightStorage::Master,
        ..config.clone()
    };
    let float = |spec: TensorSpec, tensor: NamedTensor<'a>, out: &mut Payloads<'a>| {
        let content = Content::Floats(tensor.data, HighPrecision::F32);
        out.push((
            spec.name,
            Payload {
                shape: spec.shape,
                content,
            },
        ));
        Ok(())
    };
    write_model(dir, &config, "float32", tensors, extras, float)
}

/// Writes a model directory in Hugging Face's packed layout (`autobitlinear`, offline). Ternary linears are quantised as in
/// ARCHITECTURE.md §2.1 with their scale in f32; everything else is stored in `high_precision`. Without any ternary linear
/// the result is a float model of that type.
///
/// # Errors
/// As [`save_master`]; [`FileError::Rows`] when a ternary linear's rows are no multiple of 4, [`FileError::Value`] when a value is
/// not finite or does not fit the type.
pub fn save_packed<'a>(
    dir: &Path,
    config: &ModelConfig,
    tensors: &[NamedTensor<'a>],
    extras: Extras<'_>,
    high_precision: HighPrecision,
) -> Result<(), FileError> {
    let ternary = config.uses_mode(LinearMode::Ternary);
    let storage = if ternary {
        WeightStorage::PackedMultiply
    } else {
        WeightStorage::Master
    };
    let config = ModelConfig {
        storage,
        ..config.clone()
    };
    let isa = Isa::best();
    let pack = |spec: TensorSpec, tensor: NamedTensor<'a>, out: &mut Payloads<'a>| {
        if spec.kind == TensorKind::Linear(LinearMode::Ternary) {
            check_values(&tensor, HighPrecision::F32)?;
            let (packed, gamma) = quantise(isa, &tensor)?;
            let shape = vec![spec.shape[0] / 4, spec.shape[1]];
            let scale = Content::Scale(gamma.to_le_bytes());
            out.push((
                scale_name(&spec.name),
                Payload {
                    shape: vec![1],
                    content: scale,
                },
            ));
            out.push((
                spec.name,
                Payload {
                    shape,
                    content: Content::Packed(packed),
                },
            ));
        } else {
            check_values(&tensor, high_precision)?;
            let content = Content::Floats(tensor.data, high_precision);
            out.push((
                spec.name,
                Payload {
                    shape: spec.shape,
                    content,
                },
            ));
        }
        Ok(())
    };
    write_model(dir, &config, high_precision.name(), tensors, extras, pack)
}

/// The packed trits of a matrix and its γ.
fn quantise(isa: Isa, tensor: &NamedTensor<'_>) -> Result<(Vec<u8>, f32), FileError> {
    let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
    let gamma = absmean_scale(abs_sum(isa, tensor.data), tensor.data.len());
    let mut trits = vec![0i8; tensor.data.len()];
    ternary_i8(isa, tensor.data, gamma, &mut trits);
    match pack_rows(&trits, rows, cols) {
        Some(packed) => Ok((packed, gamma)),
        None => Err(FileError::Rows {
            name: tensor.name.to_string(),
            rows,
        }),
    }
}

fn check_values(tensor: &NamedTensor<'_>, precision: HighPrecision) -> Result<(), FileError> {
    let fits = |v: f32| match precision {
        HighPrecision::F16 => f16::from_f32(v).is_finite(),
        HighPrecision::BF16 => bf16::from_f32(v).is_finite(),
        HighPrecision::F32 => v.is_finite(),
    };
    match tensor.data.iter().position(|&v| !fits(v)) {
        None => Ok(()),
        Some(index) => Err(FileError::Value {
            name: tensor.name.to_string(),
            index,
            value: tensor.data[index],
            dtype: precision.name(),
        }),
    }
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

fn write_model<'a>(
    dir: &Path,
    config: &ModelConfig,
    dtype: &str,
    tensors: &[NamedTensor<'a>],
    extras: Extras<'_>,
    convert: impl Fn(TensorSpec, NamedTensor<'a>, &mut Payloads<'a>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let refused = |source| FileError::Config {
        path: dir.join(CONFIG_FILE),
        source,
    };
    config.validate().map_err(refused)?;
    let mut payloads = Vec::new();
    for (spec, tensor) in matched(dir, config, tensors)? {
        convert(spec, *tensor, &mut payloads)?;
    }
    let made = |source| FileError::Io {
        action: "create",
        path: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(made)?;

    let path = dir.join(WEIGHTS_FILE);
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    replace_file(&path, |temporary| {
        safetensors::serialize_to_file(payloads, Some(metadata), temporary).map_err(|error| match error {
            SafeTensorError::IoError(source) => FileError::Io {
                action: "write",
                path: path.clone(),
                source,
            },
            other => FileError::Header {
                path: path.clone(),
                problem: HeaderProblem::Unwritable {
                    message: other.to_string(),
                },
            },
        })
    })?;
    // Shards of an earlier model would otherwise stand beside the new file.
    let index = dir.join(WEIGHTS_INDEX_FILE);
    if index.exists() {
        std::fs::remove_file(&index).map_err(|source| FileError::Io {
            action: "remove",
            path: index,
            source,
        })?;
    }
    if let Some(bytes) = extras.tokenizer {
        replace_with(&dir.join(TOKENIZER_FILE), bytes)?;
    }
    if let Some(generation) = extras.generation {
        replace_with(&dir.join(GENERATION_FILE), generation.to_json().as_bytes())?;
    }
    // Last, because a directory without it is not taken for a model.
    replace_with(&dir.join(CONFIG_FILE), config.to_json_with_dtype(dtype).as_bytes())
}
