//! The safetensors container: `u64` header length, JSON header, data. Every offset is checked before it is used.
//!
//! The header is parsed here and not by the `safetensors` crate, whose check adds header length and data end without
//! regard to overflow and which lets a name stand twice.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
#[cfg(feature = "std")]
use std::path::Path;
#[cfg(feature = "std")]
use std::sync::Arc;

use safetensors::Dtype;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::HeaderProblem;
use super::object::Object;
#[cfg(feature = "std")]
use crate::files::{FileError, MappedFile};
use crate::runtime::SharedBytes;

/// Largest header accepted, in bytes: the format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;
/// The entry of the header that is no tensor.
const METADATA: &str = "__metadata__";
/// Most texts in `__metadata__`. Each costs many times its letters when it is short, and published files have a few.
const MAX_TEXTS: usize = 1 << 16;
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
#[cfg(feature = "std")]
const PIECE: usize = 8 << 20;

/// One of the files: its bytes, and the map that they are, unless they are in memory.
#[derive(Debug)]
struct Source {
    bytes: SharedBytes,
    #[cfg(feature = "std")]
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
    /// The tensors of a safetensors file in memory that others hold.
    ///
    /// # Errors
    /// A damaged header.
    pub(crate) fn of_bytes(bytes: SharedBytes) -> Result<Self, HeaderProblem> {
        let mut weights = Self::default();
        weights.add(Source {
            bytes,
            #[cfg(feature = "std")]
            map: None,
        })?;
        Ok(weights)
    }

    fn add(&mut self, source: Source) -> Result<Vec<String>, HeaderProblem> {
        let (found, metadata) = read_header(source.bytes.bytes())?;
        self.metadata.extend(metadata);
        let mut names = Vec::with_capacity(found.len());
        for (name, tensor) in found {
            let entry = Entry {
                file: self.files.len(),
                dtype: tensor.dtype,
                shape: tensor.shape,
                start: tensor.range.start,
                end: tensor.range.end,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(HeaderProblem::DuplicateInShards { name });
            }
            names.push(name);
        }
        self.files.push(source);
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
    pub(crate) fn place(&self, name: &str) -> Option<(&SharedBytes, Range<usize>)> {
        let entry = self.entries.get(name)?;
        Some((&self.files.get(entry.file)?.bytes, entry.start..entry.end))
    }

    /// All bytes of the first file.
    pub(crate) fn first_file(&self) -> Option<&SharedBytes> {
        self.files.first().map(|file| &file.bytes)
    }

    /// The texts in `__metadata__`; of several files, those of the last that has one of that name.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
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

#[cfg(feature = "std")]
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
        Self::of_bytes(SharedBytes::new(Arc::new(bytes))).map_err(|problem| FileError::Header {
            path: label.into(),
            problem,
        })
    }

    /// Maps one more file and returns the names in it.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<Vec<String>, FileError> {
        let open = |source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        };
        let map = Arc::new(MappedFile::open(path).map_err(open)?);
        let source = Source {
            bytes: SharedBytes::new(map.clone()),
            map: Some(map),
        };
        self.add(source).map_err(|problem| FileError::Header {
            path: path.to_path_buf(),
            problem,
        })
    }

    /// The values of the tensor of this name, each decoded from `N` bytes, in memory of their own: of a mapped file no page stays
    /// behind. `None` if there is no such tensor.
    pub(crate) fn copy<const N: usize, T>(&self, name: &str, decode: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let view = self.get(name)?;
        let mut values = Vec::with_capacity(view.bytes.len() / N);
        for piece in view.bytes.chunks(PIECE) {
            values.extend(piece.as_chunks::<N>().0.iter().map(|bytes| decode(*bytes)));
            self.give_pages_back();
        }
        Some(values)
    }

    /// Gives the pages that were read of mapped files back to the system, which reads them again when they are asked for.
    pub(crate) fn give_pages_back(&self) {
        for map in self.files.iter().filter_map(|file| file.map.as_ref()) {
            map.give_pages_back();
        }
    }
}

/// A tensor's entry as it stands in the header.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: (usize, usize),
}

