//! Shards come before their visits.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::cursor::Cursor;
use super::{Shared, StackEvent};
use crate::Result;
use crate::stack::StackError;
use crate::stack::cache::{Pin, file_name};

/// Shards for the next visits.
#[derive(Debug)]
pub(super) struct Downloads {
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The visit that is at work.
    visit: u64,
    /// Shards on the disk, by visit.
    ready: BTreeMap<u64, Pin>,
    /// What went wrong with the visit that is not there.
    failed: Option<crate::TrainError>,
    closed: bool,
}

impl Downloads {
    pub fn new(ahead: u64) -> Self {
        Downloads {
            ahead,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patient<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard of a visit, which begins now. Visits come in order; the shards of those before are let go of.
    pub fn take(&self, visit: u64) -> Result<Pin> {
        let mut state = self.state();
        state.visit = visit;
        // A visit that was passed over may have had its shard.
        state.ready = state.ready.split_off(&visit);
        self.changed.notify_all();
        loop {
            if let Some(pin) = state.ready.remove(&visit) {
                return Ok(pin);
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            if state.closed {
                return Err(StackError::Stopped.into());
            }
            state = self.patient(state);
        }
    }

    /// Waits until the shard of a visit is to be fetched; false if it is not any more.
    fn is_wanted(&self, visit: u64) -> bool {
        let mut state = self.state();
        while !state.closed && visit > state.visit + self.ahead {
            state = self.patient(state);
        }
        !state.closed
    }

    fn put(&self, visit: u64, outcome: Result<Pin>) {
        let mut state = self.state();
        match outcome {
            Ok(pin) if visit >= state.visit => {
                state.ready.insert(visit, pin);
            }
            Ok(_) => {}
            Err(error) => state.failed = Some(error),
        }
        self.changed.notify_all();
    }

    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.ready.clear();
        self.changed.notify_all();
    }
}

/// Fetches the shards of the visits from the cursor's on.
pub(super) fn run(shared: &Shared, from: Cursor) -> Result<()> {
    let mut walk = shared.sampler.walk();
    for _ in 0..from.visit {
        walk.next();
    }
    shared.downloads.state().visit = from.visit;
    while let Some(visit) = walk.next() {
        if !shared.downloads.is_wanted(visit.number) {
            break;
        }
        if from.shards.damaged.contains_key(&visit.shard) {
            continue;
        }
        let shard = &shared.options.shards[visit.shard];
        let last: HashSet<String> = walk.recent().map(|i| file_name(&shared.options.shards[i])).collect();
        if !shared.cache.here(shard) {
            shared.tell(StackEvent::Fetching {
                shard: shard.id.clone(),
                bytes: shard.bytes,
            });
        }
        let pin = shared.cache.obtain(shard, &last, &*shared.fetch, &shared.stop);
        let failed = pin.is_err();
        if !(failed && shared.stop.load(Ordering::Relaxed)) {
            shared.downloads.put(visit.number, pin);
        }
        if failed {
            break;
        }
    }
    Ok(())
}
