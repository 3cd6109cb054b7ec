//! A shard as documents in tokens: row group by row group, a few rows at a time, in parallel, in order.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use onebit_model::tokenizer::Tokenizer;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::filter::{FilterOptions, Memory, origin};
use crate::Result;
use crate::data::text::{Row, Table};
use crate::data::{DataError, document_ids};
use crate::error::io_error;

/// Rows that are encoded at once.
const ROWS: usize = 64;
/// The column with the licences of the repository that a file is from.
const LICENSES: &str = "max_stars_repo_licenses";

/// What turns rows into tokens.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    pub tokenizer: Arc<Tokenizer>,
    pub filters: FilterOptions,
    /// Threads apart from those that train: those may be waiting for what these make.
    pub pool: Arc<ThreadPool>,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Documents without an allowed licence.
    pub licenses: u64,
    /// Documents that came already.
    pub duplicates: u64,
}

/// A document in tokens, its end marked.
#[derive(Debug)]
pub(super) struct Document {
    /// Its row in the shard.
    pub row: u64,
    /// Documents that the filters remember when this one was let through.
    pub kept: u64,
    pub ids: Vec<u32>,
}

/// An open shard.
pub(super) struct Reader<'a> {
    encoder: &'a Encoder,
    path: Arc<Path>,
    table: Table,
    shard: usize,
    /// The row that is read next.
    row: u64,
    /// A document that was decided on already: the one that is gone on with.
    decided: Option<u64>,
    pub left_out: LeftOut,
}

/// A row that may become a document.
struct Candidate {
    row: u64,
    text: String,
    marks: Vec<u64>,
}

impl<'a> Reader<'a> {
    /// Opens shard number `shard` at `path` from row `row` on; of that a part was taken already if `begun`.
    ///
    /// # Errors
    /// [`crate::TrainError::Io`], [`DataError::Parquet`], [`DataError::NoTextColumn`].
    pub fn open(encoder: &'a Encoder, path: &Path, shard: usize, row: u64, begun: bool) -> Result<Self> {
        let file = File::open(path).map_err(io_error(path, "check that the shard is there"))?;
        let path: Arc<Path> = path.into();
        let licenses = (!encoder.filters.licenses.is_empty()).then_some(LICENSES);
        let mut table = Table::open(path.clone(), file, licenses)?;
        table.skip(row)?;
        Ok(Reader {
            encoder,
            path,
            table,
            shard,
            row,
            decided: begun.then_some(row),
            left_out: LeftOut::default(),
        })
    }

    /// The row that is read next.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// The documents of the next rows, without those that are left out; `None` at the end of the shard.
    ///
    /// # Errors
    /// [`DataError::Parquet`], [`DataError::Utf8`] for a damaged shard.
    pub fn documents(&mut self, memory: &Mutex<Memory>) -> Result<Option<Vec<Document>>> {
        let rows = self.table.read(ROWS)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let numbered: Vec<(u64, Row)> = (self.row..).zip(rows).collect();
        let (encoder, path) = (self.encoder, &self.path);
        let found = encoder.pool.install(|| {
            let each = numbered
                .par_iter()
                .map(|(row, content)| found(encoder, path, *row, content));
            each.collect::<Result<Vec<_>>>()
        })?;
        self.row += numbered.len() as u64;
        let staying = self.staying(found, &mut memory.lock().unwrap_or_else(PoisonError::into_inner));
        let documents = encoder.pool.install(|| {
            let each = staying.par_iter().map(|(candidate, kept)| {
                Ok(Document {
                    row: candidate.row,
                    kept: *kept,
                    ids: document_ids(&encoder.tokenizer, &candidate.text)?,
                })
            });
            each.collect::<Result<Vec<_>>>()
        })?;
        Ok(Some(documents))
    }

    /// The rows that stay, in order, each with the number of documents that are kept with it.
    fn staying(&mut self, found: Vec<Found>, memory: &mut Memory) -> Vec<(Candidate, u64)> {
        let mut staying = Vec::with_capacity(found.len());
        for found in found {
            match found {
                Found::Unlicensed => self.left_out.licenses += 1,
                Found::Empty => {}
                Found::Text(mut candidate) => {
                    let marks = std::mem::take(&mut candidate.marks);
                    let place = origin(self.shard, candidate.row);
                    if self.decided == Some(candidate.row) || memory.stays(place, marks) {
                        staying.push((candidate, memory.count()));
                    } else {
                        self.left_out.duplicates += 1;
                    }
                }
            }
        }
        staying
    }
}

/// What becomes of a row by itself.
fn found(encoder: &Encoder, path: &Path, row: u64, content: &Row) -> Result<Found> {
    let filters = &encoder.filters;
    if !filters.allows(content.list.iter().map(|license| license.data())) {
        return Ok(Found::Unlicensed);
    }
    let Some(text) = content.text.as_ref().filter(|text| !text.is_empty()) else {
        return Ok(Found::Empty);
    };
    let text = std::str::from_utf8(text.data()).map_err(|e| DataError::Utf8 {
        path: path.to_path_buf(),
        offset: e.valid_up_to() as u64,
        place: format!(" of row {row}"),
    })?;
    Ok(Found::Text(Candidate {
        row,
        marks: filters.marks(text),
        text: text.to_owned(),
    }))
}

/// What becomes of a row by itself.
enum Found {
    Unlicensed,
    Empty,
    Text(Candidate),
}
