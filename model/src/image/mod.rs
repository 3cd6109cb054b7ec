//! `*.1bit`: a whole model in one piece of memory, a mapped file or a board's flash, run from there as it lies. `no_std + alloc`.
//!
//! The container is safetensors, so any reader of that format lists and opens it. Tensors lie as the runtime keeps them, in the order
//! in which a forward pass reads them, each at a multiple of 64 bytes of the file; opening converts nothing, copies nothing and reads no
//! weight.
//!
//! | tensor | type and shape | what |
//! |---|---|---|
//! | `onebit.scales` | F32 `[n]` | γ of each ternary or binary linear, in the order of the forward pass |
//! | `….layernorm.weight`, … | F32 `[n]` | norms |
//! | `….X_proj.weight.t2`, `….weight.t5` | U8 `[⌈rows/4⌉, bytes of a group]` | a ternary or binary linear in that layout |
//! | `….down_proj.weight.columns` | U8 `[cols, 64 · ⌈rows/256⌉]` | the same weights once more, [by columns](onebit_kernels_cpu::ternary_columns), of a model whose activation is ReLU²; each or none |
//! | `….X_proj.weight.i8`, `….weight.steps` | I8 `[rows, cols]`, F32 `[rows]` | a linear in mode `int8` or `int4` |
//! | `….X_proj.weight` | F16, BF16 or F32 `[rows, cols]` | a linear in mode `f16` |
//! | `model.embed_tokens.weight`, `lm_head.weight` | F16, BF16 or F32 `[vocab, hidden]` | embedding, and head where it is not tied; or as int8 under `….weight.i8` and `….weight.steps`; or as int4, below |
//! | `….weight.i4`, `….weight.steps` | U8 `[vocab, bytes of a row]`, F16 `[vocab, steps of a row]` | embedding or head as [int4](onebit_kernels_cpu::int4_gemv): 64 bytes and four steps for each 128 columns |
//! | `onebit.sketch.planeN`, `onebit.sketch.figuresN` | U8 `[⌈vocab/4⌉, bytes of a group]`, F32 `[vocab, 3]` | the [sketch of the head](crate::runtime::HeadSketch), its planes 1 and 2; all four or none |
//! | `onebit.tokenizer.json`, `onebit.tokenizer.packed` | U8 `[n]` | the tokenizer; and the same ready to be mapped (`Tokenizer::pack`) |
//! | `onebit.padding.N` | U8 `[n]`, zeros | up to the next multiple of 64, because the format allows no holes |
//!
//! The small texts are entries of `__metadata__`, where every tool for the format shows them: `format` (`1bit`), `version`, `config` and
//! `generation_config` (the JSON of a model directory), `chat_template`, `bos_token`, `eos_token`, and `checksum`. The tokenizer is a
//! tensor because it is large and, packed, binary: it is mapped and looked up in, never parsed whole.
//!
//! **What is checked when.** Opening checks the header, every name, type, shape and position, and the scales: all that the safety and
//! the meaning of the model rest on, and a few kilobytes. It does not read the weights, for that is what it is for: the kernels are safe
//! whatever the codes are (`kernels-cpu/src/t2`, `t5`), so a damaged weight is a wrong answer and no fault. Of a sketch the figures are read, twelve bytes a
//! row and plane, and of an int4 head the steps. Of columns the length is checked, and any bytes are columns: code 3, which no weight has, counts as 2 on every path, and columns that are not those
//! of the rows are a wrong answer, for single tokens alone. `OneFile::verify` reads all of it: the checksum, which covers header and data, every code, every float; and
//! it makes the sketch and the columns once more.
//!
//! A name or an entry that this version does not know is refused, so that a file of a later version is never run without a part that it
//! needs. A further optional part is a line in `PARTS` and in `files::Parts`.

mod container;
pub(crate) mod generation;
pub(crate) mod object;
pub(crate) mod parts;
mod problem;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use container::{TensorView, Weights};
pub use generation::GenerationConfig;
#[cfg(feature = "std")]
pub(crate) use problem::hint;
pub use problem::{HeaderProblem, ImageError, PartProblem};
use safetensors::Dtype;

use crate::bpe::{BpeError, BpeTokenizer};
use crate::config::json::Parsed;
use crate::config::{LinearMode, LinearShape, ModelConfig, TensorKind, TensorSpec, json};
use crate::runtime::{FloatStorage, FloatValues, PackedModel, RuntimeError, SharedBytes, TensorSource, Values};
use parts::{PartsOf, Refused};

