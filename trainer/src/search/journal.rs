//! What a search has evaluated, in a file, so that one that was interrupted goes on.
//!
//! ```text
//! {"onebit_search":1,"inputs":"9f2c…"}                 the caller's hash of all that an evaluation depends on
//! {"map":"0231","tokens":4096,"loss":3.25}             an evaluation; the loss is null where it is not finite
//! ```
//! A search is a function of its inputs and the losses: generations draw from a counter-based generator ([`onebit_engine::rng`]), so neither the number of a generation nor the
//! state of a generator need be kept. To resume is to run the same search again with its journal: what is in it is not computed, but counts as it did.
//! Numbers are written so that they are read back bit by bit.
//!
//! Lines are appended and synced after every evaluation, or every few that ran side by side. A line that the end of the program tore is cut off when the file is opened again.
//! The same journal serves searches with other goals, limits or seeds, as long as the inputs are the same. That one search at a time has it is the caller's affair.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::JournalError;
use super::map::{Candidate, Sites};
use crate::storage::{Output, Storage};

/// Version of the form of the file.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    onebit_search: u32,
    inputs: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    map: String,
    tokens: usize,
    loss: Option<f64>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Box<dyn Output>,
    known: HashMap<(Candidate, usize), f64>,
}

impl Journal {
    /// Opens the journal at `path`, or makes it. `inputs` is a hash of model, text, token counts and sites: whatever an evaluation depends on.
    ///
    /// # Errors
    /// If the file is of other inputs or no journal, has a line that no search of these sites wrote, or if the system refuses.
    pub fn open(storage: &dyn Storage, path: &Path, inputs: &str, sites: &Sites) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io {
            path: path.into(),
            source,
        };
        let mut content = match std::fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        let header = Header {
            onebit_search: VERSION,
            inputs: inputs.into(),
        };
        let header = line(&header).map_err(io)?;
        let whole = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        // A header that was torn is begun again; anything else that has no line is not ours.
        if whole == 0 && !header.starts_with(&content) {
            return Err(JournalError::Foreign { path: path.into() });
        }
        content.truncate(whole);
        let known = read(path, &content, inputs, sites)?;
        let mut file = storage.append(path, whole as u64).map_err(io)?;
        if whole == 0 {
            file.write_all(&header).and_then(|()| file.sync()).map_err(io)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                storage.sync_directory(parent).map_err(io)?;
            }
        }
        Ok(Journal {
            path: path.into(),
            file,
            known,
        })
    }

    /// Evaluations that it has.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The loss of a map over the first `tokens`, if it was evaluated.
    pub fn loss(&self, map: &Candidate, tokens: usize) -> Option<f64> {
        self.known.get(&(map.clone(), tokens)).copied()
    }

    /// Appends evaluations over the first `tokens` and waits until the disk has them.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn append(&mut self, evaluated: &[(Candidate, f64)], tokens: usize) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        for (map, loss) in evaluated {
            let written = line(&Line {
                map: map.to_string(),
                tokens,
                loss: loss.is_finite().then_some(*loss),
            });
            lines.extend(written.map_err(|source| self.io(source))?);
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync());
        written.map_err(|source| self.io(source))?;
        let entries = evaluated.iter().map(|(map, loss)| ((map.clone(), tokens), *loss));
        self.known.extend(entries);
        Ok(())
    }

    fn io(&self, source: std::io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// A value as a line.
fn line(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// The evaluations of whole lines; none if there is no line.
fn read(
    path: &Path,
    content: &[u8],
    inputs: &str,
    sites: &Sites,
) -> Result<HashMap<(Candidate, usize), f64>, JournalError> {
    let mut known = HashMap::new();
    let lines = content.split_inclusive(|&byte| byte == b'\n').enumerate();
    for (i, line) in lines {
        if i == 0 {
            let foreign = |_| JournalError::Foreign { path: path.into() };
            let header: Header = serde_json::from_slice(line).map_err(foreign)?;
            if header.onebit_search != VERSION {
                let why = format!("expected version {VERSION}, found {}", header.onebit_search);
                return Err(damaged(path, i, why));
            }
            if header.inputs != inputs {
                return Err(JournalError::Hash {
                    path: path.into(),
                    expected: inputs.into(),
                    found: header.inputs,
                });
            }
            continue;
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| damaged(path, i, error.to_string()))?;
        let map: Candidate = line.map.parse().map_err(|why| damaged(path, i, why))?;
        if !sites.has(&map) {
            let why = format!("expected a width of each of the {} sites, found {map}", sites.len());
            return Err(damaged(path, i, why));
        }
        known.insert((map, line.tokens), line.loss.unwrap_or(f64::INFINITY));
    }
    Ok(known)
}

fn damaged(path: &Path, line: usize, why: String) -> JournalError {
    JournalError::Line {
        path: path.into(),
        line: line + 1,
        why,
    }
}
