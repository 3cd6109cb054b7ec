//! Tensors of a checkpoint: safetensors files, written and read one tensor at a time, so that a model never lies in memory twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use onebit_model::files::open_regular;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::{FULL_DISK, damaged};
use crate::Result;
use crate::error::io_error;

/// What the format allows a header.
const LARGEST_HEADER: u64 = 100_000_000;
/// Bytes that are converted at a time.
const PIECE: usize = 1 << 16;

/// A tensor of a checkpoint.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many values.
    pub values: Values<'a>,
}

/// A tensor to be filled from a checkpoint.
#[derive(Debug)]
pub struct StoredMut<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many values.
    pub values: ValuesMut<'a>,
}

/// Values of a [`Stored`] tensor.
#[derive(Debug)]
pub enum Values<'a> {
    /// f32.
    F32(&'a [f32]),
    /// i8.
    I8(&'a [i8]),
    /// u8.
    U8(&'a [u8]),
}

/// Values of a [`StoredMut`] tensor.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// f32.
    F32(&'a mut [f32]),
    /// i8.
    I8(&'a mut [i8]),
    /// u8.
    U8(&'a mut [u8]),
}

impl Values<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::I8(_) => Dtype::I8,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::I8(values) => bytemuck::cast_slice(values),
            Values::U8(values) => values,
        }
    }
}

impl ValuesMut<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            ValuesMut::F32(_) => Dtype::F32,
            ValuesMut::I8(_) => Dtype::I8,
            ValuesMut::U8(_) => Dtype::U8,
        }
    }

    /// Reads little-endian values, as many as there are.
    fn fill(self, from: &mut impl Read) -> std::io::Result<()> {
        match self {
            ValuesMut::F32(values) => {
                let mut bytes = vec![0; PIECE];
                for values in values.chunks_mut(PIECE / 4) {
                    let bytes = &mut bytes[..4 * values.len()];
                    from.read_exact(bytes)?;
                    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                        *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    }
                }
                Ok(())
            }
            ValuesMut::I8(values) => from.read_exact(bytemuck::cast_slice_mut(values)),
            ValuesMut::U8(values) => from.read_exact(values),
        }
    }
}

/// Bytes that [`write_tensors`] writes, about: the header is left out.
pub(super) fn bytes(tensors: &[Stored<'_>]) -> u64 {
    tensors.iter().map(|t| t.values.bytes().len() as u64).sum()
}

/// Writes `tensors` in order of their types and names, as the format wants it.
pub(super) fn write_tensors(path: &Path, to: &mut impl Write, mut tensors: Vec<Stored<'_>>) -> Result<()> {
    tensors.sort_by(|a, b| {
        b.values
            .dtype()
            .cmp(&a.values.dtype())
            .then_with(|| a.name.cmp(&b.name))
    });
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for Stored { name, shape, values } in &tensors {
        let begin = end;
        end += values.bytes().len();
        let info = TensorInfo {
            dtype: values.dtype(),
            shape: shape.clone(),
            data_offsets: (begin, end),
        };
        infos.push((name.clone(), info));
    }
    // Libraries of Python refuse a file that does not say this.
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let header = Metadata::new(Some(format), infos)
        .map_err(|e| e.to_string())
        .and_then(|metadata| serde_json::to_vec(&metadata).map_err(|e| e.to_string()))
        .map_err(|why| damaged(path, why))?;
    let length = header.len().next_multiple_of(8);
    let blanks = [b' '; 8];
    let mut write = |bytes: &[u8]| to.write_all(bytes).map_err(io_error(path, FULL_DISK));
    write(&(length as u64).to_le_bytes())?;
    write(&header)?;
    write(&blanks[..length - header.len()])?;
    tensors.iter().try_for_each(|tensor| write(tensor.values.bytes()))
}

/// Fills all `tensors` from `file` of a checkpoint, which must have them with these types and shapes.
pub(super) fn read_tensors(directory: &Path, file: &str, tensors: Vec<StoredMut<'_>>) -> Result<()> {
    let wrong = |why: String| damaged(directory, format!("{file}: {why}"));
    let path = directory.join(file);
    let mut from = open_regular(&path).map_err(io_error(&path, "resume from another checkpoint"))?;
    let metadata = read_header(&mut from).map_err(&wrong)?;
    let mut wanted: HashMap<String, StoredMut<'_>> = tensors.into_iter().map(|t| (t.name.clone(), t)).collect();
    // As they lie in the file.
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (begin, end) = info.data_offsets;
        let Some(StoredMut { shape, values, .. }) = wanted.remove(&name) else {
            let length = (end - begin) as u64;
            let skipped = std::io::copy(&mut (&mut from).take(length), &mut std::io::sink());
            if skipped.map_err(|e| wrong(format!("{name}: {e}")))? != length {
                return Err(wrong(format!("{name}: the file ends in it")));
            }
            continue;
        };
        if info.dtype != values.dtype() || info.shape != shape {
            let (expected, found) = ((values.dtype(), shape), (info.dtype, &info.shape));
            return Err(wrong(format!("{name}: expected {expected:?}, found {found:?}")));
        }
        values.fill(&mut from).map_err(|e| wrong(format!("{name}: {e}")))?;
    }
    match wanted.keys().min() {
        Some(name) => Err(wrong(format!("{name} is not there"))),
        None => Ok(()),
    }
}

fn read_header(from: &mut File) -> std::result::Result<Metadata, String> {
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(|e| e.to_string())?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST_HEADER {
        return Err(format!("a header of {length} bytes"));
    }
    let mut header = Vec::new();
    from.take(length).read_to_end(&mut header).map_err(|e| e.to_string())?;
    serde_json::from_slice(&header).map_err(|e| e.to_string())
}
