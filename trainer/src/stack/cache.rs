//! Shards on the disk, under a budget.
//!
//! ```text
//! local_root/
//!   .lock                              one run at a time
//!   0f3a…-train-00000-of-00206.parquet  a whole shard: a hash of data set, revision and path, and its name
//!   77b1…-train-00003-of-00206.parquet.part  one on its way
//! ```
//! **The budget holds at every moment.** It counts all that lies in the folder, whoever put it there. Before a byte of a shard is fetched its whole length is reserved, and others
//! make way for it: those that are not in use, least recently used first, and the last ones, which may be visited again, after all others. If all that could go is in use,
//! the fetch waits.
//!
//! There is no index that could be wrong: what is there is looked up in the folder. A shard that does not have its length is none.

mod files;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::files::file_name;
use self::files::{bytes_below, is_ours, length, remove};
use super::StackError;
use super::fetch::{Fetch, part_of};
use super::manifest::Shard;
use crate::error::io_error;
use crate::hub::HubError;
use crate::run::RunLock;
use crate::storage::Storage;
use crate::{Result, TrainError};

/// What stays free on the disk: others write there too.
const MARGIN: u64 = 16 << 20;
/// Between two looks at whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);
const BY_HAND: &str = "check the permissions there, or remove it by hand";

/// The folder.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    budget: u64,
    storage: Arc<dyn Storage>,
    state: Mutex<State>,
    /// Something was let go of, or has come.
    changed: Condvar,
    _lock: RunLock,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Bytes that it has, or will have when it is whole.
    bytes: u64,
    /// Whether it is whole.
    here: bool,
    /// Who is at work with it.
    pins: u32,
    last_use: u64,
}

/// Keeps a shard on the disk until it is dropped.
#[derive(Debug)]
pub struct Pin {
    cache: Arc<Cache>,
    name: String,
}

impl Pin {
    /// Where the shard lies.
    pub fn path(&self) -> PathBuf {
        self.cache.root.join(&self.name)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.cache.release(&self.name);
    }
}

impl Cache {
    /// Opens the folder `root`, which is made if it is not there, for at most `budget` bytes. What is there and does not fit goes.
    ///
    /// # Errors
    /// [`TrainError::Locked`], [`TrainError::Io`].
    pub fn open(root: &Path, budget: u64, storage: Arc<dyn Storage>) -> Result<Arc<Self>> {
        let lock = RunLock::take(root)?;
        let cache = Cache {
            root: root.to_path_buf(),
            budget,
            storage,
            state: Mutex::default(),
            changed: Condvar::new(),
            _lock: lock,
        };
        let mut found = Vec::new();
        for (name, about) in cache.files()? {
            if is_ours(&name) && about.is_dir() {
                // What a command was about to bring.
                let left = cache.root.join(&name);
                fs::remove_dir_all(&left).map_err(io_error(&left, BY_HAND))?;
            } else if is_ours(&name) {
                found.push((about.modified().ok(), name, about.len()));
            }
        }
        found.sort();
        {
            let mut state = cache.state();
            for (_, name, bytes) in found {
                let (whole, here) = match name.strip_suffix(".part") {
                    Some(whole) => (whole.to_string(), false),
                    None => (name.clone(), true),
                };
                state.clock += 1;
                let last_use = state.clock;
                let entry = state.entries.entry(whole).or_default();
                if entry.bytes > 0 || entry.here {
                    // A shard and a part of it: the part is of no use.
                    let part = part_of(&cache.root.join(name.trim_end_matches(".part")));
                    remove(&part)?;
                    entry.bytes = if here { bytes } else { entry.bytes };
                } else {
                    entry.bytes = bytes;
                }
                (entry.here, entry.last_use) = (entry.here || here, last_use);
            }
            let others = cache.others(&state)?;
            while others + state.held() > cache.budget && cache.evict(&mut state, "", &HashSet::new())? {}
        }
        Ok(Arc::new(cache))
    }

