//! JSON Lines: one object, one document, a line.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::{Piece, read_error};
use crate::data::{DataError, Result};

/// Bytes of the longest line: a file without line ends is not JSON Lines, and must not fill the memory.
const LONGEST: u64 = 1 << 30;

/// The keys that hold text; `text` is taken if both are there.
#[derive(Deserialize)]
struct Object {
    text: Option<String>,
    content: Option<String>,
}

pub(super) struct Lines {
    path: Arc<Path>,
    reader: BufReader<Box<dyn Read>>,
    line: u64,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn new(path: Arc<Path>, reader: Box<dyn Read>) -> Lines {
        Lines {
            path,
            reader: BufReader::with_capacity(1 << 18, reader),
            line: 0,
            buffer: Vec::new(),
        }
    }

    fn line(&mut self) -> Result<Option<Piece>> {
        loop {
            self.buffer.clear();
            let n = self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut self.buffer);
            let n = n.map_err(|source| read_error(&self.path, source))?;
            if n == 0 {
                return Ok(None);
            }
            self.line += 1;
            let wrong = |reason| {
                Err(DataError::Json {
                    path: self.path.to_path_buf(),
                    line: self.line,
                    reason,
                })
            };
            if n as u64 == LONGEST {
                return wrong("the line is longer than 1 GiB".into());
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            // Read as a list of the fields, an array would do as well.
            if !self.buffer.trim_ascii_start().starts_with(b"{") {
                return wrong("it is no object".into());
            }
            let object: Object = match serde_json::from_slice(&self.buffer) {
                Ok(object) => object,
                Err(e) => return wrong(e.to_string()),
            };
            let Some(text) = object.text.or(object.content) else {
                return wrong("there is no text in it".into());
            };
            return Ok(Some(Piece {
                text,
                ends_document: true,
                path: self.path.clone(),
            }));
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        self.line().transpose()
    }
}
