//! Such a file as a source of tensors.

use std::path::Path;

use super::{Place, StoriesModel};
use crate::config::ModelConfig;
use crate::config::json::nearest;
use crate::files::{FileError, ModelSource, StoredAs};
use crate::runtime::{FloatValues, TensorSource};

impl ModelSource for StoriesModel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(match self.place(name)? {
            Place::Trits { .. } => StoredAs::Trits,
            _ => StoredAs::F32,
        })
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let floats = |values: Vec<f32>| Ok(TensorSource::Float(FloatValues::F32(values.into())));
        let given = match self.place(name)? {
            Place::Constant { n } => floats(vec![1.0 / n as f32; n]),
            Place::Floats { start, len } => floats(self.floats(start, len)),
            Place::Trits {
                start,
                rows,
                cols,
                rotated_heads,
            } => {
                let scale = self.floats(start, 1).first().copied().unwrap_or_default();
                if !(scale.is_finite() && scale > 0.0) {
                    return Err(FileError::Scale {
                        name: name.to_string(),
                        value: scale,
                    });
                }
                let values = unpack(self.bytes(start + 4, rows * cols / 4)).map_err(|at| FileError::Code {
                    name: name.to_string(),
                    row: at / cols,
                    col: at % cols,
                })?;
                let values = match rotated_heads {
                    Some(heads) => half_split(&values, heads, cols),
                    None => values,
                };
                Ok(TensorSource::Trits { values, scale })
            }
        };
        self.map.give_pages_back();
        given
    }
}

impl StoriesModel {
    fn place(&self, name: &str) -> Result<Place, FileError> {
        self.places.get(name).copied().ok_or_else(|| FileError::MissingTensor {
            path: self.path.clone(),
            name: name.to_string(),
            suggestion: nearest(name, self.places.keys().map(String::as_str)),
        })
    }

    fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.map.bytes().get(start..start + len).unwrap_or_default()
    }

    fn floats(&self, start: usize, len: usize) -> Vec<f32> {
        let bytes = self.bytes(start, 4 * len).as_chunks::<4>().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// Four trits a byte, the first in the highest bits. The position of a code that stands for none is the error.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<i8>, usize> {
    let mut trits = Vec::with_capacity(4 * packed.len());
    for byte in packed {
        for shift in [6, 4, 2, 0] {
            trits.push(match (byte >> shift) & 3 {
                0 => 0,
                1 => 1,
                3 => -1,
                _ => return Err(trits.len()),
            });
        }
    }
    Ok(trits)
}

/// Rows of `heads` heads from pairs that are neighbours to pairs that are half a head apart.
pub(super) fn half_split(trits: &[i8], heads: usize, cols: usize) -> Vec<i8> {
    let rows = trits.len() / cols.max(1);
    let head_dim = rows / heads.max(1);
    let mut out = Vec::with_capacity(trits.len());
    for head in 0..heads {
        for first in [0, 1] {
            for pair in 0..head_dim / 2 {
                let row = head * head_dim + 2 * pair + first;
                out.extend_from_slice(&trits[row * cols..][..cols]);
            }
        }
    }
    out
}
