//! A prompt's keys and values in a file.
//!
//! ```text
//! magic         8 bytes   "1bitKV", 0, version
//! fingerprint  32 bytes   of the model and of the type of the cache
//! count         8 bytes   tokens
//! tokens        4 bytes each
//! snapshot                Session::snapshot
//! checksum     32 bytes   BLAKE3 of all before
//! ```
//!
//! Integers are little-endian; the snapshot has the byte order of the machine, which the fingerprint counts in. The file is written under a temporary name and renamed.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use onebit_kernels_cpu::int4_gemv;
use onebit_kernels_cpu::t2::GROUP_ROWS;

use super::{Generator, PromptCacheError};
use crate::files::{FileError, open_regular, replace_file};
use crate::runtime::{FloatValues, KvType, Linear, PackedModel, Sequence};

const MAGIC: [u8; 8] = *b"1bitKV\0\x01";
const CHECKSUM: usize = 32;
/// Magic, fingerprint and count.
const HEADER: usize = 8 + 32 + 8;
/// Rows of the embedding that the fingerprint looks at.
const ROWS: usize = 64;

/// What tells one model from another where keys and values are concerned: the configuration, every norm and scale, and rows of the
/// embedding and of each linear. Two trainings agree in none of them. It costs a few milliseconds, where reading all weights would cost what the cache saves.
pub(super) fn fingerprint(model: &PackedModel, kv: KvType) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    let floats = |hash: &mut blake3::Hasher, values: &[f32]| {
        values.iter().for_each(|x| {
            hash.update(&x.to_le_bytes());
        });
    };
    hash.update(if cfg!(target_endian = "big") { b"big" } else { b"little" });
    hash.update(kv.name().as_bytes());
    hash.update(model.config().to_json().as_bytes());
    hash.update(model.embedding().values.type_name().as_bytes());
    let embedding = model.embedding();
    let mut row = vec![0.0; embedding.cols];
    for at in 0..ROWS.min(embedding.rows) {
        embedding.copy_row(at * embedding.rows / ROWS.min(embedding.rows), &mut row);
        floats(&mut hash, &row);
    }
    for block in model.blocks() {
        block.norms().for_each(|norm| floats(&mut hash, norm));
        for linear in block.linears() {
            match linear {
                Linear::Ternary {
                    rows,
                    cols,
                    layout,
                    packed,
                    scale,
                    ..
                } => {
                    floats(&mut hash, &[*scale]);
                    // Unpacked, because the layout is a matter of the machine and of the file.
                    let (rows, group) = (GROUP_ROWS.min(*rows), layout.group_bytes(*cols));
                    let middle = packed.len() / group.max(1) / 2 * group;
                    let mut trits = vec![0i8; rows * cols];
                    layout.unpack(&packed[middle..middle + group], rows, *cols, &mut trits);
                    hash.update(bytemuck::cast_slice(&trits));
                }
                Linear::Int8 {
                    cols, values, steps, ..
                } => {
                    floats(&mut hash, steps);
                    let middle = values.len() / cols.max(&1) / 2 * cols;
                    hash.update(bytemuck::cast_slice(&values[middle..middle + cols]));
                }
                Linear::Int4 { cols, codes, steps, .. } => {
                    let (bytes, groups) = (int4_gemv::row_bytes(*cols), int4_gemv::row_steps(*cols));
                    let middle = linear.rows() / 2;
                    hash.update(&codes[middle * bytes..][..bytes]);
                    let steps = steps[middle * groups..][..groups].iter();
                    steps.for_each(|step| {
                        hash.update(&step.to_le_bytes());
                    });
                }
                Linear::Float(matrix) => {
                    hash.update(matrix.values.type_name().as_bytes());
                    if let FloatValues::Int8 { steps, .. } = &matrix.values {
                        floats(&mut hash, steps);
                    }
                    let mut row = vec![0.0; matrix.cols];
                    if matrix.rows > 0 {
                        matrix.copy_row(matrix.rows / 2, &mut row);
                    }
                    floats(&mut hash, &row);
                }
            }
        }
    }
    *hash.finalize().as_bytes()
}

