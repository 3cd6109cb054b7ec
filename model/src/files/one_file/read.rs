//! From a file to a packed model that lies in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::parts::{PartsOf, Refused};
use super::{COLUMNS, ENTRIES, FORMAT, PARTS, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED, VERSION};
use crate::chat::ChatTemplate;
use crate::config::json::Parsed;
use crate::config::{LinearMode, LinearShape, ModelConfig, TensorKind, TensorSpec, json};
use crate::files::{FileError, GenerationConfig, PartProblem, Weights};
use crate::runtime::{FloatStorage, FloatValues, PackedModel, RuntimeError, SharedBytes, TensorSource, Values};
use crate::tokenizer::Tokenizer;

/// A one-file model, its header read and its texts checked.
#[derive(Debug)]
pub struct OneFile {
    pub(super) path: PathBuf,
    pub(super) bytes: SharedBytes,
    pub(super) weights: Weights,
    parsed: Parsed,
    generation: Option<GenerationConfig>,
}

impl OneFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::Header`] for a damaged container, [`FileError::Part`] or [`FileError::Config`] for one of something
    /// else, or of a later version.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::from_weights(Weights::open_file(path)?, path)
    }

    /// Reads a file that is in memory already, such as one that is part of the program; `label` stands for its path in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_shared(bytes: SharedBytes, label: &Path) -> Result<Self, FileError> {
        Self::from_weights(Weights::from_shared(bytes, label)?, label)
    }

    fn from_weights(weights: Weights, label: &Path) -> Result<Self, FileError> {
        let path = label.to_path_buf();
        let bytes = weights.first_file().cloned().unwrap_or(SharedBytes::from_static(&[]));
        let refuse = |part: &str, problem: PartProblem| FileError::Part {
            path: path.clone(),
            part: part.to_string(),
            problem,
        };
        let entry = |name: &str| weights.metadata().get(name).map(String::as_str);
        for (name, expected) in [("format", FORMAT), ("version", VERSION)] {
            if entry(name) != Some(expected) {
                let found = entry(name).map_or("nothing".to_string(), |text| format!("{text:.40?}"));
                return Err(refuse(name, PartProblem::Format { expected, found }));
            }
        }
        if let Some(unknown) = weights.metadata().keys().find(|key| !ENTRIES.contains(&key.as_str())) {
            return Err(refuse(unknown, PartProblem::Unknown { version: VERSION }));
        }
        let config = entry("config").ok_or_else(|| refuse("config", PartProblem::Missing { suggestion: None }))?;
        let parsed = json::parse(config).map_err(|source| FileError::Config {
            path: path.clone(),
            source,
        })?;
        let generation = entry("generation_config")
            .map(GenerationConfig::from_json)
            .transpose()
            .map_err(|error| refuse("generation_config", PartProblem::content(error)))?;
        Ok(Self {
            path,
            bytes,
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

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.bytes.bytes().len()
    }

    /// The names and bytes of the tensors beside the weights: scales, tokenizer, sketch of the head, weights once more by columns.
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        let part = |name: &'static str| Some((name, self.weights.get(name)?.bytes.len()));
        let sketch = SKETCH.into_iter().flat_map(|(plane, figures)| [plane, figures]);
        let columns = self.weights.names().filter(|name| name.ends_with(COLUMNS));
        let columns = columns.filter_map(|name| Some((name, self.weights.get(name)?.bytes.len())));
        { std::iter::once(SCALES).chain(PARTS).chain(sketch).filter_map(part) }.chain(columns)
    }

    /// The chat template, or the default one if the file has none.
    ///
    /// # Errors
    /// [`FileError::Part`] for a text that is no template.
    pub fn chat_template(&self) -> Result<ChatTemplate, FileError> {
        let entry = |name: &str| self.weights.metadata().get(name).map_or("", String::as_str);
        if !self.weights.metadata().contains_key("chat_template") {
            return Ok(ChatTemplate::fallback());
        }
        let origin = self.path.display().to_string();
        ChatTemplate::from_text(entry("chat_template"), &origin, entry("bos_token"), entry("eos_token"))
            .map_err(|error| self.refuse("chat_template", PartProblem::content(error)))
    }

    /// The bytes of the model's `tokenizer.json`, if it has one.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        Some(self.weights.get(TOKENIZER_JSON)?.bytes)
    }

    /// The tokenizer: from its packed form, which is looked up in where it lies, or else from its JSON.
    ///
    /// # Errors
    /// [`FileError::Part`] if there is none or it cannot be used.
    pub fn tokenizer(&self) -> Result<Tokenizer, FileError> {
        let refuse = |part, error: crate::tokenizer::TokenizerError| self.refuse(part, PartProblem::content(error));
        let Some(json) = self.bytes_of(TOKENIZER_JSON)? else {
            return Err(self.refuse(TOKENIZER_JSON, PartProblem::Missing { suggestion: None }));
        };
        match self.bytes_of(TOKENIZER_PACKED)? {
            Some(packed) => Tokenizer::from_packed(packed, json).map_err(|error| refuse(TOKENIZER_PACKED, error)),
            None => Tokenizer::from_bytes(&*json).map_err(|error| refuse(TOKENIZER_JSON, error)),
        }
    }

    /// The model, its weights where they lie in the file.
    ///
    /// # Errors
    /// [`FileError::Part`] that names the tensor: missing, unknown, of another type or shape, misplaced; a scale that is none.
    pub fn model(&self) -> Result<PackedModel, FileError> {
        self.model_as(FloatStorage::Stored)
    }

    /// As [`model`](Self::model), with embedding and head in another type than the file's: they are then copies. The sketch of the head is
    /// left out where the head is another.
    ///
    /// # Errors
    /// As [`model`](Self::model), and for values that cannot be in that type.
    pub fn model_as(&self, storage: FloatStorage) -> Result<PackedModel, FileError> {
        let config = self.config();
        let linears: Vec<LinearShape> = (0..config.num_hidden_layers)
            .flat_map(|layer| config.linears(layer).collect::<Vec<_>>())
            .collect();
        let specs: Vec<TensorSpec> = config.tensors();
        let ternary = |mode| matches!(mode, LinearMode::Ternary | LinearMode::Binary);
        let parts = PartsOf::new(self);
        let count = linears.iter().filter(|linear| ternary(linear.mode)).count();
        let scales: Values<f32> = parts.values(SCALES, Dtype::F32, &[count])?;
        let mut scales = scales.iter().copied();
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
                    _ => parts.floats(name, &spec.shape)?,
                };
                return Ok(TensorSource::Float(floats));
            };
            let linear = match ternary(shape.mode) {
                true => parts.ternary(shape, scales.next().unwrap_or_default())?,
                false => parts.integers(shape)?,
            };
            Ok(TensorSource::Ready(linear))
        })
        .map_err(|refused| match refused {
            Refused::File(error) => error,
            Refused::Runtime(error) => self.refuse("the model", PartProblem::model(error)),
        })?;
        let sketch = parts.sketch(config.vocab_size, config.hidden_size)?;
        model.take_sketch(sketch.filter(|_| model.head().values.is_shared()));
        parts.finish()?;
        Ok(model)
    }

    /// The bytes of an optional part.
    pub(super) fn bytes_of(&self, part: &str) -> Result<Option<Values<u8>>, FileError> {
        let Some(view) = self.weights.get(part) else {
            return Ok(None);
        };
        let shape = view.shape.to_vec();
        Ok(Some(PartsOf::new(self).values(part, Dtype::U8, &shape)?))
    }

    pub(super) fn refuse(&self, part: &str, problem: PartProblem) -> FileError {
        FileError::Part {
            path: self.path.clone(),
            part: part.to_string(),
            problem,
        }
    }
}
