//! From the value of `--model` to a model that runs.

use std::path::{Path, PathBuf};

use onebit_model::config::ModelConfig;
use onebit_model::files::{self, GenerationConfig};
use onebit_model::runtime::{FloatStorage, PackedModel};
use onebit_model::tokenizer::{END_OF_LINE, Tokenizer};

use crate::{CliError, Result, args, output};

/// A model directory, checked, before its weights are read.
pub(crate) struct ModelDirectory {
    /// The directory.
    pub path: PathBuf,
    /// Its sampling defaults.
    pub generation: GenerationConfig,
}

impl ModelDirectory {
    /// Checks that `path` is a model directory and reads its small files.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_file() && matches!(extension, "1bit" | "gguf" | "safetensors") {
            let message = format!(
                "--model: {} is a file; this version runs model directories, give the directory that holds config.json",
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
        })
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::from_file(self.path.join(files::TOKENIZER_FILE))?)
    }

    /// The configuration, its notes told on stderr.
    pub(crate) fn config(&self) -> Result<ModelConfig> {
        let parsed = files::read_config(&self.path)?;
        parsed
            .notes
            .iter()
            .for_each(|note| output::note(&format!("note: {note}")));
        Ok(parsed.config)
    }

    /// The weights, packed.
    pub(crate) fn load(&self) -> Result<PackedModel> {
        let loaded = files::load_model(&self.path)?;
        loaded
            .notes
            .iter()
            .for_each(|note| output::note(&format!("note: {note}")));
        Ok(PackedModel::from_loaded(loaded, FloatStorage::Stored)?)
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
