//! Parquet: the text column of each row, row group by row group, a few rows at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::data_type::ByteArray;

use super::table::Table;
use super::{Piece, read_error};
use crate::data::{DataError, Result};

/// Rows decoded at once.
const ROWS: usize = 32;

pub(super) struct Rows {
    path: Arc<Path>,
    table: Table,
    /// Row groups that count as read.
    counted: usize,
    ready: VecDeque<ByteArray>,
    row: u64,
    bytes: u64,
    read: Arc<AtomicU64>,
}

impl Rows {
    pub(super) fn open(path: Arc<Path>, file: File, read: Arc<AtomicU64>) -> Result<Rows> {
        let bytes = file.metadata().map_err(|source| read_error(&path, source))?.len();
        let table = Table::open(path.clone(), file, None)?;
        Ok(Rows {
            path,
            table,
            counted: 0,
            ready: VecDeque::new(),
            row: 0,
            bytes,
            read,
        })
    }

    /// Decodes more rows; false at the end of the file. Rows without text are passed over.
    fn fill(&mut self) -> Result<bool> {
        loop {
            let rows = self.table.read(ROWS)?;
            let (groups, begun) = self.table.groups();
            // How far a group lies in the file is not known exactly; their count will do for progress.
            let share = |group: usize| self.bytes * group as u64 / (groups as u64).max(1);
            self.read
                .fetch_add(share(begun) - share(self.counted), Ordering::Relaxed);
            self.counted = begun;
            if rows.is_empty() {
                return Ok(false);
            }
            self.ready.extend(rows.into_iter().filter_map(|row| row.text));
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
    }

    fn row(&mut self) -> Result<Option<Piece>> {
        if self.ready.is_empty() && !self.fill()? {
            return Ok(None);
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

impl Iterator for Rows {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        self.row().transpose()
    }
}
