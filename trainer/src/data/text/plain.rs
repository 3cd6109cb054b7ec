//! A text file as one document, in blocks.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::{Piece, read_error};
use crate::data::{DataError, Result};

const BLOCK: usize = 1 << 20;

pub(super) struct Plain {
    path: Arc<Path>,
    reader: Box<dyn Read>,
    /// The bytes of a character that the last block cut.
    rest: Vec<u8>,
    /// Bytes of the text before `rest`.
    offset: u64,
    done: bool,
}

impl Plain {
    pub(super) fn new(path: Arc<Path>, reader: Box<dyn Read>) -> Plain {
        Plain {
            path,
            reader,
            rest: Vec::new(),
            offset: 0,
            done: false,
        }
    }

    fn block(&mut self) -> Result<Piece> {
        let mut bytes = std::mem::take(&mut self.rest);
        let wanted = (BLOCK - bytes.len()) as u64;
        let n = self.reader.by_ref().take(wanted).read_to_end(&mut bytes);
        let n = n.map_err(|source| read_error(&self.path, source))?;
        self.done = (n as u64) < wanted;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => {
                let valid = e.utf8_error().valid_up_to();
                if self.done || e.utf8_error().error_len().is_some() {
                    let offset = self.offset + valid as u64;
                    return Err(DataError::Utf8 {
                        path: self.path.to_path_buf(),
                        offset,
                        place: String::new(),
                    });
                }
                let mut bytes = e.into_bytes();
                self.rest = bytes.split_off(valid);
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        self.offset += text.len() as u64;
        Ok(Piece {
            text,
            ends_document: self.done,
            path: self.path.clone(),
        })
    }
}

impl Iterator for Plain {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        if self.done {
            return None;
        }
        let piece = self.block();
        self.done |= piece.is_err();
        Some(piece)
    }
}
