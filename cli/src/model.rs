//! From the value of `--model` to a model that runs.

use std::cell::Cell;
use std::path::Path;
#[cfg(feature = "tokenizers")]
use std::path::PathBuf;

use onebit_model::chat::ChatTemplate;
use onebit_model::config::ModelConfig;
#[cfg(feature = "tokenizers")]
use onebit_model::files::gguf::GgufModel;
use onebit_model::files::{self, GenerationConfig, ModelKind, ModelSource, OneFile};
use onebit_model::runtime::{FloatStorage, PackedModel};
use onebit_model::tokenizer::{END_OF_LINE, Tokenizer};

use crate::{CliError, Result, bundled, output};

/// A model of whatever kind, its headers checked, before its weights are read.
pub(crate) struct ModelDirectory {
    /// Its sampling defaults.
    pub generation: GenerationConfig,
    model: Opened,
    /// Whether the notes have been told.
    told: Cell<bool>,
}

/// What the weights come from.
enum Opened {
    /// A file that holds the tokenizer and all the rest.
    OneFile(Box<OneFile>),
    /// A file of llama.cpp's or bitnet.cpp's, with the rest in it as well.
    #[cfg(feature = "tokenizers")]
    Gguf(Box<GgufModel>),
    /// A source, and the folder with the rest.
    #[cfg(feature = "tokenizers")]
    Source(Box<dyn ModelSource>, PathBuf),
}

