//! Parquet: the text column of each row, row group by row group, a few rows at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::{Piece, read_error};
use crate::data::{DataError, Result};

/// Names of the text column, the first that exists is taken.
const COLUMNS: [&str; 2] = ["content", "text"];
/// Rows decoded at once.
const ROWS: usize = 32;

pub(super) struct Rows {
    path: Arc<Path>,
    reader: SerializedFileReader<File>,
    column: usize,
    nullable: bool,
    group: usize,
    current: Option<ColumnReader>,
    ready: VecDeque<ByteArray>,
    row: u64,
    bytes: u64,
    read: Arc<AtomicU64>,
}

impl Rows {
    pub(super) fn open(path: Arc<Path>, file: File, read: Arc<AtomicU64>) -> Result<Rows> {
        let bytes = file.metadata().map_err(|source| read_error(&path, source))?.len();
        let reader = contained(|| SerializedFileReader::new(file)).map_err(|e| failed(&path, &e))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let usable = |name: &str| {
            schema.columns().iter().position(|c| {
                c.path().string() == name && c.physical_type() == Type::BYTE_ARRAY && c.max_rep_level() == 0
            })
        };
        let Some(column) = COLUMNS.into_iter().find_map(usable) else {
            let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
            return Err(DataError::NoTextColumn {
                path: path.to_path_buf(),
                found: names.join(", "),
            });
        };
        let nullable = schema.column(column).max_def_level() > 0;
        let ready = VecDeque::new();
        Ok(Rows {
            path,
            reader,
            column,
            nullable,
            group: 0,
            current: None,
            ready,
            row: 0,
            bytes,
            read,
        })
    }

    /// Decodes more rows; false at the end of the file. Rows without text are passed over.
    fn fill(&mut self) -> std::result::Result<bool, ParquetError> {
        let groups = self.reader.num_row_groups();
        loop {
            if self.current.is_none() {
                if self.group == groups {
                    return Ok(false);
                }
                self.current = Some(self.reader.get_row_group(self.group)?.get_column_reader(self.column)?);
                self.group += 1;
                // How far a group lies in the file is not known exactly; their count will do for progress.
                let share = |group: usize| self.bytes * group as u64 / groups as u64;
                self.read
                    .fetch_add(share(self.group) - share(self.group - 1), Ordering::Relaxed);
            }
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let records = match &mut self.current {
                Some(ColumnReader::ByteArrayColumnReader(column)) => {
                    column
                        .read_records(ROWS, self.nullable.then_some(&mut levels), None, &mut values)?
                        .0
                }
                _ => return Err(ParquetError::General("the text column changes its type".into())),
            };
            if records == 0 {
                self.current = None;
            }
            self.ready.extend(values);
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
    }

    fn row(&mut self) -> Result<Option<Piece>> {
        if self.ready.is_empty() {
            let filled = contained(|| self.fill());
            if filled.is_err() {
                // Nothing more is asked of what may have been left half done.
                (self.current, self.group) = (None, self.reader.num_row_groups());
            }
            if !filled.map_err(|e| failed(&self.path, &e))? {
                return Ok(None);
            }
        }
        let Some(value) = self.ready.pop_front() else {
            return Ok(None);
        };
        self.row += 1;
        match std::str::from_utf8(value.data()) {
            Ok(text) => Ok(Some(Piece {
                text: text.to_owned(),
                ends_document: true,
                path: self.path.clone(),
            })),
            Err(e) => Err(DataError::Utf8 {
                path: self.path.to_path_buf(),
                offset: e.valid_up_to() as u64,
                place: format!(" of text {}", self.row),
            }),
        }
    }
}

/// What `read` gives. The library panics on some damaged files where it should give an error (`parquet` 58.4 on a page of a dictionary that is not there); a
/// stranger's file is no reason to end.
fn contained<T>(read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> std::result::Result<T, ParquetError> {
    let outcome = catch_unwind(AssertUnwindSafe(read));
    outcome.unwrap_or_else(|_| {
        Err(ParquetError::General(
            "it is damaged in a way that its library does not expect".into(),
        ))
    })
}

fn failed(path: &Path, e: &ParquetError) -> DataError {
    DataError::Parquet {
        path: path.to_owned(),
        reason: e.to_string(),
    }
}

impl Iterator for Rows {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        self.row().transpose()
    }
}