impl Generator {
    /// Takes up the tokens that `prompt` begins with from a file that [`save_prompt_cache`](Self::save_prompt_cache) wrote, and
    /// returns how many. A file that is not there holds none.
    ///
    /// # Errors
    /// [`PromptCacheError`] for a file that is no prompt cache, is damaged, or was made with another model.
    pub fn load_prompt_cache(&mut self, path: &Path, prompt: &[u32]) -> Result<usize, PromptCacheError> {
        let read = |source| PromptCacheError::Read {
            path: path.to_path_buf(),
            source,
        };
        let damaged = |expected: String, found: String| PromptCacheError::Damaged {
            path: path.to_path_buf(),
            expected,
            found,
        };
        let mut file = match open_regular(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            other => other.map_err(read)?,
        };
        let length = file.metadata().map_err(read)?.len();
        let mut magic = [0; MAGIC.len()];
        if length < magic.len() as u64 || file.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Err(PromptCacheError::OtherFile {
                path: path.to_path_buf(),
            });
        }
        let mut header = [0; HEADER - MAGIC.len()];
        let short = |_| damaged(format!("at least {} bytes", HEADER + CHECKSUM), format!("{length}"));
        file.read_exact(&mut header).map_err(short)?;
        let session = self.tokens.reader().session();
        if header[..32] != session.fingerprint() {
            return Err(PromptCacheError::OtherModel {
                path: path.to_path_buf(),
            });
        }
        let count = u64::from_le_bytes(header[32..].try_into().unwrap_or_default());
        // The length is settled by the count, and nothing is read before both agree.
        let expected = usize::try_from(count).ok().and_then(|count| {
            let snapshot = session.snapshot_bytes(count)?;
            let ids = count.checked_mul(4)?;
            let whole = HEADER.checked_add(ids)?.checked_add(snapshot)?.checked_add(CHECKSUM)?;
            (whole as u64 == length).then_some((count, ids, snapshot))
        });
        let Some((count, id_bytes, snapshot)) = expected else {
            return Err(damaged(
                format!("the length of {count} tokens"),
                format!("{length} bytes"),
            ));
        };
        let mut body = Vec::new();
        let room = id_bytes + snapshot + CHECKSUM;
        let no_memory = |_| read(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        body.try_reserve_exact(room).map_err(no_memory)?;
        file.take(room as u64).read_to_end(&mut body).map_err(read)?;
        let checked = body.len() == room && {
            let mut hash = blake3::Hasher::new();
            hash.update(&magic).update(&header).update(&body[..room - CHECKSUM]);
            hash.finalize().as_bytes()[..] == body[room - CHECKSUM..]
        };
        if !checked {
            return Err(damaged("bytes that agree with their checksum".into(), "others".into()));
        }
        let ids: Vec<u32> = body[..id_bytes]
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        let common = ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let snapshot = &body[id_bytes..room - CHECKSUM];
        self.tokens.reader_mut().restore(&prompt[..common], count, snapshot)?;
        Ok(common)
    }

    /// Writes the tokens that were read, with their keys and values, so that another process need not read them again.
    ///
    /// # Errors
    /// [`PromptCacheError::Write`]; the file is then as it was.
    pub fn save_prompt_cache(&self, path: &Path) -> Result<(), PromptCacheError> {
        let ids = self.tokens.reader().held();
        let session = self.tokens.reader().session();
        let io = |source| FileError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        };
        replace_file(path, |temporary| {
            let mut out = BufWriter::new(File::create(temporary).map_err(io)?);
            let mut hash = blake3::Hasher::new();
            let mut result = Ok(());
            let mut write = |bytes: &[u8]| {
                hash.update(bytes);
                if result.is_ok() {
                    result = out.write_all(bytes);
                }
            };
            write(&MAGIC);
            write(&session.fingerprint());
            write(&(ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| write(&id.to_le_bytes()));
            // What is held is what the session has read.
            let taken = session.snapshot(ids.len(), &mut write);
            taken.map_err(|e| io(std::io::Error::other(e.to_string())))?;
            result.map_err(io)?;
            out.write_all(hash.finalize().as_bytes()).map_err(io)?;
            out.flush().map_err(io)
        })?;
        Ok(())
    }
}
