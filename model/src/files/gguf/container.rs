//! The container: header, metadata, tensor infos, data. Every length and offset is checked before it is used.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::cursor::Cursor;
use super::error::GgufError;
use super::types::TensorType;
use super::value::{Array, Value};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, VERSION};
use crate::files::{FileError, MappedFile};
use crate::runtime::SharedBytes;

/// Most keys and tensors accepted. A model of [`limits::LAYERS`](crate::config::limits::LAYERS) blocks has fewer; a header bomb would have more.
const MAX_KEYS: u64 = 1 << 12;
const MAX_TENSORS: u64 = 1 << 16;
/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Bytes of the smallest key with its value, and of the smallest tensor info.
const LEAST_KEY: u64 = 8 + 4 + 1;
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// A tensor in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// ggml's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How its values are stored.
    pub kind: TensorType,
    /// Values of a row.
    pub cols: usize,
    /// Rows: the product of the other dimensions.
    pub rows: usize,
    /// Its dimensions, innermost first.
    pub dims: usize,
    /// Where it lies in the file.
    pub(super) place: Range<usize>,
}

impl TensorInfo {
    /// Number of values.
    pub const fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether it has no values, which no file may say.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in the file.
    pub const fn bytes(&self) -> usize {
        self.place.end - self.place.start
    }
}

/// A GGUF file whose structure has been checked: all of it is covered by header, metadata and tensors, without overlap or hole.
#[derive(Debug)]
pub struct Gguf {
    bytes: SharedBytes,
    map: Option<Arc<MappedFile>>,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
}

