//! From any source of tensors to a GGUF file, one tensor in memory at a time.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use half::f16;

use super::blocks::{i2_s, tq1_0, tq2_0};
use super::encode::floats;
use super::error::GgufError;
use super::graph::Graph;
use super::keys;
use super::rows::in_file_order;
use super::types::TensorType;
use super::write::{Metadata, Planned, head};
use super::{GENERAL_ARCHITECTURE, names, vocabulary};
use crate::config::{LinearKind, LinearMode, ModelConfig, TensorKind, TensorSpec};
use crate::files::{FileError, GenerationConfig, ModelSource, StoredAs, replace_file};
use crate::runtime::TensorSource;
use crate::tokenizer::Tokenizer;

/// What a GGUF file is to hold besides the weights, and in which types it holds them.
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufOptions<'a> {
    /// The graph; `None` for the one that computes the model.
    pub graph: Option<Graph>,
    /// The type of ternary linears, one of [`LINEAR_TYPES`]; `None` for `TQ2_0`.
    pub linears: Option<TensorType>,
    /// The type of embedding and head; `None` for the one they have, and `F16` where they are integers.
    pub head: Option<TensorType>,
    /// `general.name`.
    pub name: Option<&'a str>,
    /// Recommended sampling settings.
    pub generation: Option<&'a GenerationConfig>,
    /// The tokenizer.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The chat template.
    pub chat_template: Option<&'a str>,
}

/// The types that ternary linears may be written in.
pub const LINEAR_TYPES: [TensorType; 4] = [TensorType::Tq1_0, TensorType::Tq2_0, TensorType::I2S, TensorType::F16];

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufWritten {
    /// The graph that the file names.
    pub graph: Graph,
    /// What the user should know: which programs run the file, and what it does not say.
    pub notes: Vec<String>,
}

/// A tensor of the model and what becomes of it.
struct Item {
    spec: TensorSpec,
    kind: TensorType,
    /// Where its rows are reordered: the values of a head.
    reorder: Option<usize>,
    /// A ternary linear, and its place among all linears.
    ternary: Option<(LinearMode, usize)>,
    /// Whether the blocks have scale 1 and an f32 tensor follows.
    scale_tensor: bool,
}

/// Writes a model as GGUF, under a temporary name that is renamed once it is on disk. The same model and options give the same bytes. No more
/// than one tensor is in memory.
///
/// `progress(done, total)` is told in bytes.
///
/// # Errors
/// [`GgufError::Inexpressible`] if the graph does not compute the model or a type does not take it, before anything is written; those of the
/// source; [`FileError::Io`].
pub fn save_gguf(
    path: &Path,
    source: &dyn ModelSource,
    options: &GgufOptions<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<GgufWritten, FileError> {
    let refused = |source| FileError::Gguf {
        path: path.to_path_buf(),
        source: Box::new(source),
    };
    let config = source.config();
    let graph = match options.graph {
        Some(graph) => graph.check(config).map(|()| graph),
        None => Graph::of(config),
    };
    let export = Export {
        path,
        source,
        config,
        graph: graph.map_err(refused)?,
        linears: options.linears.unwrap_or(TensorType::Tq2_0),
        options,
    };
    let items = export.items()?;
    let mut metadata = export.metadata();
    let mut notes = export.notes();
    let texts = vocabulary::Texts {
        config,
        generation: options.generation,
        tokenizer: options.tokenizer,
        chat_template: options.chat_template,
    };
    notes.extend(vocabulary::write(&mut metadata, &texts).map_err(refused)?);
    let mut scales = vec![
        0.0f32;
        items
            .iter()
            .filter(|item| matches!(item.spec.kind, TensorKind::Linear(_)))
            .count()
    ];
    let exact = (!export.graph.has_scale_tensors() && items.iter().any(|item| item.ternary.is_some()))
        .then(|| metadata.f32s(keys::LINEAR_SCALES, &scales));
    let tensors = export.planned(&items);
    let head = head(&metadata, &tensors);
    let total = tensors.iter().map(|t| (t.bytes + t.padding()) as u64).sum::<u64>() + head.len() as u64;

    replace_file(path, |temporary| {
        let io = |source| FileError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        };
        let mut out = BufWriter::with_capacity(1 << 20, File::create(temporary).map_err(io)?);
        out.write_all(&head).map_err(io)?;
        let mut done = head.len() as u64;
        let mut planned = tensors.iter();
        for item in &items {
            for bytes in export.data(item, &mut scales)? {
                let Some(plan) = planned.next() else { break };
                debug_assert_eq!(plan.bytes, bytes.len(), "{}", plan.name);
                out.write_all(&bytes).map_err(io)?;
                out.write_all(&[0; super::DEFAULT_ALIGNMENT][..plan.padding()])
                    .map_err(io)?;
                done += (plan.bytes + plan.padding()) as u64;
                progress(done, total);
            }
        }
        if let Some(at) = exact {
            out.seek(SeekFrom::Start(at)).map_err(io)?;
            for scale in &scales {
                out.write_all(&scale.to_le_bytes()).map_err(io)?;
            }
        }
        out.flush().map_err(io)
    })?;
    Ok(GgufWritten {
        graph: export.graph,
        notes,
    })
}

