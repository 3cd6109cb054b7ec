//! A disk of which one operation fails.

use std::collections::HashMap;
use std::fs;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Disk, Output, Storage};

/// What happens at the operation that is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails, and later ones do not: a bad sector.
    Io,
    /// It fails, a write after half of its bytes, and so do all that need room after it: a full disk.
    Full,
    /// The program ends before it.
    KillBefore,
    /// The program ends in its middle: half of a write, some of the files of a removal.
    KillDuring,
    /// The program ends after it.
    KillAfter,
    /// The power fails before it: what was not synced is lost, half of a file, a name in a directory.
    PowerLoss,
}

impl Fault {
    pub(crate) const ALL: [Fault; 6] = [
        Fault::Io,
        Fault::Full,
        Fault::KillBefore,
        Fault::KillDuring,
        Fault::KillAfter,
        Fault::PowerLoss,
    ];

    /// Whether the program has ended with it.
    pub(crate) fn ends_the_program(self) -> bool {
        !matches!(self, Fault::Io | Fault::Full)
    }
}

#[derive(Debug)]
struct State {
    /// Operations so far.
    count: usize,
    /// The operation that fails, counted from 0, and how.
    fault: Option<(usize, Fault)>,
    /// Nothing can be done any more.
    dead: bool,
    /// Nothing can be written any more.
    full: bool,
    /// How much of a file the disk has for good.
    lasting: HashMap<PathBuf, u64>,
    /// What a power failure takes: what of files is not lasting, and names that were given, newest last.
    unsynced: Vec<Unsynced>,
}

#[derive(Debug)]
enum Unsynced {
    File { path: PathBuf },
    Name { from: PathBuf, to: PathBuf },
}

/// Counts operations and lets one fail.
#[derive(Clone, Debug)]
pub(crate) struct Faulty(Arc<Mutex<State>>);

fn dead() -> Error {
    Error::other("the program has ended")
}

impl Faulty {
    pub(crate) fn new(fault: Option<(usize, Fault)>) -> Self {
        Faulty(Arc::new(Mutex::new(State {
            count: 0,
            fault,
            dead: false,
            full: false,
            lasting: HashMap::new(),
            unsynced: Vec::new(),
        })))
    }

    /// Operations so far.
    pub(crate) fn count(&self) -> usize {
        self.state().count
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does an operation by `all`, or, if it is the one that fails, a part of it by `half`. `grows` says whether it takes room.
    fn operation<T>(
        &self,
        grows: bool,
        all: impl FnOnce(&mut State) -> Result<T>,
        half: impl FnOnce() -> Option<T>,
    ) -> Result<T> {
        let mut state = self.state();
        if state.dead {
            return Err(dead());
        }
        let at = state.count;
        state.count += 1;
        let fault = state.fault.filter(|(fails, _)| *fails == at).map(|(_, fault)| fault);
        if state.full && grows {
            return Err(ErrorKind::StorageFull.into());
        }
        match fault {
            None => all(&mut state),
            Some(Fault::Io) => Err(Error::other("input/output error")),
            Some(Fault::Full) => {
                state.full = true;
                match half() {
                    // As the system has it: a write that took some bytes succeeds, and the next fails.
                    Some(part) if grows => Ok(part),
                    _ if grows => Err(ErrorKind::StorageFull.into()),
                    _ => all(&mut state),
                }
            }
            Some(Fault::KillBefore) => {
                state.dead = true;
                Err(dead())
            }
            Some(Fault::KillDuring) => {
                half();
                state.dead = true;
                Err(dead())
            }
            Some(Fault::KillAfter) => {
                let _ = all(&mut state);
                state.dead = true;
                Err(dead())
            }
            Some(Fault::PowerLoss) => {
                state.lose();
                state.dead = true;
                Err(dead())
            }
        }
    }
}

impl State {
    fn wrote(&mut self, path: &Path) {
        let known = self
            .unsynced
            .iter()
            .any(|u| matches!(u, Unsynced::File { path: known } if known == path));
        if !known {
            let path = path.to_path_buf();
            self.unsynced.push(Unsynced::File { path });
        }
    }

