//! A one-file model on disk.

use std::path::{Path, PathBuf};

use super::{Image, TOKENIZER_JSON, TOKENIZER_PACKED, Weights};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::files::{FileError, GenerationConfig, ImageError, PartProblem};
use crate::image::refused;
use crate::runtime::{FloatStorage, PackedModel, SharedBytes};
use crate::tokenizer::Tokenizer;

/// A one-file model, its header read and its texts checked: an [`Image`] with its path.
#[derive(Debug)]
pub struct OneFile {
    pub(super) path: PathBuf,
    pub(super) image: Image,
}

impl OneFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::Header`] for a damaged container, [`FileError::Part`] or [`FileError::Config`] for one of something
    /// else, or of a later version.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::labelled(path, Image::of(Weights::open_file(path)?))
    }

    /// Reads a file that is in memory already, such as one that is part of the program; `label` stands for its path in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_shared(bytes: SharedBytes, label: &Path) -> Result<Self, FileError> {
        Self::labelled(label, Image::new(bytes))
    }

    fn labelled(path: &Path, image: Result<Image, ImageError>) -> Result<Self, FileError> {
        let image = image.map_err(|error| error.of_file(path))?;
        let path = path.to_path_buf();
        Ok(Self { path, image })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        self.image.config()
    }

    /// What the configuration's reader wants said.
    pub fn notes(&self) -> &[String] {
        self.image.notes()
    }

    /// Recommended sampling settings.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        self.image.generation()
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.image.bytes().len()
    }

    /// As [`Image::parts`].
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.image.parts()
    }

    /// The chat template, or the default one if the file has none.
    ///
    /// # Errors
    /// [`FileError::Part`] for a text that is no template.
    pub fn chat_template(&self) -> Result<ChatTemplate, FileError> {
        let metadata = self.image.weights.metadata();
        let entry = |name: &str| metadata.get(name).map_or("", String::as_str);
        if !metadata.contains_key("chat_template") {
            return Ok(ChatTemplate::fallback());
        }
        let origin = self.path.display().to_string();
        ChatTemplate::from_text(entry("chat_template"), &origin, entry("bos_token"), entry("eos_token"))
            .map_err(|error| self.refuse("chat_template", PartProblem::content(error)))
    }

    /// The bytes of the model's `tokenizer.json`, if it has one.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        self.image.tokenizer_json()
    }

    /// The tokenizer: from its packed form, which is looked up in where it lies, or else from its JSON.
    ///
    /// # Errors
    /// [`FileError::Part`] if there is none or it cannot be used.
    pub fn tokenizer(&self) -> Result<Tokenizer, FileError> {
        let refuse = |part, error: crate::tokenizer::TokenizerError| self.refuse(part, PartProblem::content(error));
        let bytes_of = |part| self.image.bytes_of(part).map_err(|error| self.error(error));
        let Some(json) = bytes_of(TOKENIZER_JSON)? else {
            return Err(self.refuse(TOKENIZER_JSON, PartProblem::Missing { suggestion: None }));
        };
        match bytes_of(TOKENIZER_PACKED)? {
            Some(packed) => Tokenizer::from_packed(packed, json).map_err(|error| refuse(TOKENIZER_PACKED, error)),
            None => Tokenizer::from_bytes(&*json).map_err(|error| refuse(TOKENIZER_JSON, error)),
        }
    }

    /// The model, its weights where they lie in the file.
    ///
    /// # Errors
    /// As [`Image::model`].
    pub fn model(&self) -> Result<PackedModel, FileError> {
        self.model_as(FloatStorage::Stored)
    }

    /// As [`Image::model_as`].
    ///
    /// # Errors
    /// As there.
    pub fn model_as(&self, storage: FloatStorage) -> Result<PackedModel, FileError> {
        self.image.model_as(storage).map_err(|error| self.error(error))
    }

    pub(super) fn error(&self, error: ImageError) -> FileError {
        error.of_file(&self.path)
    }

    pub(super) fn refuse(&self, part: &str, problem: PartProblem) -> FileError {
        self.error(refused(part, problem))
    }
}

impl ImageError {
    /// The same of a file.
    fn of_file(self, path: &Path) -> FileError {
        let path = path.to_path_buf();
        match self {
            Self::Header(problem) => FileError::Header { path, problem },
            Self::Config(source) => FileError::Config { path, source },
            Self::Part { part, problem } => FileError::Part { path, part, problem },
        }
    }
}