struct Export<'a> {
    path: &'a Path,
    source: &'a dyn ModelSource,
    config: &'a ModelConfig,
    graph: Graph,
    linears: TensorType,
    options: &'a GgufOptions<'a>,
}

impl Export<'_> {
    fn refuse(&self, reason: String) -> FileError {
        FileError::Gguf {
            path: self.path.to_path_buf(),
            source: Box::new(GgufError::Inexpressible {
                graph: self.graph.name().to_string(),
                reason,
            }),
        }
    }

    /// The model's tensors in the order of a forward pass, each with its type.
    fn items(&self) -> Result<Vec<Item>, FileError> {
        if !LINEAR_TYPES.contains(&self.linears) {
            let types = LINEAR_TYPES.map(TensorType::name).join(", ");
            return Err(self.refuse(format!(
                "ternary linears are written as {types}, not as {}",
                self.linears.name()
            )));
        }
        let mut items = Vec::new();
        let mut linears = 0;
        for spec in self.config.tensors() {
            let mut item = Item {
                kind: self.stored(&spec.name)?,
                reorder: None,
                ternary: None,
                scale_tensor: false,
                spec,
            };
            match item.spec.kind {
                TensorKind::Norm => item.kind = TensorType::F32,
                TensorKind::Embedding | TensorKind::Head => item.kind = self.options.head.unwrap_or(item.kind),
                TensorKind::Linear(mode) => {
                    self.linear(&mut item, mode, linears)?;
                    linears += 1;
                }
            }
            let cols = item.spec.shape.last().copied().unwrap_or_default();
            if !cols.is_multiple_of(item.kind.block_len()) {
                return Err(self.refuse(format!(
                    "{} has rows of {cols} values, and {} has blocks of {}; choose another type",
                    item.spec.name,
                    item.kind.name(),
                    item.kind.block_len()
                )));
            }
            items.push(item);
        }
        Ok(items)
    }

    /// The float type that a tensor has now; F16 of one that is not float.
    fn stored(&self, name: &str) -> Result<TensorType, FileError> {
        Ok(match self.source.stored(name)? {
            StoredAs::F32 => TensorType::F32,
            StoredAs::Bf16 => TensorType::Bf16,
            StoredAs::F16 | StoredAs::Trits | StoredAs::Int8 | StoredAs::Int4 => TensorType::F16,
        })
    }

    fn linear(&self, item: &mut Item, mode: LinearMode, index: usize) -> Result<(), FileError> {
        let is_key = matches!(names::linear_kind(&item.spec.name), Some(LinearKind::Q | LinearKind::K));
        item.reorder = (self.graph.interleaves() && is_key).then_some(self.config.head_dim);
        match mode {
            LinearMode::Ternary | LinearMode::Binary => {
                item.kind = self.linears;
                item.ternary = Some((mode, index));
                item.scale_tensor = self.graph.has_scale_tensors() && self.linears != TensorType::I2S;
            }
            LinearMode::F16 => {}
            LinearMode::Int8 | LinearMode::Int4 => {
                return Err(self.refuse(format!(
                    "{} is in mode {}, for which the format has no type",
                    item.spec.name,
                    mode.name()
                )));
            }
        }
        Ok(())
    }

    /// What is written for the items: the tensors and the scales.
    fn planned(&self, items: &[Item]) -> Vec<Planned> {
        let mut tensors = Vec::new();
        for item in items {
            let Some(name) = names::to_ggml(&item.spec.name) else {
                continue;
            };
            let kind = item.kind;
            let scale = item.scale_tensor.then(|| Planned {
                name: name.replace(".weight", ".scale"),
                kind: TensorType::F32,
                dims: vec![1],
                bytes: 4,
            });
            tensors.push(Planned {
                name,
                kind,
                dims: item.spec.shape.iter().rev().copied().collect(),
                bytes: kind.bytes(item.spec.len()).unwrap_or_default(),
            });
            tensors.extend(scale);
        }
        tensors
    }

    fn metadata(&self) -> Metadata {
        let mut out = Metadata::default();
        let config = self.config;
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        out.text(GENERAL_ARCHITECTURE, self.graph.name());
        out.text("general.type", "model");
        if let Some(name) = self.options.name {
            out.text("general.name", name);
        }
        out.u32("general.file_type", file_type(self.linears));
        out.u32("general.quantization_version", 2);
        let key = |suffix: &str| format!("{}.{suffix}", self.graph.name());
        out.u32(&key(keys::VOCAB_SIZE), size(config.vocab_size));
        out.u32(&key(keys::CONTEXT_LENGTH), size(config.max_position_embeddings));
        out.u32(&key(keys::EMBEDDING_LENGTH), size(config.hidden_size));
        out.u32(&key(keys::BLOCK_COUNT), size(config.num_hidden_layers));
        out.u32(&key(keys::FEED_FORWARD_LENGTH), size(config.intermediate_size));
        out.u32(&key(keys::HEAD_COUNT), size(config.num_attention_heads));
        out.u32(&key(keys::HEAD_COUNT_KV), size(config.num_key_value_heads));
        out.f32(&key(keys::EPSILON), config.rms_norm_eps);
        out.u32(&key(keys::ROPE_DIMENSION), size(config.head_dim));
        out.f32(&key(keys::ROPE_BASE), config.rope_theta as f32);
        if config.query_size() != config.hidden_size {
            out.u32(&key(keys::KEY_LENGTH), size(config.head_dim));
            out.u32(&key(keys::VALUE_LENGTH), size(config.head_dim));
        }
        if let Some(generation) = self.options.generation {
            out.text(keys::GENERATION, &generation.to_json());
        }
        out
    }

    /// The bytes of an item's tensors; γ of a ternary one is put into `scales`.
    fn data(&self, item: &Item, scales: &mut [f32]) -> Result<Vec<Vec<u8>>, FileError> {
        let name = &item.spec.name;
        let (rows, cols) = match item.spec.shape.as_slice() {
            [rows, cols] => (*rows, *cols),
            other => (1, other.iter().product()),
        };
        let source = self.source.tensor(name)?;
        let Some((mode, index)) = item.ternary else {
            let TensorSource::Float(values) = source else {
                return Err(self.form(name));
            };
            if values.len() != item.spec.len() {
                return Err(self.form(name));
            }
            return Ok(vec![floats(item.kind, item.reorder, values, cols).map_err(|at| {
                FileError::Value {
                    name: name.clone(),
                    index: at.0,
                    value: at.1,
                    dtype: item.kind.name(),
                }
            })?]);
        };
        let (mut trits, scale) = source
            .into_trits(name, rows, cols, mode)
            .map_err(|source| FileError::Weights {
                path: self.source.path().to_path_buf(),
                source,
            })?;
        if let Some(head_dim) = item.reorder {
            trits = in_file_order(&trits, cols, head_dim);
        }
        if let Some(place) = scales.get_mut(index) {
            *place = scale;
        }
        let in_blocks = match item.scale_tensor {
            true => f16::ONE,
            false => f16::from_f32(scale),
        };
        if item.kind != TensorType::I2S && !(in_blocks.is_finite() && in_blocks > f16::ZERO) {
            return Err(FileError::Value {
                name: name.clone(),
                index: 0,
                value: scale,
                dtype: "the f16 scale of a block",
            });
        }
        let mut out = Vec::with_capacity(item.kind.bytes(trits.len()).unwrap_or_default());
        match item.kind {
            TensorType::Tq1_0 => tq1_0::encode(&trits, in_blocks, &mut out),
            TensorType::Tq2_0 => tq2_0::encode(&trits, in_blocks, &mut out),
            TensorType::I2S => i2_s::encode(&trits, scale, &mut out),
            _ => {
                let codes = [-in_blocks, f16::ZERO, in_blocks].map(f16::to_le_bytes);
                out.extend(trits.iter().flat_map(|&trit| codes[(trit + 1) as usize]));
            }
        }
        let mut all = vec![out];
        if item.scale_tensor {
            all.push(scale.to_le_bytes().to_vec());
        }
        Ok(all)
    }

    /// A tensor came in another form than its source said.
    fn form(&self, name: &str) -> FileError {
        FileError::Type {
            name: name.to_string(),
            expected: "float values of the shape in the configuration",
            found: "another form".to_string(),
            fix: "use the model that this one was made from",
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let runs = match (self.graph, self.linears) {
            (Graph::BitnetB158 | Graph::Bitnet25, _) => {
                Some("bitnet.cpp and ik_llama.cpp run this file; llama.cpp knows no graph with gated ReLU²")
            }
            (_, TensorType::I2S) => Some("bitnet.cpp runs this file; llama.cpp does not know the type I2_S"),
            _ => None,
        };
        notes.extend(runs.map(str::to_string));
        if f64::from(self.config.rope_theta as f32) != self.config.rope_theta {
            notes.push(format!(
                "rope_theta {} is {} in the file, which has it as f32",
                self.config.rope_theta, self.config.rope_theta as f32
            ));
        }
        let mut tables = self
            .config
            .tensors()
            .into_iter()
            .filter(|spec| matches!(spec.kind, TensorKind::Embedding | TensorKind::Head));
        let integers = |spec: TensorSpec| {
            matches!(
                self.source.stored(&spec.name),
                Ok(StoredAs::Int8 | StoredAs::Int4 | StoredAs::Trits)
            )
        };
        if self.options.head.is_none() && tables.any(integers) {
            notes.push("integers or trits of embedding or head are f16 in the file, rounded".to_string());
        }
        if self.config.uses_mode(LinearMode::Binary) {
            notes.push("linears in mode binary are ternary in the file: the same weights".to_string());
        }
        notes
    }
}

/// llama.cpp's number for a file whose linears are mostly of this type; 40 is bitnet.cpp's.
const fn file_type(linears: TensorType) -> u32 {
    match linears {
        TensorType::Tq1_0 => 36,
        TensorType::Tq2_0 => 37,
        TensorType::I2S => 40,
        _ => 1,
    }
}