impl ModelDirectory {
    /// Checks that `path` is a model, or the name of a [bundled](bundled) one, and reads what is small of it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if let Some(file) = bundled::named(path) {
            return Ok(Self::of_file(file?));
        }
        if path.is_dir() && !path.join(files::CONFIG_FILE).is_file() {
            let unfinished = if path.join("checkpoints").is_dir() {
                ", or finish the run there with `onebit train --resume`"
            } else {
                ""
            };
            return Err(CliError::Failed(format!(
                "--model: {} holds no {}; give a model directory{unfinished}",
                path.display(),
                files::CONFIG_FILE
            )));
        }
        if !path.exists() {
            return Err(CliError::Failed(format!(
                "--model: {} does not exist; {}",
                path.display(),
                bundled::advice()
            )));
        }
        Self::of_path(path)
    }

    /// The model at `path`, of whatever kind.
    #[cfg(feature = "tokenizers")]
    fn of_path(path: &Path) -> Result<Self> {
        let (model, generation) = match ModelKind::of(path)? {
            ModelKind::OneFile => return Ok(Self::of_file(OneFile::open(path)?)),
            #[cfg(feature = "tokenizers")]
            ModelKind::Gguf => {
                let file = Box::new(GgufModel::open(path)?);
                let generation = file.generation().cloned();
                (Opened::Gguf(file), generation)
            }
            kind => {
                let folder = match kind {
                    ModelKind::Directory => path.to_path_buf(),
                    _ => path.parent().map(Path::to_path_buf).unwrap_or_default(),
                };
                let generation = match kind {
                    ModelKind::Directory => GenerationConfig::read(&folder)?,
                    _ => None,
                };
                (Opened::Source(files::open_source(path)?, folder), generation)
            }
        };
        Ok(Self {
            generation: generation.unwrap_or_default(),
            model,
            told: Cell::new(false),
        })
    }

    /// The model at `path`, of the one kind whose tokenizer can be read.
    #[cfg(not(feature = "tokenizers"))]
    fn of_path(path: &Path) -> Result<Self> {
        match ModelKind::of(path)? {
            ModelKind::OneFile => Ok(Self::of_file(OneFile::open(path)?)),
            _ => Err(crate::commands::no_tokenizers(&format!("--model: {}", path.display()))),
        }
    }

    fn of_file(file: OneFile) -> Self {
        Self {
            generation: file.generation().cloned().unwrap_or_default(),
            model: Opened::OneFile(Box::new(file)),
            told: Cell::new(false),
        }
    }

    /// The file, where the model is one that holds everything.
    pub(crate) fn file(&self) -> Option<&OneFile> {
        match &self.model {
            Opened::OneFile(file) => Some(file),
            #[cfg(feature = "tokenizers")]
            _ => None,
        }
    }

    /// The model's tensors, its notes told.
    pub(crate) fn source(&self) -> &dyn ModelSource {
        let source = match &self.model {
            Opened::OneFile(file) => &**file as &dyn ModelSource,
            #[cfg(feature = "tokenizers")]
            Opened::Gguf(file) => &**file,
            #[cfg(feature = "tokenizers")]
            Opened::Source(source, _) => &**source,
        };
        if !self.told.replace(true) {
            tell(source.notes());
        }
        source
    }

    /// The folder that holds what belongs to the model, unless its file does.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.model {
            Opened::OneFile(_) => None,
            #[cfg(feature = "tokenizers")]
            Opened::Gguf(_) => None,
            Opened::Source(_, folder) => Some(folder),
        }
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.model {
            Opened::OneFile(file) => Ok(file.tokenizer()?),
            #[cfg(feature = "tokenizers")]
            Opened::Gguf(file) => file.tokenizer()?.ok_or_else(|| {
                CliError::Failed(format!(
                    "{}: the file holds no tokenizer; `onebit import --tokenizer F` makes a model that has one",
                    file.path().display()
                ))
            }),
            #[cfg(feature = "tokenizers")]
            Opened::Source(_, folder) => Ok(Tokenizer::from_dir(folder)?),
        }
    }

    /// Whether there is a tokenizer.
    pub(crate) fn has_tokenizer(&self) -> bool {
        match &self.model {
            Opened::OneFile(file) => file.tokenizer_json().is_some(),
            #[cfg(feature = "tokenizers")]
            Opened::Gguf(file) => file.has_tokenizer(),
            #[cfg(feature = "tokenizers")]
            Opened::Source(_, folder) => Tokenizer::find_in(folder).is_some(),
        }
    }

    /// The chat template, or the default one.
    pub(crate) fn chat_template(&self) -> Result<ChatTemplate> {
        match &self.model {
            Opened::OneFile(file) => Ok(file.chat_template()?),
            #[cfg(feature = "tokenizers")]
            Opened::Gguf(file) => gguf_template(file),
            #[cfg(feature = "tokenizers")]
            Opened::Source(_, folder) => Ok(ChatTemplate::from_dir(folder)?),
        }
    }

    /// The configuration, its notes told on stderr.
    pub(crate) fn config(&self) -> ModelConfig {
        self.source().config().clone()
    }

    /// The weights, packed: those of a file where they lie in it. Embedding and head in the type `head`.
    pub(crate) fn load(&self, head: FloatStorage) -> Result<PackedModel> {
        match (&self.model, self.source()) {
            (Opened::OneFile(file), _) => Ok(file.model_as(head)?),
            #[cfg(feature = "tokenizers")]
            (_, source) => Ok(PackedModel::from_source(source, head)?),
        }
    }

    /// Tokens that end a text: those that the model names, otherwise the tokenizer's end-of-text token. A word tokenizer's end
    /// of line is none: its texts have many lines.
    pub(crate) fn end_tokens(&self, config: &ModelConfig, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ends: Vec<u32> = self
            .generation
            .eos_token_ids
            .iter()
            .chain(&config.eos_token_ids)
            .copied()
            .collect();
        if ends.is_empty() {
            ends.extend(tokenizer.eos().filter(|&id| Some(id) != tokenizer.id_of(END_OF_LINE)));
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// The tokens of a text to go on with, behind the [token that begins one](Self::begin_token); for no text at all the one that begins a text, or ends the one before.
    pub(crate) fn prompt(&self, config: &ModelConfig, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.begin_token(config, tokenizer).into_iter().collect();
        ids.extend(tokenizer.encode(text)?);
        if ids.is_empty() {
            let start = config.bos_token_id.or(tokenizer.bos()).or(tokenizer.eos());
            ids.push(start.ok_or_else(|| {
                CliError::Failed(
                    "--prompt is empty and the tokenizer has no token that begins or ends a text; give a prompt".into(),
                )
            })?);
        }
        Ok(ids)
    }

    /// The token before a prompt: the one that both the model and its tokenizer name as the beginning of a text.
    pub(crate) fn begin_token(&self, config: &ModelConfig, tokenizer: &Tokenizer) -> Option<u32> {
        self.generation
            .bos_token_id
            .or(config.bos_token_id)
            .filter(|&id| tokenizer.bos() == Some(id))
    }
}

/// The chat template of a GGUF file, or the default one.
#[cfg(feature = "tokenizers")]
fn gguf_template(file: &GgufModel) -> Result<ChatTemplate> {
    let Some(text) = file.chat_template() else {
        return Ok(ChatTemplate::fallback());
    };
    let tokenizer = file.tokenizer()?;
    let spelling = |id: fn(&Tokenizer) -> Option<u32>| {
        let tokenizer = tokenizer.as_ref()?;
        tokenizer.token_of(id(tokenizer)?)
    };
    let [bos, eos] = [Tokenizer::bos, Tokenizer::eos].map(|id| spelling(id).unwrap_or_default());
    let origin = format!("tokenizer.chat_template of {}", file.path().display());
    Ok(ChatTemplate::from_text(text, &origin, &bos, &eos)?)
}

/// Bytes of a model's weights: those of a file, or of the weight files in a directory.
pub(crate) fn weight_bytes(path: &Path) -> u64 {
    if !path.is_dir() {
        return std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let weights = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "safetensors"));
    weights.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Tells what the configuration's reader wants said.
fn tell(notes: &[String]) {
    notes.iter().for_each(|note| output::note(&format!("note: {note}")));
}
