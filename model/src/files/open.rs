//! A model of whatever kind, told by what is in it and not by its name.

use std::io::Read;
use std::path::Path;

#[cfg(feature = "tokenizers")]
use super::gguf::{self, GgufModel};
use super::{CONFIG_FILE, FileError, HfDirectory, ModelSource, OneFile, StoriesModel, Weights, open_regular, stories};

/// The kinds of models that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// A Hugging Face directory: [`HfDirectory`].
    Directory,
    /// A `.1bit` file: [`OneFile`].
    OneFile,
    /// A GGUF file.
    #[cfg(feature = "tokenizers")]
    Gguf,
    /// A file of bitllama2.c: [`StoriesModel`].
    Stories,
}

/// The kinds of files that this build reads.
const KINDS: &str = if cfg!(feature = "tokenizers") {
    ".1bit, .gguf or bit_model.bin of bitllama2.c"
} else {
    ".1bit or bit_model.bin of bitllama2.c (.gguf takes a build with the feature `tokenizers`)"
};

impl ModelKind {
    /// The kind of the model at `path`, from its first bytes, or from what the directory holds.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Kind`] for what is none.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        };
        let kind = |found: &str| FileError::Kind {
            path: path.to_path_buf(),
            found: found.to_string(),
            expected: KINDS,
        };
        if std::fs::metadata(path).map_err(io)?.is_dir() {
            return match path.join(CONFIG_FILE).is_file() {
                true => Ok(Self::Directory),
                false => Err(kind("a directory without config.json")),
            };
        }
        let mut first = Vec::new();
        let file = open_regular(path).map_err(io)?;
        file.take(16).read_to_end(&mut first).map_err(io)?;
        #[cfg(feature = "tokenizers")]
        if first.starts_with(gguf::MAGIC) {
            return Ok(Self::Gguf);
        }
        if first.starts_with(&stories::MAGIC) {
            return Ok(Self::Stories);
        }
        if first.get(8) != Some(&b'{') {
            return Err(kind("a file of an unknown kind"));
        }
        match Weights::open_file(path)?.metadata().get("format").map(String::as_str) {
            Some(super::ONE_FILE_EXTENSION) => Ok(Self::OneFile),
            _ => Err(kind("a safetensors file without the configuration of a model")),
        }
    }
}

/// Opens a model of whatever kind, checked as far as headers tell.
///
/// # Errors
/// As [`ModelKind::of`], and those of the kind.
pub fn open_source(path: &Path) -> Result<Box<dyn ModelSource>, FileError> {
    Ok(match ModelKind::of(path)? {
        ModelKind::Directory => Box::new(HfDirectory::open(path)?),
        ModelKind::OneFile => {
            let file = OneFile::open(path)?;
            // Views of the map alone: names, types, shapes and places of all tensors are checked.
            file.model()?;
            Box::new(file)
        }
        #[cfg(feature = "tokenizers")]
        ModelKind::Gguf => Box::new(GgufModel::open(path)?),
        ModelKind::Stories => Box::new(StoriesModel::open(path)?),
    })
}