/// Every tensor begins at a multiple of this many bytes of the file: a cache line, and the widest register.
pub(crate) const ALIGNMENT: usize = 64;
/// `format` in `__metadata__`.
pub(crate) const FORMAT: &str = "1bit";
/// `version` in `__metadata__`.
pub(crate) const VERSION: &str = "1";
/// The entries that `__metadata__` may have.
pub(crate) const ENTRIES: [&str; 8] = [
    "format",
    "version",
    "config",
    "generation_config",
    "chat_template",
    "bos_token",
    "eos_token",
    "checksum",
];
/// γ of every ternary and binary linear.
pub(crate) const SCALES: &str = "onebit.scales";
/// Follows the name of a linear whose weights lie there by columns.
pub(crate) const COLUMNS: &str = ".columns";
pub(crate) const TOKENIZER_JSON: &str = "onebit.tokenizer.json";
pub(crate) const TOKENIZER_PACKED: &str = "onebit.tokenizer.packed";
/// The planes of the head's sketch, and their figures.
pub(crate) const SKETCH: [(&str, &str); 2] = [
    ("onebit.sketch.plane1", "onebit.sketch.figures1"),
    ("onebit.sketch.plane2", "onebit.sketch.figures2"),
];
/// The tensors that a file may have beside those of its model.
pub(crate) const PARTS: [&str; 2] = [TOKENIZER_JSON, TOKENIZER_PACKED];
/// The names of tensors that only fill up.
pub(crate) const PADDING: &str = "onebit.padding.";

/// The bytes of a file, as `include_bytes!` has them, at a multiple of 64 bytes of memory: in flash, where a model is run from.
///
/// ```ignore
/// static MODEL: &[u8] = onebit_model::include_aligned!("../models/stories-mcu/stories-mcu.1bit");
/// let image = Image::new(SharedBytes::from_static(MODEL))?;
/// ```
#[macro_export]
macro_rules! include_aligned {
    ($path:expr) => {{
        #[repr(C, align(64))]
        struct Aligned<B: ?Sized>(B);
        static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &ALIGNED.0
    }};
}

/// A one-file model in memory, its header read and its texts checked.
#[derive(Debug)]
pub struct Image {
    pub(crate) weights: Weights,
    parsed: Parsed,
    generation: Option<GenerationConfig>,
}

impl Image {
    /// Reads the header of a file that lies in `bytes`, which weights are looked up in from then on.
    ///
    /// # Errors
    /// [`ImageError::Header`] for a damaged container, [`ImageError::Part`] or [`ImageError::Config`] for one of something else, or of a later version.
    pub fn new(bytes: SharedBytes) -> Result<Self, ImageError> {
        Self::of(Weights::of_bytes(bytes).map_err(ImageError::Header)?)
    }

    pub(crate) fn of(weights: Weights) -> Result<Self, ImageError> {
        let entry = |name: &str| weights.metadata().get(name).map(String::as_str);
        for (name, expected) in [("format", FORMAT), ("version", VERSION)] {
            if entry(name) != Some(expected) {
                let found = entry(name).map_or("nothing".to_string(), |text| format!("{text:.40?}"));
                return Err(refused(name, PartProblem::Format { expected, found }));
            }
        }
        if let Some(unknown) = weights.metadata().keys().find(|key| !ENTRIES.contains(&key.as_str())) {
            return Err(refused(unknown, PartProblem::Unknown { version: VERSION }));
        }
        let config = entry("config").ok_or_else(|| refused("config", PartProblem::Missing { suggestion: None }))?;
        let parsed = json::parse(config).map_err(ImageError::Config)?;
        let generation = entry("generation_config")
            .map(generation::parse)
            .transpose()
            .map_err(|message| refused("generation_config", PartProblem::Content { message }))?;
        Ok(Self {
            weights,
            parsed,
            generation,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.parsed.config
    }

    /// What the configuration's reader wants said.
    pub fn notes(&self) -> &[String] {
        &self.parsed.notes
    }

    /// Recommended sampling settings.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        self.generation.as_ref()
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        self.weights.first_file().map_or(&[], SharedBytes::bytes)
    }

    /// The names and bytes of the tensors beside the weights: scales, tokenizer, sketch of the head, weights once more by columns.
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        let part = |name: &'static str| Some((name, self.weights.get(name)?.bytes.len()));
        let sketch = SKETCH.into_iter().flat_map(|(plane, figures)| [plane, figures]);
        let columns = self.weights.names().filter(|name| name.ends_with(COLUMNS));
        let columns = columns.filter_map(|name| Some((name, self.weights.get(name)?.bytes.len())));
        { core::iter::once(SCALES).chain(PARTS).chain(sketch).filter_map(part) }.chain(columns)
    }

