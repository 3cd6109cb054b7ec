//! Measurements in a file, as they come: one that was interrupted goes on, and one that was made is not made again.
//!
//! ```text
//! {"onebit_sensitivity":1,"inputs":"9f2c…"}                                                     a hash of model, text, tokens and reference
//! {"site":"model.layers.0.mlp.up_proj.weight","width":"int4","loss":4.31,"error":0.0012}        the loss is null where it is not finite
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

const VERSION: u32 = 1;

#[derive(Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Header {
    onebit_sensitivity: u32,
    inputs: String,
}

/// What a width of a matrix alone does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub site: String,
    pub width: String,
    pub loss: Option<f64>,
    pub error: Option<f64>,
}

/// An open file of measurements.
pub(super) struct Records {
    path: PathBuf,
    file: File,
    known: HashMap<(String, String), Record>,
}

impl Records {
    /// Opens `path`, or makes it. A file of other inputs, or one that is damaged, is begun anew: all that is lost is time.
    pub fn open(path: &Path, inputs: &str) -> Result<Self> {
        let failed = |source| TrainError::Io {
            path: path.into(),
            source,
            action: "check the space and the permissions there",
        };
        let content = match std::fs::read_to_string(path) {
            Ok(content) => content,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let header = Header {
            onebit_sensitivity: VERSION,
            inputs: inputs.into(),
        };
        let whole = &content[..content.rfind('\n').map_or(0, |at| at + 1)];
        let mut lines = whole.lines();
        let ours = lines.next().and_then(|line| serde_json::from_str::<Header>(line).ok()) == Some(header.clone());
        let records = lines
            .map(serde_json::from_str::<Record>)
            .collect::<std::result::Result<Vec<_>, _>>();
        let (kept, records) = match records {
            Ok(records) if ours => (whole.len(), records),
            _ => (0, Vec::new()),
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(failed)?;
        file.set_len(kept as u64).map_err(failed)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(failed)?;
        let known = { records.into_iter() }.map(|record| ((record.site.clone(), record.width.clone()), record));
        let mut records = Records {
            path: path.into(),
            file,
            known: known.collect(),
        };
        if kept == 0 {
            records.write(&header)?;
        }
        Ok(records)
    }

    /// What was measured of a width.
    pub fn get(&self, site: &str, width: &str) -> Option<&Record> {
        self.known.get(&(site.to_string(), width.to_string()))
    }

    /// Appends a measurement.
    pub fn add(&mut self, record: Record) -> Result<()> {
        self.write(&record)?;
        self.known.insert((record.site.clone(), record.width.clone()), record);
        Ok(())
    }

    fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let written = serde_json::to_vec(value)
            .map_err(std::io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.file.write_all(&line)
            });
        written.map_err(|source| TrainError::Io {
            path: self.path.clone(),
            source,
            action: "check the space and the permissions there",
        })
    }
}
