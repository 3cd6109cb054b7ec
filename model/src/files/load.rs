//! From a model directory to weights in memory, every tensor checked against the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;

use super::{FileError, TensorView, Weights, read_config, unpack_rows};
use crate::config::json::nearest;
use crate::config::{LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};

/// A float tensor as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct MasterTensor {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: Vec<f32>,
    /// The type in the file: f32, f16 or bf16.
    pub stored: Dtype,
}

/// A ternary matrix: `y = γ · (trits · x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedTernary {
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// `[rows, cols]`, each −1, 0 or +1.
    pub trits: Vec<i8>,
    /// γ, by which the integer product is multiplied, whichever convention the file has.
    pub scale: f32,
}

/// A linear layer's weight.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadedLinear {
    /// Float weights, to be quantised by the layer's mode or used as they are.
    Master(MasterTensor),
    /// Weights that were packed.
    Ternary(PackedTernary),
}

/// A model directory in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedModel {
    /// The configuration.
    pub config: ModelConfig,
    /// The blocks' linears by the name of their weight, such as `model.layers.0.mlp.up_proj.weight`.
    pub linears: BTreeMap<String, LoadedLinear>,
    /// Embedding, norms and an untied head by name.
    pub tensors: BTreeMap<String, MasterTensor>,
    /// What the configuration's reader wants said.
    pub notes: Vec<String>,
}

/// Reads a model directory.
///
/// # Errors
/// A [`FileError`] that names the file and the tensor: damaged container, missing, unknown or misshapen tensor, a type
/// that cannot be used, a code or scale that stands for nothing.
pub fn load_model(dir: &Path) -> Result<LoadedModel, FileError> {
    let parsed = read_config(dir)?;
    let weights = Weights::open_dir(dir)?;
    let (linears, tensors) = collect(&parsed.config, &weights, dir)?;
    Ok(LoadedModel {
        config: parsed.config,
        linears,
        tensors,
        notes: parsed.notes,
    })
}

/// Reads a model directory with float weights, as training needs them: every tensor by name.
///
/// # Errors
/// As [`load_model`], and [`FileError::Packed`] when the linears are packed.
pub fn load_master(dir: &Path) -> Result<(ModelConfig, BTreeMap<String, MasterTensor>), FileError> {
    let packed = || FileError::Packed {
        path: dir.to_path_buf(),
    };
    // Asked of the configuration first, so that nothing is unpacked in vain.
    if read_config(dir)?.config.storage != WeightStorage::Master {
        return Err(packed());
    }
    let model = load_model(dir)?;
    let mut all = model.tensors;
    for (name, linear) in model.linears {
        match linear {
            LoadedLinear::Master(tensor) => all.insert(name, tensor),
            LoadedLinear::Ternary(_) => return Err(packed()),
        };
    }
    Ok((model.config, all))
}

type Collected = (BTreeMap<String, LoadedLinear>, BTreeMap<String, MasterTensor>);

fn collect(config: &ModelConfig, weights: &Weights, dir: &Path) -> Result<Collected, FileError> {
    let specs = config.tensors();
    let mut source = Source {
        weights,
        dir,
        specs: &specs,
        unused: weights.names().collect(),
    };
    let (mut linears, mut tensors) = (BTreeMap::new(), BTreeMap::new());
    for spec in &specs {
        let view = source.take(&stored_name(weights, &spec.name))?;
        match spec.kind {
            TensorKind::Linear(LinearMode::Ternary) if config.storage != WeightStorage::Master => {
                let scale_name = scale_name(&spec.name);
                let scale = source.take(&scale_name)?;
                let linear = packed(config, spec, view, &scale_name, scale)?;
                linears.insert(spec.name.clone(), LoadedLinear::Ternary(linear));
            }
            TensorKind::Linear(_) => {
                linears.insert(spec.name.clone(), LoadedLinear::Master(master(spec, view)?));
            }
            _ => {
                tensors.insert(spec.name.clone(), master(spec, view)?);
            }
        }
    }
    let mut unused = source.unused;
    unused.retain(|name| !is_harmless(config, weights, name));
    match unused.first() {
        None => Ok((linears, tensors)),
        Some(name) => Err(FileError::UnknownTensor {
            path: dir.to_path_buf(),
            name: name.to_string(),
            more: unused.len() - 1,
        }),
    }
}

