//! The safetensors container: `u64` header length, JSON header, data. Every offset is checked before it is used.
//!
//! The header is parsed here and not by the `safetensors` crate, whose check adds header length and data end without
//! regard to overflow and which lets a name stand twice.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::{FileError, MappedFile};
use crate::runtime::SharedBytes;

/// Largest header accepted, in bytes: the format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// A tensor inside a mapped file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorView<'a> {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// The elements, little-endian, row-major; as long as type and shape say.
    pub bytes: &'a [u8],
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// Bytes of a tensor that are copied between two times that the pages of the map are given back.
const PIECE: usize = 8 << 20;

/// One of the files: its bytes, and the map that they are, unless they are in memory.
#[derive(Debug)]
struct Source {
    bytes: SharedBytes,
    map: Option<Arc<MappedFile>>,
}

/// The tensors of one safetensors file, or of several shards.
#[derive(Debug, Default)]
pub struct Weights {
    files: Vec<Source>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Maps one safetensors file.
    ///
    /// # Errors
    /// [`FileError::Io`], or [`FileError::Header`] when the header is damaged.
    pub fn open_file(path: &Path) -> Result<Self, FileError> {
        let mut weights = Self::default();
        weights.add_file(path)?;
        Ok(weights)
    }

    /// Reads a safetensors file that is already in memory; `label` stands for its path in errors.
    ///
    /// # Errors
    /// [`FileError::Header`] when the header is damaged.
    pub fn from_bytes(bytes: Vec<u8>, label: &str) -> Result<Self, FileError> {
        Self::from_shared(SharedBytes::new(Arc::new(bytes)), Path::new(label))
    }

    /// Reads a safetensors file in memory that others hold.
    pub(super) fn from_shared(bytes: SharedBytes, path: &Path) -> Result<Self, FileError> {
        let mut weights = Self::default();
        weights.add(path, bytes, None)?;
        Ok(weights)
    }

    /// Maps one more file and returns the names in it.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<Vec<String>, FileError> {
        let open = |source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        };
        let map = Arc::new(MappedFile::open(path).map_err(open)?);
        self.add(path, SharedBytes::new(map.clone()), Some(map))
    }

    fn add(&mut self, path: &Path, bytes: SharedBytes, map: Option<Arc<MappedFile>>) -> Result<Vec<String>, FileError> {
        let header = |problem| FileError::Header {
            path: path.to_path_buf(),
            problem,
        };
        let (found, metadata) = read_header(bytes.bytes()).map_err(header)?;
        self.metadata.extend(metadata);
        let mut names = Vec::with_capacity(found.len());
        for (name, info, start) in found {
            let (file, end) = (self.files.len(), start + (info.data_offsets.1 - info.data_offsets.0));
            let entry = Entry {
                file,
                dtype: info.dtype,
                shape: info.shape,
                start,
                end,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(header(format!("tensor {name} is also in another shard")));
            }
            names.push(name);
        }
        self.files.push(Source { bytes, map });
        Ok(names)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let entry = self.entries.get(name)?;
        let bytes = self.files.get(entry.file)?.bytes.bytes().get(entry.start..entry.end)?;
        Some(TensorView {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes,
        })
    }

    /// Where the tensor of this name lies, and the bytes of its file.
    pub(super) fn place(&self, name: &str) -> Option<(&SharedBytes, Range<usize>)> {
        let entry = self.entries.get(name)?;
        Some((&self.files.get(entry.file)?.bytes, entry.start..entry.end))
    }

    /// The values of the tensor of this name, each decoded from `N` bytes, in memory of their own: of a mapped file no page stays
    /// behind. `None` if there is no such tensor.
    pub(super) fn copy<const N: usize, T>(&self, name: &str, decode: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let view = self.get(name)?;
        let mut values = Vec::with_capacity(view.bytes.len() / N);
        for piece in view.bytes.chunks(PIECE) {
            values.extend(piece.as_chunks::<N>().0.iter().map(|bytes| decode(*bytes)));
            self.give_pages_back();
        }
        Some(values)
    }

    /// Gives the pages that were read of mapped files back to the system, which reads them again when they are asked for.
    pub(super) fn give_pages_back(&self) {
        for map in self.files.iter().filter_map(|file| file.map.as_ref()) {
            map.give_pages_back();
        }
    }

    /// All bytes of the first file.
    pub(super) fn first_file(&self) -> Option<&SharedBytes> {
        self.files.first().map(|file| &file.bytes)
    }

    /// The texts in `__metadata__`; of several files, those of the last that has one of that name.
    pub(super) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header's entries in file order, a map type would lose a name that stands twice, and `__metadata__`.
struct Header(Vec<(String, Info)>, BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        entries.push((name, map.next_value::<Info>()?));
                    } else if metadata.is_some() {
                        return Err(A::Error::custom("__metadata__ stands twice"));
                    } else {
                        metadata = Some(map.next_value()?);
                    }
                }
                Ok(Header(entries, metadata.unwrap_or_default()))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A tensor's name, its entry, and the position of its first byte in the file.
type Placed = (String, Info, usize);

/// The tensors of a file, and its metadata. The data must be covered without holes and without overlap, which bounds what a
/// small file can make a reader allocate.
fn read_header(bytes: &[u8]) -> Result<(Vec<Placed>, BTreeMap<String, String>), String> {
    let total = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("{total} bytes, too short for the header's length"));
    };
    let length = u64::from_le_bytes(*length);
    let header = match usize::try_from(length) {
        Ok(n) if n <= MAX_HEADER_BYTES => rest.get(..n),
        _ => {
            return Err(format!(
                "header of {length} bytes, more than the limit of {MAX_HEADER_BYTES}"
            ));
        }
    };
    let Some(header) = header else {
        return Err(format!("header of {length} bytes in a file of {total}"));
    };
    if header.first() != Some(&b'{') {
        return Err("the header does not begin with {".to_string());
    }
    let Header(mut entries, metadata) = serde_json::from_slice(header).map_err(|e| format!("header: {e}"))?;
    let (base, data) = (8 + header.len(), total - 8 - header.len());

    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("tensor {} stands twice", pair[0]));
    }
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let mut expected = 0;
    for (name, info) in &entries {
        let (start, end) = info.data_offsets;
        if info.shape.len() > MAX_DIMS {
            return Err(format!(
                "tensor {name} has {} dimensions, more than {MAX_DIMS}",
                info.shape.len()
            ));
        }
        if start != expected {
            return Err(format!(
                "tensor {name} begins at {start}, the one before it ends at {expected}"
            ));
        }
        if end < start || end > data {
            return Err(format!("tensor {name} lies at {start}..{end} of {data} bytes"));
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, &n| bits.checked_mul(n));
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != end - start) {
            let size = end - start;
            return Err(format!(
                "tensor {name} has {size} bytes, which is not {:?} of {:?}",
                info.shape, info.dtype
            ));
        }
        expected = end;
    }
    if expected != data {
        return Err(format!("the tensors end at {expected} of {data} bytes"));
    }
    let place = |(name, info): (String, Info)| {
        let start = base + info.data_offsets.0;
        (name, info, start)
    };
    Ok((entries.into_iter().map(place).collect(), metadata))
}
