//! A parquet file as rows of a text and, if they are asked for, its licences: the other columns are not read.
//!
//! The row groups are gone through one by one and decoded a few rows at a time, so that the memory is that of a few pages. Of a row group that is begun in its middle the
//! pages before are passed over without decoding them.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use crate::data::{DataError, Result};

/// Names of the text column, the first that exists is taken.
const COLUMNS: [&str; 2] = ["content", "text"];

type Outcome<T> = std::result::Result<T, ParquetError>;

/// What is read of a row.
pub(crate) struct Row {
    /// The text, unless it is null.
    pub text: Option<ByteArray>,
    /// The texts of the list in the other column; empty if none was asked for.
    pub list: Vec<ByteArray>,
}

/// A column of byte strings, or of lists of them.
#[derive(Clone, Copy)]
struct Column {
    index: usize,
    /// The definition level of a value that is there.
    defined: i16,
    /// Whether a row is a list.
    repeated: bool,
}

/// An open file.
pub(crate) struct Table {
    path: Arc<Path>,
    reader: SerializedFileReader<File>,
    text: Column,
    list: Option<Column>,
    /// Row groups begun.
    group: usize,
    /// The columns of the row group at work.
    current: Option<(ColumnReader, Option<ColumnReader>)>,
}

impl Table {
    /// Opens a file for its texts and, if `list` names a column, for the strings or lists of strings there.
    ///
    /// # Errors
    /// [`DataError::Parquet`], [`DataError::NoTextColumn`].
    pub(crate) fn open(path: Arc<Path>, file: File, list: Option<&str>) -> Result<Table> {
        let reader = contained(|| SerializedFileReader::new(file)).map_err(|e| failed(&path, &e))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let absent = |schema: &SchemaDescriptor| {
            let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
            names.join(", ")
        };
        let Some(text) = COLUMNS.into_iter().find_map(|name| column(&schema, name, 0)) else {
            return Err(DataError::NoTextColumn {
                path: path.to_path_buf(),
                found: absent(&schema),
            });
        };
        let list = match list {
            None => None,
            Some(name) => Some(column(&schema, name, 1).ok_or_else(|| DataError::Parquet {
                path: path.to_path_buf(),
                reason: format!("there is no column of texts {name} among {}", absent(&schema)),
            })?),
        };
        Ok(Table {
            path,
            reader,
            text,
            list,
            group: 0,
            current: None,
        })
    }

    /// Row groups of the file, and how many of them are begun.
    pub(crate) fn groups(&self) -> (usize, usize) {
        (self.reader.num_row_groups(), self.group)
    }

    /// Passes over the next `rows` rows, or all that are left.
    ///
    /// # Errors
    /// [`DataError::Parquet`].
    pub(crate) fn skip(&mut self, rows: u64) -> Result<()> {
        self.guarded(|table| {
            let mut left = rows;
            while left > 0 {
                if table.current.is_none() {
                    if table.group == table.reader.num_row_groups() {
                        break;
                    }
                    let rows = u64::try_from(table.reader.metadata().row_group(table.group).num_rows()).unwrap_or(0);
                    if rows <= left {
                        (table.group, left) = (table.group + 1, left - rows);
                        continue;
                    }
                    table.begin_group()?;
                }
                let Some((text, list)) = &mut table.current else {
                    break;
                };
                let some = usize::try_from(left).unwrap_or(usize::MAX);
                let skipped = skip_in(text, some)?;
                if let Some(list) = list
                    && skip_in(list, some)? != skipped
                {
                    return Err(ParquetError::General("columns of different lengths".into()));
                }
                left -= skipped as u64;
                if skipped < some {
                    table.current = None;
                }
            }
            Ok(())
        })
    }

