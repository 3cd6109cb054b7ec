//! From any source to a Hugging Face model directory, one tensor in memory at a time.
//!
//! Types and shapes of what is written follow from the configuration and from the form in which the source holds each tensor, so the header of
//! each file is known before the first value is read. Large models go into shards, as `transformers` cuts them.

use std::borrow::Cow;
use std::path::Path;

use bytemuck::cast_slice;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::atomic::{replace_file, replace_with};
use super::directory::scale_name;
use super::stream::{Plan, TensorFile};
use super::{
    CONFIG_FILE, Extras, FileError, GENERATION_FILE, HighPrecision, ModelSource, StoredAs, TOKENIZER_FILE,
    WEIGHTS_FILE, WEIGHTS_INDEX_FILE, pack_rows,
};
use crate::config::{LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};
use crate::runtime::{FloatValues, TensorSource};

/// The header's length is a multiple of this, as the `safetensors` crate has it.
const ALIGNMENT: usize = 8;

/// How a model is to lie in a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryOptions {
    /// Whether ternary linears that the source holds as floats are packed (`autobitlinear`, offline). Those that are packed stay packed.
    pub pack: bool,
    /// The type of everything that is not packed; `None`: each tensor's own, integers with steps as f32.
    pub floats: Option<HighPrecision>,
    /// Bytes of tensors from which on a further file is begun.
    pub shard_bytes: u64,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            pack: true,
            floats: None,
            shard_bytes: Self::SHARD_BYTES,
        }
    }
}

impl DirectoryOptions {
    /// Five gigabytes, at which `transformers` cuts by default.
    pub const SHARD_BYTES: u64 = 5_000_000_000;
}

/// A tensor and the type in which it will lie; `None`: packed.
struct Item {
    spec: TensorSpec,
    floats: Option<HighPrecision>,
}

impl Item {
    fn bytes(&self) -> u64 {
        match self.floats {
            None => self.spec.len() as u64 / 4 + 4,
            Some(HighPrecision::F32) => 4 * self.spec.len() as u64,
            Some(_) => 2 * self.spec.len() as u64,
        }
    }

    /// The tensors that this is in the file.
    fn tensors(&self) -> Vec<(String, Dtype, Vec<usize>)> {
        let (name, shape) = (self.spec.name.clone(), self.spec.shape.clone());
        match self.floats {
            Some(precision) => vec![(name, precision.dtype(), shape)],
            None => {
                let rows = shape.first().map_or(0, |rows| rows / 4);
                let packed = std::iter::once(rows).chain(shape.into_iter().skip(1)).collect();
                vec![(scale_name(&name), Dtype::F32, vec![1]), (name, Dtype::U8, packed)]
            }
        }
    }
}

/// Writes a model directory. It is made if need be; files of these names in it are replaced, `config.json` last, because a directory without it is
/// not taken for a model. The same model, options and extras give the same bytes.
///
/// A float tensor keeps its type unless `options` say otherwise, but a norm that is f32 goes into the type of the embedding if all its values are in
/// that too: a one-file model holds every norm as f32. `dtype` in `config.json` is the type of the embedding.
/// `progress(done, total)` is told in bytes.
///
/// # Errors
/// Those of the source; [`FileError::Rows`] when a ternary linear's rows are no multiple of 4; [`FileError::Value`] when a value is not finite or does
/// not fit the type; [`FileError::Weights`] when the source gives a ternary linear in another form; [`FileError::Io`].
pub fn save_directory(
    dir: &Path,
    source: &dyn ModelSource,
    options: &DirectoryOptions,
    extras: Extras<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), FileError> {
    let items = items(source, options)?;
    let packed = items.iter().any(|item| item.floats.is_none());
    let config = ModelConfig {
        storage: if packed {
            WeightStorage::PackedMultiply
        } else {
            WeightStorage::Master
        },
        ..source.config().clone()
    };
    config.validate().map_err(|source| FileError::Config {
        path: dir.join(CONFIG_FILE),
        source,
    })?;
    let made = |source| FileError::Io {
        action: "create",
        path: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(made)?;

    let (bytes, shards) = shards(&items, options.shard_bytes);
    let done = std::cell::Cell::new(0);
    let told = |bytes_more: u64| {
        done.set(done.get() + bytes_more);
        progress(done.get(), bytes);
    };
    let mut map = Map::new();
    for (at, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => WEIGHTS_FILE.to_string(),
            n => format!("model-{:05}-of-{n:05}.safetensors", at + 1),
        };
        for tensor in shard.iter().flat_map(Item::tensors) {
            map.insert(tensor.0, Value::from(name.clone()));
        }
        write_file(&dir.join(&name), source, shard, &told)?;
    }
    // Of the two ways to hold the weights the earlier model's would otherwise stand beside ours.
    let stale = match shards.len() {
        1 => WEIGHTS_INDEX_FILE,
        _ => {
            map.sort_keys();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": map });
            let text = serde_json::to_string_pretty(&index).unwrap_or_default() + "\n";
            replace_with(&dir.join(WEIGHTS_INDEX_FILE), text.as_bytes())?;
            WEIGHTS_FILE
        }
    };
    remove(&dir.join(stale))?;
    if let Some(bytes) = extras.tokenizer {
        replace_with(&dir.join(TOKENIZER_FILE), bytes)?;
    }
    if let Some(generation) = extras.generation {
        replace_with(&dir.join(GENERATION_FILE), generation.to_json().as_bytes())?;
    }
    let embedding = items.iter().find(|item| item.spec.kind == TensorKind::Embedding);
    let dtype = embedding.and_then(|item| item.floats).unwrap_or(HighPrecision::F32);
    replace_with(
        &dir.join(CONFIG_FILE),
        config.to_json_with_dtype(dtype.name()).as_bytes(),
    )
}

fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(FileError::Io {
            action: "remove",
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Every tensor of the model, in the order of the forward pass, and the type in which it will lie.
fn items(source: &dyn ModelSource, options: &DirectoryOptions) -> Result<Vec<Item>, FileError> {
    let specs = source.config().tensors();
    let ternary = |spec: &TensorSpec| spec.kind == TensorKind::Linear(LinearMode::Ternary);
    // The configuration has one word for all of them.
    let mut pack = options.pack;
    for spec in specs.iter().filter(|spec| ternary(spec)) {
        pack |= source.stored(&spec.name)? == StoredAs::Trits;
    }
    let mut table = HighPrecision::F32;
    let mut items = Vec::with_capacity(specs.len());
    for spec in specs {
        let own = own_type(source.stored(&spec.name)?);
        let floats = match spec.kind {
            _ if pack && ternary(&spec) => {
                if let Some(&rows) = spec.shape.first().filter(|rows| *rows % 4 != 0) {
                    return Err(FileError::Rows { name: spec.name, rows });
                }
                None
            }
            TensorKind::Norm if options.floats.is_none() && own == HighPrecision::F32 => {
                Some(narrowed(source, &spec, table)?)
            }
            _ => Some(options.floats.unwrap_or(own)),
        };
        if spec.kind == TensorKind::Embedding {
            table = floats.unwrap_or(HighPrecision::F32);
        }
        items.push(Item { spec, floats });
    }
    Ok(items)
}

/// The type of a tensor that is to keep its own.
fn own_type(stored: StoredAs) -> HighPrecision {
    match stored {
        StoredAs::F16 => HighPrecision::F16,
        StoredAs::Bf16 => HighPrecision::BF16,
        StoredAs::F32 | StoredAs::Trits | StoredAs::Int8 | StoredAs::Int4 => HighPrecision::F32,
    }
}

/// `wanted` for a norm whose values are all of that type, otherwise f32.
fn narrowed(source: &dyn ModelSource, spec: &TensorSpec, wanted: HighPrecision) -> Result<HighPrecision, FileError> {
    let values = floats(spec, source.tensor(&spec.name)?)?.into_f32();
    let exact = match wanted {
        HighPrecision::F32 => true,
        HighPrecision::F16 => values.iter().all(|v| f16::from_f32(*v).to_f32() == *v),
        HighPrecision::BF16 => values.iter().all(|v| bf16::from_f32(*v).to_f32() == *v),
    };
    Ok(if exact { wanted } else { HighPrecision::F32 })
}

/// Cuts the tensors into files, and says how many bytes there are in all.
fn shards(items: &[Item], shard_bytes: u64) -> (u64, Vec<&[Item]>) {
    let (mut shards, mut all, mut size, mut first) = (Vec::new(), 0, 0, 0);
    for (at, item) in items.iter().enumerate() {
        if size > 0 && size + item.bytes() > shard_bytes {
            shards.push(&items[first..at]);
            (size, first) = (0, at);
        }
        size += item.bytes();
        all += item.bytes();
    }
    shards.push(&items[first..]);
    (all, shards)
}

/// Writes one file. Its tensors lie in the order of the `safetensors` crate: the widest types first, then by name.
fn write_file(path: &Path, source: &dyn ModelSource, items: &[Item], told: &dyn Fn(u64)) -> Result<(), FileError> {
    let mut tensors: Vec<_> = items.iter().flat_map(Item::tensors).collect();
    tensors.sort_by(|(a, wide, _), (b, other, _)| other.cmp(wide).then_with(|| a.cmp(b)));
    let mut plan = Plan::default();
    tensors
        .into_iter()
        .for_each(|(name, dtype, shape)| plan.push(name, dtype, shape));
    let metadata = Map::from_iter([("format".to_string(), Value::from("pt"))]);
    let header = plan.header(metadata, ALIGNMENT);
    replace_file(path, |temporary| {
        let mut file = TensorFile::create(temporary, path, &plan, &header, told)?;
        for item in items {
            let (spec, given) = (&item.spec, source.tensor(&item.spec.name)?);
            match item.floats {
                Some(precision) => {
                    let values = converted(&spec.name, precision, floats(spec, given)?)?;
                    file.put(&spec.name, &le_bytes(&values))?;
                }
                None => {
                    let (packed, gamma) = packed(source.path(), spec, given)?;
                    file.put(&scale_name(&spec.name), &gamma.to_le_bytes())?;
                    file.put(&spec.name, &packed)?;
                }
            }
        }
        file.finish().map(|_| ())
    })
}

/// The packed trits of a ternary linear, and its γ.
fn packed(path: &Path, spec: &TensorSpec, given: TensorSource) -> Result<(Vec<u8>, f32), FileError> {
    let &[rows, cols] = spec.shape.as_slice() else {
        return Err(FileError::Shape {
            name: spec.name.clone(),
            expected: vec![0, 0],
            found: spec.shape.clone(),
        });
    };
    let given = match given {
        // Here the error can say at which place a value is not finite.
        TensorSource::Float(values) => TensorSource::Float(converted(&spec.name, HighPrecision::F32, values)?),
        other => other,
    };
    let (trits, gamma) = given
        .into_trits(&spec.name, rows, cols, LinearMode::Ternary)
        .map_err(|source| FileError::Weights {
            path: path.to_path_buf(),
            source,
        })?;
    match pack_rows(&trits, rows, cols) {
        Some(packed) => Ok((packed, gamma)),
        None => Err(FileError::Rows {
            name: spec.name.clone(),
            rows,
        }),
    }
}

/// The values of a tensor that is not packed: those of integers times their steps.
fn floats(spec: &TensorSpec, given: TensorSource) -> Result<FloatValues, FileError> {
    given.into_floats().map_err(|other| FileError::Type {
        name: spec.name.clone(),
        expected: "float values",
        found: other.form().to_string(),
        fix: "use the model that these weights were made from",
    })
}

/// The values in a type, all of them finite there.
fn converted(name: &str, precision: HighPrecision, values: FloatValues) -> Result<FloatValues, FileError> {
    Ok(match (precision, values) {
        (HighPrecision::F16, FloatValues::F16(values)) => {
            let at = values.iter().position(|v| !v.is_finite());
            refuse(name, at.map(|at| (at, values[at].to_f32())), precision)?;
            FloatValues::F16(values)
        }
        (HighPrecision::BF16, FloatValues::Bf16(values)) => {
            let at = values.iter().position(|v| !v.is_finite());
            refuse(name, at.map(|at| (at, values[at].to_f32())), precision)?;
            FloatValues::Bf16(values)
        }
        (precision, values) => {
            let values = values.into_f32();
            check_values(name, &values, precision)?;
            match precision {
                HighPrecision::F32 => FloatValues::F32(values.into()),
                HighPrecision::F16 => FloatValues::F16(values.into_iter().map(f16::from_f32).collect()),
                HighPrecision::BF16 => FloatValues::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            }
        }
    })
}

/// The little-endian bytes of float values.
fn le_bytes(values: &FloatValues) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        match values {
            FloatValues::F32(values) => return Cow::Borrowed(cast_slice(values)),
            FloatValues::F16(values) => return Cow::Borrowed(cast_slice(values)),
            FloatValues::Bf16(values) => return Cow::Borrowed(cast_slice(values)),
            FloatValues::Int8 { .. } | FloatValues::Int4 { .. } | FloatValues::Trits { .. } => {}
        }
    }
    match values {
        FloatValues::F16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        FloatValues::Bf16(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => { other.clone().into_f32().into_iter() }
            .flat_map(f32::to_le_bytes)
            .collect(),
    }
}

/// Refuses values that are not finite in the type.
fn check_values(name: &str, values: &[f32], precision: HighPrecision) -> Result<(), FileError> {
    let fits = |v: f32| match precision {
        HighPrecision::F16 => f16::from_f32(v).is_finite(),
        HighPrecision::BF16 => bf16::from_f32(v).is_finite(),
        HighPrecision::F32 => v.is_finite(),
    };
    let at = values.iter().position(|&v| !fits(v));
    refuse(name, at.map(|at| (at, values[at])), precision)
}

fn refuse(name: &str, found: Option<(usize, f32)>, precision: HighPrecision) -> Result<(), FileError> {
    match found {
        None => Ok(()),
        Some((index, value)) => Err(FileError::Value {
            name: name.to_string(),
            index,
            value,
            dtype: precision.name(),
        }),
    }
}