    /// The bytes of the model's `tokenizer.json`, if it has one.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        Some(self.weights.get(TOKENIZER_JSON)?.bytes)
    }

    /// The model, its weights where they lie.
    ///
    /// # Errors
    /// [`ImageError::Part`] that names the tensor: missing, unknown, of another type or shape, misplaced; a scale that is none.
    pub fn model(&self) -> Result<PackedModel, ImageError> {
        self.model_as(FloatStorage::Stored)
    }

    /// As [`model`](Self::model), with embedding and head in another type than the file's: they are then copies. The sketch of the head is
    /// left out where the head is another.
    ///
    /// # Errors
    /// As [`model`](Self::model), and for values that cannot be in that type.
    pub fn model_as(&self, storage: FloatStorage) -> Result<PackedModel, ImageError> {
        let config = self.config();
        let linears: Vec<LinearShape> = (0..config.num_hidden_layers)
            .flat_map(|layer| config.linears(layer).collect::<Vec<_>>())
            .collect();
        let specs: Vec<TensorSpec> = config.tensors();
        let parts = PartsOf::new(self);
        let scaled = config.scaled();
        let scales: Values<f32> = parts.values(SCALES, Dtype::F32, &[scaled.len()])?;
        let scale_of = |name: &str| {
            let at = scaled.iter().position(|scaled| scaled == name);
            at.and_then(|at| scales.get(at)).copied().unwrap_or_default()
        };
        // Both lists are in the order in which the model asks.
        let mut linears = linears.iter().peekable();
        let specs: BTreeMap<&str, &TensorSpec> = specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let mut model = PackedModel::from_parts_as_they_are(config.clone(), storage, |name| {
            let shape = linears.next_if(|linear| linear.name == name);
            let Some(shape) = shape.filter(|linear| linear.mode != LinearMode::F16) else {
                let Some(spec) = specs.get(name) else {
                    return Err(Refused::Runtime(RuntimeError::TensorForm {
                        name: name.to_string(),
                        expected: "a tensor of the configuration",
                        found: "none",
                    }));
                };
                let floats = match spec.kind {
                    TensorKind::Norm => FloatValues::F32(parts.values(name, Dtype::F32, &spec.shape)?),
                    TensorKind::Embedding => parts.table(spec, config.embedding_mode, scale_of(name))?,
                    TensorKind::Head => parts.table(spec, config.head_mode, scale_of(name))?,
                    TensorKind::Linear(_) => parts.floats(name, &spec.shape)?,
                };
                return Ok(TensorSource::Float(floats));
            };
            let linear = match shape.mode.is_ternary() {
                true => parts.ternary(shape, scale_of(name))?,
                false => parts.integers(shape)?,
            };
            Ok(TensorSource::Ready(linear))
        })
        .map_err(|error| match error {
            Refused::Image(error) => error,
            Refused::Runtime(error) => refused("the model", PartProblem::model(error)),
        })?;
        let sketch = parts.sketch(config.vocab_size, config.hidden_size)?;
        model.take_sketch(sketch.filter(|_| model.head().values.is_shared()));
        parts.finish()?;
        Ok(model)
    }

    /// The model's tokenizer, its tables where they lie; `None` if the file has none that is packed.
    ///
    /// # Errors
    /// [`ImageError::Part`]: damaged tables, or a tokenizer that needs the `tokenizers` crate.
    pub fn tokenizer(&self) -> Result<Option<BpeTokenizer>, ImageError> {
        let Some(packed) = self.bytes_of(TOKENIZER_PACKED)? else {
            return Ok(None);
        };
        let content = |error: BpeError| refused(TOKENIZER_PACKED, PartProblem::content(error));
        BpeTokenizer::new(packed).map(Some).map_err(content)
    }

    /// The bytes of an optional part.
    pub(crate) fn bytes_of(&self, part: &str) -> Result<Option<Values<u8>>, ImageError> {
        let Some(view) = self.weights.get(part) else {
            return Ok(None);
        };
        let shape = view.shape.to_vec();
        Ok(Some(PartsOf::new(self).values(part, Dtype::U8, &shape)?))
    }
}

/// That `part` has this `problem`.
pub(crate) fn refused(part: &str, problem: PartProblem) -> ImageError {
    let part = part.to_string();
    ImageError::Part { part, problem }
}