    fn synced(&mut self, path: &Path) -> Result<()> {
        self.unsynced
            .retain(|u| !matches!(u, Unsynced::File { path: known } if known == path));
        self.lasting.insert(path.into(), fs::metadata(path)?.len());
        Ok(())
    }

    /// Undoes what no sync has made lasting, newest first.
    fn lose(&mut self) {
        for lost in std::mem::take(&mut self.unsynced).into_iter().rev() {
            match lost {
                Unsynced::File { path } => {
                    let synced = self.lasting.get(&path).copied().unwrap_or(0);
                    if let Ok(file) = fs::OpenOptions::new().write(true).open(&path) {
                        let length = file.metadata().map_or(0, |m| m.len());
                        file.set_len(synced + length.saturating_sub(synced) / 2).unwrap();
                    }
                }
                Unsynced::Name { from, to } => fs::rename(to, from).unwrap(),
            }
        }
    }
}

/// An open file of a [`Faulty`] disk.
#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    path: PathBuf,
    file: fs::File,
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut half = self.file.try_clone()?;
        self.disk.operation(
            true,
            |state| {
                state.wrote(&self.path);
                self.file.write(bytes)
            },
            || half.write(&bytes[..bytes.len() / 2]).ok().filter(|&n| n > 0),
        )
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Output for FaultyFile {
    fn sync(&mut self) -> Result<()> {
        self.disk.operation(true, |state| state.synced(&self.path), || None)
    }
}

impl Storage for Faulty {
    fn create_directory(&self, path: &Path) -> Result<()> {
        self.operation(true, |_| Disk.create_directory(path), || None)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn Output>> {
        self.operation(
            true,
            |state| {
                state.lasting.remove(path);
                state.wrote(path);
                let file: Box<dyn Output> = Box::new(FaultyFile {
                    disk: self.clone(),
                    path: path.into(),
                    file: fs::File::create(path)?,
                });
                Ok(file)
            },
            || None,
        )
    }

    fn append(&self, path: &Path, length: u64) -> Result<Box<dyn Output>> {
        self.operation(
            false,
            |state| {
                Disk.append(path, length)?;
                state.lasting.insert(path.into(), length);
                let file = fs::OpenOptions::new().append(true).open(path)?;
                let file: Box<dyn Output> = Box::new(FaultyFile {
                    disk: self.clone(),
                    path: path.into(),
                    file,
                });
                Ok(file)
            },
            || None,
        )
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.operation(true, |state| state.synced(path), || None)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.operation(
            true,
            |state| {
                state
                    .unsynced
                    .retain(|u| !matches!(u, Unsynced::Name { to, .. } if to.parent() == Some(path)));
                Ok(())
            },
            || None,
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.operation(
            false,
            |state| {
                Disk.rename(from, to)?;
                // What is in a directory is found at its new place.
                for unsynced in &mut state.unsynced {
                    if let Unsynced::File { path } = unsynced
                        && let Ok(rest) = path.strip_prefix(from)
                    {
                        *path = to.join(rest);
                    }
                }
                let (from, to) = (from.into(), to.into());
                state.unsynced.push(Unsynced::Name { from, to });
                Ok(())
            },
            || None,
        )
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        self.operation(
            false,
            |state| {
                let gone = |at: &Path| at.starts_with(path);
                state.unsynced.retain(|u| match u {
                    Unsynced::File { path } => !gone(path),
                    Unsynced::Name { to, .. } => !gone(to),
                });
                Disk.remove_directory(path)
            },
            || {
                // Every other file of it.
                let entries = fs::read_dir(path).ok()?;
                entries.flatten().step_by(2).for_each(|entry| {
                    let _ = fs::remove_file(entry.path());
                });
                None
            },
        )
    }

    fn free_space(&self, path: &Path) -> Result<Option<u64>> {
        Disk.free_space(path)
    }
}