impl Gguf {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::Io`], or [`FileError::Gguf`] with the path.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let map = MappedFile::open(path).map_err(|source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        let map = Arc::new(map);
        let parsed = Self::parse(SharedBytes::new(map.clone()), Some(map.clone()));
        parsed.map_err(|source| FileError::Gguf {
            path: path.to_path_buf(),
            source: Box::new(source),
        })
    }

    /// Reads a file that is already in memory.
    ///
    /// # Errors
    /// A [`GgufError`] for everything in it that is not as it must be.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, GgufError> {
        Self::parse(SharedBytes::new(Arc::new(bytes)), None)
    }

    fn parse(shared: SharedBytes, map: Option<Arc<MappedFile>>) -> Result<Self, GgufError> {
        let mut cursor = Cursor {
            bytes: shared.bytes(),
            at: 0,
        };
        let header = &|| "the header".to_string();
        let magic = cursor.take(4, header)?;
        if magic != MAGIC {
            let mut found = [0; 4];
            found.copy_from_slice(magic);
            return Err(GgufError::Magic { found });
        }
        let version = cursor.u32(header)?;
        if !(2..=VERSION).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let (tensors, keys) = (cursor.u64(header)?, cursor.u64(header)?);
        let room = (cursor.bytes.len() - cursor.at) as u64;
        check_count("keys", keys, MAX_KEYS.min(room / LEAST_KEY))?;
        check_count("tensors", tensors, MAX_TENSORS.min(room / LEAST_TENSOR))?;

        let metadata = read_metadata(&mut cursor, keys)?;
        let alignment = alignment(&metadata)?;
        let mut infos = Vec::new();
        for _ in 0..tensors {
            infos.push(read_info(&mut cursor)?);
        }
        let data = cursor.at.next_multiple_of(alignment).min(cursor.bytes.len());
        let mut placed = place_all(infos, data, cursor.bytes.len(), alignment)?;
        placed.shrink_to_fit();
        let mut by_name = BTreeMap::new();
        for (i, info) in placed.iter().enumerate() {
            if by_name.insert(info.name.clone(), i).is_some() {
                return Err(GgufError::DuplicateTensor {
                    name: info.name.clone(),
                });
            }
        }
        Ok(Self {
            bytes: shared,
            map,
            metadata,
            tensors: placed,
            by_name,
        })
    }

    /// The keys and values, sorted by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// The tensors in the order of their data.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, info: &TensorInfo) -> &[u8] {
        self.at(&info.place)
    }

    /// The elements of an array of this file's metadata, as they lie in it.
    pub fn elements(&self, array: &Array) -> &[u8] {
        self.at(&array.place)
    }

    /// The file's bytes in `range`, which was checked when it was made.
    pub(super) fn at(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.bytes().get(range.clone()).unwrap_or(&[])
    }

    /// The file's bytes.
    pub(super) const fn shared(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Gives the pages of a mapped file back to the system.
    pub(super) fn give_pages_back(&self) {
        if let Some(map) = &self.map {
            map.give_pages_back();
        }
    }
}

fn check_count(what: &'static str, found: u64, most: u64) -> Result<(), GgufError> {
    if found > most {
        return Err(GgufError::Count { what, found, most });
    }
    Ok(())
}

fn read_metadata(cursor: &mut Cursor<'_>, keys: u64) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut metadata = BTreeMap::new();
    for i in 0..keys {
        let key = cursor.text(&|| format!("the name of key {i}"))?;
        let kind = cursor.value_type(key)?;
        let value = cursor.value(kind, key)?;
        if metadata.insert(key.to_string(), value).is_some() {
            return Err(GgufError::DuplicateKey { key: key.to_string() });
        }
    }
    Ok(metadata)
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<usize, GgufError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::Unsigned(found)) => match usize::try_from(found) {
            Ok(n) if n.is_power_of_two() && (8..=1 << 16).contains(&n) => Ok(n),
            _ => Err(GgufError::Alignment { found }),
        },
        Some(other) => Err(GgufError::WrongType {
            key: ALIGNMENT_KEY.to_string(),
            expected: "an unsigned integer",
            found: other.type_name(),
        }),
    }
}

/// A tensor's info and its offset, which counts from the beginning of the data.
fn read_info(cursor: &mut Cursor<'_>) -> Result<(TensorInfo, u64), GgufError> {
    let name = cursor.text(&|| "the name of a tensor".to_string())?.to_string();
    let what = &|| format!("the description of tensor {name}");
    let dims = cursor.u32(what)?;
    if !(1..=MAX_DIMS).contains(&dims) {
        return Err(GgufError::Dimensions { name, found: dims });
    }
    let mut found = Vec::new();
    for _ in 0..dims {
        found.push(cursor.u64(what)?);
    }
    let id = cursor.u32(what)?;
    let offset = cursor.u64(what)?;
    let Some(kind) = TensorType::by_id(id) else {
        return Err(GgufError::TensorType { name, found: id });
    };
    // The number of bits must fit as well, so that nothing that is made of the values overflows.
    let product = |dims: &[u64]| {
        let len = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
        usize::try_from(len).ok().filter(|&n| n > 0 && n < usize::MAX >> 6)
    };
    let (Some(cols), Some(rows), Some(len)) = (product(&found[..1]), product(&found[1..]), product(&found)) else {
        return Err(GgufError::Size { name, found });
    };
    if cols % kind.block_len() != 0 {
        let (kind, block) = (kind.name(), kind.block_len());
        return Err(GgufError::Block {
            name,
            kind,
            cols,
            block,
        });
    }
    let Some(bytes) = kind.bytes(len) else {
        return Err(GgufError::Size { name, found });
    };
    let info = TensorInfo {
        name,
        kind,
        cols,
        rows,
        dims: dims as usize,
        place: 0..bytes,
    };
    Ok((info, offset))
}

/// Puts the tensors in the order of their data and checks that they cover it: each begins at the next multiple of the alignment.
fn place_all(
    mut infos: Vec<(TensorInfo, u64)>,
    data: usize,
    len: usize,
    alignment: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    infos.sort_by_key(|(_, offset)| *offset);
    let room = (len - data) as u64;
    let mut end = 0u64;
    let mut placed = Vec::with_capacity(infos.len());
    for (mut info, offset) in infos {
        let bytes = info.bytes() as u64;
        let name = || info.name.clone();
        let alignment = alignment as u64;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                name: name(),
                offset,
                alignment,
            });
        }
        let Some(last) = offset.checked_add(bytes).filter(|&last| last <= room) else {
            return Err(GgufError::Outside {
                name: name(),
                offset,
                bytes,
                data: room,
            });
        };
        if offset < end {
            return Err(GgufError::Overlap {
                name: name(),
                offset,
                end,
            });
        }
        if offset != end.next_multiple_of(alignment) {
            return Err(GgufError::Hole {
                name: name(),
                offset,
                end,
            });
        }
        end = last;
        info.place = data + offset as usize..data + last as usize;
        placed.push(info);
    }
    if room > end.next_multiple_of(alignment as u64) {
        return Err(GgufError::Trailing { bytes: room - end });
    }
    Ok(placed)
}