    /// The next rows, at most `rows` of them; none at the end of the file.
    ///
    /// # Errors
    /// [`DataError::Parquet`]. Nothing more is read after it.
    pub(crate) fn read(&mut self, rows: usize) -> Result<Vec<Row>> {
        self.guarded(|table| {
            loop {
                if table.current.is_none() {
                    if table.group == table.reader.num_row_groups() {
                        return Ok(Vec::new());
                    }
                    table.begin_group()?;
                }
                let Some((text, list)) = &mut table.current else {
                    return Ok(Vec::new());
                };
                let texts = lists(text, table.text, rows)?;
                if texts.is_empty() {
                    table.current = None;
                    continue;
                }
                let mut others = match (list, table.list) {
                    (Some(reader), Some(column)) => lists(reader, column, texts.len())?,
                    _ => vec![Vec::new(); texts.len()],
                };
                if others.len() != texts.len() {
                    return Err(ParquetError::General("columns of different lengths".into()));
                }
                let row = |(text, list): (Vec<ByteArray>, Vec<ByteArray>)| Row {
                    text: text.into_iter().next(),
                    list,
                };
                return Ok(texts.into_iter().zip(others.drain(..)).map(row).collect());
            }
        })
    }

    fn begin_group(&mut self) -> Outcome<()> {
        let group = self.reader.get_row_group(self.group)?;
        let list = self.list.map(|list| group.get_column_reader(list.index)).transpose()?;
        self.current = Some((group.get_column_reader(self.text.index)?, list));
        self.group += 1;
        Ok(())
    }

    fn guarded<T>(&mut self, read: impl FnOnce(&mut Self) -> Outcome<T>) -> Result<T> {
        let outcome = contained(|| read(self));
        if outcome.is_err() {
            // Nothing more is asked of what may have been left half done.
            (self.current, self.group) = (None, self.reader.num_row_groups());
        }
        outcome.map_err(|e| failed(&self.path, &e))
    }
}

/// The column `name` of byte strings, in lists of at most `depth` levels.
fn column(schema: &SchemaDescriptor, name: &str, depth: i16) -> Option<Column> {
    let fits = |c: &parquet::schema::types::ColumnDescPtr| {
        c.path().parts().first().is_some_and(|first| first == name)
            && c.physical_type() == Type::BYTE_ARRAY
            && c.max_rep_level() <= depth
            && (depth > 0 || c.path().parts().len() == 1)
    };
    let index = schema.columns().iter().position(fits)?;
    let column = schema.column(index);
    Some(Column {
        index,
        defined: column.max_def_level(),
        repeated: column.max_rep_level() > 0,
    })
}

fn skip_in(reader: &mut ColumnReader, rows: usize) -> Outcome<usize> {
    match reader {
        ColumnReader::ByteArrayColumnReader(column) => column.skip_records(rows),
        _ => Err(changed_type()),
    }
}

/// The next rows of a column, at most `rows`, each with its values.
fn lists(reader: &mut ColumnReader, column: Column, rows: usize) -> Outcome<Vec<Vec<ByteArray>>> {
    let ColumnReader::ByteArrayColumnReader(reader) = reader else {
        return Err(changed_type());
    };
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(
        rows,
        (column.defined > 0).then_some(&mut defined),
        column.repeated.then_some(&mut repeated),
        &mut values,
    )?;
    if column.defined == 0 {
        return Ok(values.into_iter().map(|value| vec![value]).collect());
    }
    let mut values = values.into_iter();
    let mut found: Vec<Vec<ByteArray>> = Vec::with_capacity(records);
    for (i, level) in defined.into_iter().enumerate() {
        if !column.repeated || repeated.get(i) == Some(&0) {
            found.push(Vec::new());
        }
        if level == column.defined
            && let Some(row) = found.last_mut()
        {
            row.extend(values.next());
        }
    }
    Ok(found)
}

fn changed_type() -> ParquetError {
    ParquetError::General("the text column changes its type".into())
}

/// What `read` gives. The library panics on some damaged files where it should give an error (`parquet` 58.4 on a page of a dictionary that is not there); a
/// stranger's file is no reason to end.
fn contained<T>(read: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
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