    /// Refuses shards of which one could never be fetched.
    ///
    /// # Errors
    /// [`StackError::TooLarge`].
    pub fn check<'a>(&self, shards: impl Iterator<Item = &'a Shard>) -> Result<()> {
        let others = self.others(&self.state())?;
        for shard in shards {
            self.check_one(shard, others)?;
        }
        Ok(())
    }

    fn check_one(&self, shard: &Shard, others: u64) -> Result<()> {
        if others.saturating_add(shard.bytes) <= self.budget {
            return Ok(());
        }
        Err(StackError::TooLarge {
            shard: shard.id.clone(),
            bytes: shard.bytes,
            budget: self.budget,
            room: self.budget.saturating_sub(others),
            path: self.root.clone(),
        }
        .into())
    }

    /// Whether a shard is on the disk.
    pub fn here(&self, shard: &Shard) -> bool {
        self.state()
            .entries
            .get(&file_name(shard))
            .is_some_and(|entry| entry.here)
    }

    /// The shard on the disk, fetched if it is not there. Shards of `last` go last.
    ///
    /// # Errors
    /// Those of `fetch`; [`StackError::TooLarge`], [`StackError::NoSpace`]; [`StackError::Stopped`].
    pub fn obtain(
        self: &Arc<Self>,
        shard: &Shard,
        last: &HashSet<String>,
        fetch: &dyn Fetch,
        stop: &AtomicBool,
    ) -> Result<Pin> {
        let name = file_name(shard);
        let path = self.root.join(&name);
        let mut state = self.state();
        // Somebody is fetching it.
        while state
            .entries
            .get(&name)
            .is_some_and(|entry| !entry.here && entry.pins > 0)
        {
            state = self.wait(state, stop)?;
        }
        if let Some(entry) = state.entries.get_mut(&name)
            && entry.here
            && (entry.pins > 0 || fs::metadata(&path).is_ok_and(|about| about.len() == shard.bytes))
        {
            entry.pins += 1;
            state.touch(&name);
            return Ok(self.pin(name));
        }
        state = self.reserve(state, shard, &name, last, stop)?;
        drop(state);
        let mut fetched = self.fetch(shard, &path, fetch, stop);
        while fetched.as_ref().is_err_and(is_full) && self.evict(&mut self.state(), &name, last)? {
            fetched = self.fetch(shard, &path, fetch, stop);
        }
        let mut state = self.state();
        let entry = state.entries.entry(name.clone()).or_default();
        if let Err(error) = fetched {
            entry.pins = entry.pins.saturating_sub(1);
            // What came of it may be gone on with.
            entry.bytes = length(&part_of(&path));
            if entry.bytes == 0 && entry.pins == 0 {
                state.entries.remove(&name);
            }
            self.changed.notify_all();
            return Err(error);
        }
        entry.here = true;
        state.touch(&name);
        self.changed.notify_all();
        Ok(self.pin(name))
    }

    /// Fetches a shard again whose file is no good. It stays reserved.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn renew(&self, pin: &Pin, shard: &Shard, fetch: &dyn Fetch, stop: &AtomicBool) -> Result<()> {
        let here = |here: bool| {
            if let Some(entry) = self.state().entries.get_mut(&pin.name) {
                entry.here = here;
            }
            self.changed.notify_all();
        };
        here(false);
        let path = pin.path();
        remove(&path)?;
        self.fetch(shard, &path, fetch, stop)?;
        here(true);
        Ok(())
    }

    /// Fetches a shard for which there is room.
    fn fetch(&self, shard: &Shard, path: &Path, fetch: &dyn Fetch, stop: &AtomicBool) -> Result<()> {
        fetch.fetch(shard, path, stop)?;
        let found = fs::metadata(path).map_err(io_error(path, BY_HAND))?.len();
        if found == shard.bytes {
            return Ok(());
        }
        remove(path)?;
        Err(StackError::Size {
            shard: shard.id.clone(),
            expected: shard.bytes,
            found,
            path: path.to_path_buf(),
        }
        .into())
    }

    /// Makes room for a shard and takes it.
    fn reserve<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        shard: &Shard,
        name: &str,
        last: &HashSet<String>,
        stop: &AtomicBool,
    ) -> Result<MutexGuard<'a, State>> {
        let path = self.root.join(name);
        // A file of another length, and a part that is longer than the whole.
        remove(&path)?;
        let part = part_of(&path);
        if length(&part) > shard.bytes {
            remove(&part)?;
        }
        loop {
            let others = self.others(&state)?;
            self.check_one(shard, others)?;
            let entry = state.entries.entry(name.to_string()).or_default();
            (entry.here, entry.bytes) = (false, length(&part));
            let in_budget = others + state.held() - length(&part) + shard.bytes <= self.budget;
            let needed = shard.bytes - length(&part);
            let unread = io_error(&self.root, "check that the folder is there");
            let free = self.storage.free_space(&self.root).map_err(unread)?;
            let on_disk = free.is_none_or(|free| free >= needed.saturating_add(MARGIN));
            if in_budget && on_disk {
                let entry = state.entries.entry(name.to_string()).or_default();
                (entry.bytes, entry.pins) = (shard.bytes, 1);
                return Ok(state);
            }
            if self.evict(&mut state, name, last)? {
                continue;
            }
            if state
                .entries
                .iter()
                .all(|(other, entry)| other == name || entry.pins == 0)
            {
                return Err(StackError::NoSpace {
                    path: self.root.clone(),
                    shard: shard.id.clone(),
                    needed: needed.saturating_add(MARGIN),
                    free: free.unwrap_or(0),
                }
                .into());
            }
            state = self.wait(state, stop)?;
        }
    }

    /// Removes the shard that was used least recently of those that may go, `last` after the others; false if none may.
    fn evict(&self, state: &mut State, but: &str, last: &HashSet<String>) -> Result<bool> {
        let candidates = state
            .entries
            .iter()
            .filter(|(name, entry)| entry.pins == 0 && *name != but);
        let oldest = candidates.min_by_key(|(name, entry)| (last.contains(*name), entry.last_use));
        let Some(name) = oldest.map(|(name, _)| name.clone()) else {
            return Ok(false);
        };
        let path = self.root.join(&name);
        remove(&part_of(&path))?;
        remove(&path)?;
        state.entries.remove(&name);
        Ok(true)
    }

    /// Bytes of what lies in the folder and is not ours.
    fn others(&self, state: &State) -> Result<u64> {
        let ours = |name: &str| state.entries.contains_key(name.strip_suffix(".part").unwrap_or(name));
        let files = self.files()?.into_iter().filter(|(name, _)| !ours(name));
        Ok(files
            .map(|(name, about)| match about.is_dir() {
                true => bytes_below(&self.root.join(name)),
                false => about.len(),
            })
            .sum())
    }

    fn files(&self) -> Result<Vec<(String, fs::Metadata)>> {
        let unread = || io_error(&self.root, "check that the folder is there and can be read");
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(unread())? {
            let entry = entry.map_err(unread())?;
            match entry.metadata() {
                Ok(about) => found.push((entry.file_name().to_string_lossy().into_owned(), about)),
                // It was renamed or removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(unread()(error)),
            }
        }
        Ok(found)
    }

    fn pin(self: &Arc<Self>, name: String) -> Pin {
        Pin {
            cache: self.clone(),
            name,
        }
    }

    fn release(&self, name: &str) {
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(name) {
            entry.pins = entry.pins.saturating_sub(1);
        }
        state.touch(name);
        self.changed.notify_all();
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, stop: &AtomicBool) -> Result<MutexGuard<'a, State>> {
        if stop.load(Ordering::Relaxed) {
            return Err(StackError::Stopped.into());
        }
        let waited = self.changed.wait_timeout(state, PATIENCE);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Bytes that are there or reserved.
    fn held(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    fn touch(&mut self, name: &str) {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.last_use = self.clock;
        }
    }
}

/// Whether an error is that of a full disk.
fn is_full(error: &TrainError) -> bool {
    use ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        TrainError::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
        TrainError::Hub(HubError::DiskFull { .. }) => true,
        _ => false,
    }
}
