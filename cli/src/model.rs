//! From the value of `--model` to a model that runs.

use std::path::{Path, PathBuf};

use onebit_model::chat::ChatTemplate;
use onebit_model::config::ModelConfig;
use onebit_model::files::{self, GenerationConfig, ONE_FILE_EXTENSION, OneFile};
use onebit_model::runtime::{FloatStorage, PackedModel};
use onebit_model::tokenizer::{END_OF_LINE, Tokenizer};

use crate::{CliError, Result, args, output};

/// A model directory or a one-file model, checked, before its weights are read.
pub(crate) struct ModelDirectory {
    /// The directory, or the file.
    pub path: PathBuf,
    /// Its sampling defaults.
    pub generation: GenerationConfig,
    /// The file, where the model is one.
    file: Option<OneFile>,
}

impl ModelDirectory {
    /// Checks that `path` is a model and reads what is small of it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_file() && extension == ONE_FILE_EXTENSION {
            let file = OneFile::open(path)?;
            return Ok(Self {
                path: path.to_path_buf(),
                generation: file.generation().cloned().unwrap_or_default(),
                file: Some(file),
            });
        }
        if path.is_file() && matches!(extension, "gguf" | "safetensors") {
            let message = format!(
                "--model: {} is a file of another kind; give a .1bit file or the directory that holds config.json",
                path.display()
            );
            return Err(CliError::Failed(message));
        }
        args::existing_directory(path, "--model")?;
        let config = path.join(files::CONFIG_FILE);
        if !config.is_file() {
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
        Ok(Self {
            path: path.to_path_buf(),
            generation: GenerationConfig::read(path)?.unwrap_or_default(),
            file: None,
        })
    }

    /// The file, where the model is one.
    pub(crate) fn file(&self) -> Option<&OneFile> {
        self.file.as_ref()
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.file {
            Some(file) => Ok(file.tokenizer()?),
            None => Ok(Tokenizer::from_dir(&self.path)?),
        }
    }

    /// Whether there is a tokenizer.
    pub(crate) fn has_tokenizer(&self) -> bool {
        match &self.file {
            Some(file) => file.tokenizer_json().is_some(),
            None => Tokenizer::find_in(&self.path).is_some(),
        }
    }

    /// The chat template, or the default one.
    pub(crate) fn chat_template(&self) -> Result<ChatTemplate> {
        match &self.file {
            Some(file) => Ok(file.chat_template()?),
            None => Ok(ChatTemplate::from_dir(&self.path)?),
        }
    }

    /// The configuration, its notes told on stderr.
    pub(crate) fn config(&self) -> Result<ModelConfig> {
        match &self.file {
            Some(file) => {
                tell(file.notes());
                Ok(file.config().clone())
            }
            None => {
                let parsed = files::read_config(&self.path)?;
                tell(&parsed.notes);
                Ok(parsed.config)
            }
        }
    }

    /// The weights, packed: those of a file where they lie in it. Embedding and head in the type `head`.
    pub(crate) fn load(&self, head: FloatStorage) -> Result<PackedModel> {
        if let Some(file) = &self.file {
            tell(file.notes());
            return Ok(file.model_as(head)?);
        }
        let loaded = files::load_model(&self.path)?;
        tell(&loaded.notes);
        Ok(PackedModel::from_loaded(loaded, head)?)
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

    /// The token before a prompt: the one that both the model and its tokenizer name as the beginning of a text.
    pub(crate) fn begin_token(&self, config: &ModelConfig, tokenizer: &Tokenizer) -> Option<u32> {
        self.generation
            .bos_token_id
            .or(config.bos_token_id)
            .filter(|&id| tokenizer.bos() == Some(id))
    }
}

/// Tells what the configuration's reader wants said.
fn tell(notes: &[String]) {
    notes.iter().for_each(|note| output::note(&format!("note: {note}")));
}
