//! A safetensors file written tensor by tensor: first the header, which is known from types and shapes, then each tensor at its place, in
//! whatever order it is at hand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::FileError;

/// Bytes that are written between two reports of the progress.
pub(super) const PIECE: usize = 8 << 20;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte, counted from the end of the header.
    start: u64,
    /// Bytes.
    pub len: usize,
}

/// The tensors of a file, in its order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    list: Vec<Planned>,
    bytes: u64,
}

impl Plan {
    /// Puts a tensor behind the others.
    pub fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>) {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let start = self.bytes;
        self.bytes += len as u64;
        self.list.push(Planned {
            name,
            dtype,
            shape,
            start,
            len,
        });
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The tensors.
    pub fn list(&self) -> &[Planned] {
        &self.list
    }

    /// Header length and header, which ends at a multiple of `alignment` bytes of the file: the format allows spaces after it.
    pub fn header(&self, metadata: Map<String, Value>, alignment: usize) -> Vec<u8> {
        let mut root = Map::new();
        root.insert("__metadata__".to_string(), Value::Object(metadata));
        for Planned {
            name,
            dtype,
            shape,
            start,
            len,
        } in &self.list
        {
            let dtype = serde_json::to_value(dtype).unwrap_or_default();
            let info = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, start + *len as u64] });
            root.insert(name.clone(), info);
        }
        let text = Value::Object(root).to_string();
        let length = (8 + text.len()).next_multiple_of(alignment) - 8;
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(8 + length, b' ');
        bytes
    }
}

/// The file of a [`Plan`] as it is being written.
pub(super) struct TensorFile<'p> {
    file: File,
    /// For messages.
    path: PathBuf,
    /// Bytes before the first tensor.
    base: u64,
    left: BTreeMap<&'p str, &'p Planned>,
    progress: &'p dyn Fn(u64),
}

impl<'p> TensorFile<'p> {
    /// Makes the file `at` and writes the header of `plan`. `path` is the name that errors give it; `progress` is told of bytes as they are
    /// written.
    pub fn create(
        at: &Path,
        path: &Path,
        plan: &'p Plan,
        header: &[u8],
        progress: &'p dyn Fn(u64),
    ) -> Result<Self, FileError> {
        let made = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(at);
        let written = made.and_then(|mut file| {
            file.write_all(header)?;
            Ok(file)
        });
        Ok(Self {
            file: written.map_err(refused(path))?,
            path: path.to_path_buf(),
            base: header.len() as u64,
            left: plan.list.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
            progress,
        })
    }

    /// Writes the bytes of a tensor.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Changed`] when they are not as many as planned, or the tensor was not planned or has been written.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let planned = self.left.remove(name);
        let Some(planned) = planned.filter(|planned| planned.len == bytes.len()) else {
            return Err(FileError::Changed {
                name: name.to_string(),
                expected: planned.map_or(0, |planned| planned.len),
                found: bytes.len(),
            });
        };
        let place = SeekFrom::Start(self.base + planned.start);
        self.file.seek(place).map_err(refused(&self.path))?;
        for piece in bytes.chunks(PIECE) {
            self.file.write_all(piece).map_err(refused(&self.path))?;
            (self.progress)(piece.len() as u64);
        }
        Ok(())
    }

    /// The file, every tensor of which has been written.
    ///
    /// # Errors
    /// [`FileError::Changed`] for one that was not.
    pub fn finish(self) -> Result<File, FileError> {
        match self.left.into_values().next() {
            None => Ok(self.file),
            Some(planned) => Err(FileError::Changed {
                name: planned.name.clone(),
                expected: planned.len,
                found: 0,
            }),
        }
    }
}

/// The error of a file that cannot be written.
pub(super) fn refused(path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Io {
        action: "write",
        path: path.to_path_buf(),
        source,
    }
}