/// The file's tensors, those not asked for yet, and what the configuration will ask for.
struct Source<'w> {
    weights: &'w Weights,
    dir: &'w Path,
    specs: &'w [TensorSpec],
    unused: BTreeSet<&'w str>,
}

impl<'w> Source<'w> {
    fn take(&mut self, name: &str) -> Result<TensorView<'w>, FileError> {
        if let Some(view) = self.weights.get(name) {
            self.unused.remove(name);
            return Ok(view);
        }
        let mut spare = self.unused.clone();
        for spec in self.specs {
            spare.remove(spec.name.as_str());
            spare.remove(scale_name(&spec.name).as_str());
        }
        Err(FileError::MissingTensor {
            path: self.dir.to_path_buf(),
            name: name.to_string(),
            suggestion: nearest(name, spare.into_iter()),
        })
    }
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
    let tied = config.tie_word_embeddings && name == "lm_head.weight";
    tied && weights.get(name) == weights.get("model.embed_tokens.weight")
}

/// The elements as f32, or `None` when the type is no float of 16 or 32 bits.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let halves = || view.bytes.as_chunks::<2>().0.iter();
    match view.dtype {
        Dtype::F32 => Some(
            view.bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        ),
        Dtype::F16 => Some(halves().map(|b| f16::from_le_bytes(*b).to_f32()).collect()),
        Dtype::BF16 => Some(halves().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        _ => None,
    }
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

fn master(spec: &TensorSpec, view: TensorView<'_>) -> Result<MasterTensor, FileError> {
    let Some(data) = floats(&view) else {
        let fix = match view.dtype {
            Dtype::U8 => "packed weights need quantization_config in config.json",
            _ => "convert the model",
        };
        let (name, found) = (spec.name.clone(), format!("{:?}", view.dtype));
        return Err(FileError::Type {
            name,
            expected: "F32, F16 or BF16",
            found,
            fix,
        });
    };
    check_shape(&spec.name, &spec.shape, view.shape)?;
    Ok(MasterTensor {
        shape: spec.shape.clone(),
        data,
        stored: view.dtype,
    })
}

fn packed(
    config: &ModelConfig,
    spec: &TensorSpec,
    view: TensorView<'_>,
    scale_name: &str,
    scale: TensorView<'_>,
) -> Result<PackedTernary, FileError> {
    let name = || spec.name.clone();
    let (rows, cols) = match spec.shape.as_slice() {
        [rows, cols] => (*rows, *cols),
        other => {
            return Err(FileError::Shape {
                name: name(),
                expected: vec![0, 0],
                found: other.to_vec(),
            });
        }
    };
    if view.dtype != Dtype::U8 {
        let fix = "float weights need quantization_mode \"online\" in config.json";
        return Err(FileError::Type {
            name: name(),
            expected: "U8",
            found: format!("{:?}", view.dtype),
            fix,
        });
    }
    if rows % 4 != 0 {
        return Err(FileError::Rows { name: name(), rows });
    }
    check_shape(&spec.name, &[rows / 4, cols], view.shape)?;
    let trits = unpack_rows(view.bytes).map_err(|at| FileError::Code {
        name: name(),
        row: at / cols,
        col: at % cols,
    })?;

    if !scale.shape.is_empty() {
        check_shape(scale_name, &[1], scale.shape)?;
    }
    let Some(stored) = floats(&scale).and_then(|values| values.first().copied()) else {
        let (name, found) = (scale_name.to_string(), format!("{:?}", scale.dtype));
        return Err(FileError::Type {
            name,
            expected: "F32, F16 or BF16",
            found,
            fix: "pack the weights again",
        });
    };
    let gamma = if config.storage == WeightStorage::PackedDivide {
        1.0 / stored
    } else {
        stored
    };
    // Both are asked, because the reciprocal of an infinite scale is a finite 0 and that of a tiny one is infinite.
    if !(stored > 0.0 && stored.is_finite() && gamma > 0.0 && gamma.is_finite()) {
        return Err(FileError::Scale {
            name: scale_name.to_string(),
            value: stored,
        });
    }
    Ok(PackedTernary {
        rows,
        cols,
        trits,
        scale: gamma,
    })
}