/// A shape, of which no more is kept than a tensor may have: a header full of sizes costs no memory.
struct Shape {
    sizes: Vec<usize>,
    /// Sizes in the header.
    dimensions: usize,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let (mut sizes, mut dimensions) = (Vec::new(), 0);
                while let Some(size) = list.next_element::<usize>()? {
                    dimensions += 1;
                    if dimensions <= MAX_DIMS {
                        sizes.push(size);
                    }
                }
                Ok(Shape { sizes, dimensions })
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// The texts of `__metadata__`, of which no more are kept than a file may have.
#[derive(Default)]
struct Texts {
    map: BTreeMap<String, String>,
    /// Texts in the header.
    found: usize,
    /// A name that stands twice.
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    texts.found += 1;
                    if texts.map.contains_key(&name) {
                        texts.twice = Some(name);
                    } else if texts.found <= MAX_TEXTS {
                        texts.map.insert(name, text);
                    }
                }
                Ok(texts)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Texts {
    fn check(self) -> Result<BTreeMap<String, String>, HeaderProblem> {
        if let Some(name) = self.twice {
            let name = format!("{name} in {METADATA}");
            return Err(HeaderProblem::Duplicate { name });
        }
        if self.found > MAX_TEXTS {
            let (found, limit) = (self.found, MAX_TEXTS);
            return Err(HeaderProblem::Texts { found, limit });
        }
        Ok(self.map)
    }
}

/// The header's entries in file order, a map type would lose a name that stands twice, and each `__metadata__`.
struct Header(Vec<(String, Info)>, Vec<Texts>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut entries, mut metadata) = (Vec::new(), Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA {
                        entries.push((name, map.next_value::<Object<Info>>()?.0));
                    } else {
                        metadata.push(map.next_value()?);
                    }
                }
                Ok(Header(entries, metadata))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A tensor whose entry was checked, and where it lies in the file.
struct Placed {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// The named tensors of a file, and its metadata. The data must be covered without holes and without overlap, which bounds what a
/// small file can make a reader allocate.
fn read_header(bytes: &[u8]) -> Result<(Vec<(String, Placed)>, BTreeMap<String, String>), HeaderProblem> {
    let found = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(HeaderProblem::TooShort { found });
    };
    let length = u64::from_le_bytes(*length);
    let (header, data) = match usize::try_from(length) {
        Ok(n) if n <= MAX_HEADER_BYTES => {
            let split = rest.split_at_checked(n);
            split.ok_or(HeaderProblem::Truncated { length, found })?
        }
        _ => {
            let limit = MAX_HEADER_BYTES;
            return Err(HeaderProblem::TooLarge { length, limit });
        }
    };
    if header.first() != Some(&b'{') {
        return Err(HeaderProblem::Start);
    }
    let text = str::from_utf8(header).map_err(|e| HeaderProblem::NotUtf8 { at: e.valid_up_to() })?;
    let Header(entries, metadata) =
        serde_json::from_str(text).map_err(|e| HeaderProblem::Json { message: e.to_string() })?;
    if metadata.len() > 1 {
        return Err(HeaderProblem::Duplicate { name: METADATA.into() });
    }
    let tensors = place(entries, 8 + header.len(), data.len())?;
    Ok((tensors, metadata.into_iter().next().unwrap_or_default().check()?))
}

/// Checks the entries of a header against each other and against `data` bytes that begin at byte `base` of the file.
fn place(mut entries: Vec<(String, Info)>, base: usize, data: usize) -> Result<Vec<(String, Placed)>, HeaderProblem> {
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(HeaderProblem::Duplicate {
            name: format!("tensor {}", pair[0]),
        });
    }
    drop(names);
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let mut previous = 0;
    let mut placed = Vec::with_capacity(entries.len());
    for (name, info) in entries {
        let ((start, end), shape) = (info.data_offsets, info.shape.sizes);
        if info.shape.dimensions > MAX_DIMS {
            let (found, limit) = (info.shape.dimensions, MAX_DIMS);
            return Err(HeaderProblem::Dimensions { name, found, limit });
        }
        let type_name = StrDeserializer::<NameError>::new(&info.dtype);
        let Ok(dtype) = Dtype::deserialize(type_name) else {
            let found = format!("{:.40?}", info.dtype);
            return Err(HeaderProblem::UnknownType { name, found });
        };
        if start < previous {
            return Err(HeaderProblem::Overlap { name, start, previous });
        }
        if start > previous {
            return Err(HeaderProblem::Hole { name, start, previous });
        }
        let size = end.checked_sub(start).filter(|_| end <= data);
        let Some(found) = size else {
            return Err(HeaderProblem::OutOfFile { name, start, end, data });
        };
        let bits = { shape.iter() }.try_fold(dtype.bitsize(), |bits, &n| bits.checked_mul(n));
        let Some(bits) = bits else {
            return Err(HeaderProblem::Overflow { name, shape, dtype });
        };
        if bits % 8 != 0 || bits / 8 != found {
            return Err(HeaderProblem::Size {
                name,
                found,
                shape,
                dtype,
            });
        }
        previous = end;
        let range = base + start..base + end;
        placed.push((name, Placed { dtype, shape, range }));
    }
    if previous != data {
        return Err(HeaderProblem::Trailing { end: previous, data });
    }
    Ok(placed)
}
