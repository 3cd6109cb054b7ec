//! The windows between the thread that makes them and the run that takes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cursor::Cursor;
use crate::run::Arrival;
use crate::stack::StackError;
use crate::{Result, TrainError};

/// Between two looks at whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// A window that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub tokens: Vec<u32>,
    /// The pass over the manifest, counted from 1.
    pub epoch: u64,
    /// Where the next one begins.
    pub after: Cursor,
}

#[derive(Debug)]
pub(super) struct Queue {
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first window.
    first: u64,
    /// Where it begins.
    base: Cursor,
    windows: VecDeque<Made>,
    /// Windows before this one are wanted.
    wanted: u64,
    epoch: u64,
    /// There will be no more.
    ended: bool,
    failed: bool,
    error: Option<TrainError>,
    closed: bool,
}

impl State {
    fn end(&self) -> u64 {
        self.first + self.windows.len() as u64
    }
}

impl Queue {
    pub fn new(ahead: u64) -> Self {
        Queue {
            ahead: ahead.max(1),
            state: Mutex::new(State {
                epoch: 1,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patient<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, PATIENCE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes `index` the first window, which begins at `cursor`.
    pub fn begin(&self, index: u64, cursor: Cursor) {
        let mut state = self.state();
        (state.first, state.wanted, state.base) = (index, index, cursor);
    }

    /// Where the first window that is there begins, and its number.
    pub fn base(&self) -> (Cursor, u64) {
        let state = self.state();
        (state.base.clone(), state.first)
    }

    /// Adds a window, when there is room for it; false if nobody wants it any more.
    pub fn push(&self, made: Made) -> bool {
        let mut state = self.state();
        while !state.closed && state.end() >= state.wanted + self.ahead {
            state = self.patient(state);
        }
        if state.closed {
            return false;
        }
        state.windows.push_back(made);
        self.changed.notify_all();
        true
    }

    /// There are no more.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// There are no more, for this reason. The first is told.
    pub fn fail(&self, error: TrainError) {
        let mut state = self.state();
        if !state.failed && !state.closed {
            (state.failed, state.error) = (true, Some(error));
        }
        self.changed.notify_all();
    }

    /// Nobody takes any more.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    pub fn wait(&self, index: u64, stop: &AtomicBool) -> Result<Arrival> {
        let mut state = self.state();
        if index < state.first {
            return Err(elsewhere(index, &state));
        }
        if index >= state.wanted {
            state.wanted = index + 1;
            self.changed.notify_all();
        }
        loop {
            if index < state.end() {
                return Ok(Arrival::Here);
            }
            if state.failed {
                let again = || TrainError::Runtime("the stream of shards has failed".into());
                return Err(state.error.take().unwrap_or_else(again));
            }
            if state.ended {
                return Ok(Arrival::Never);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Arrival::Stopped);
            }
            state = self.patient(state);
        }
    }

    /// Appends window `index`; false if there is none.
    pub fn window(&self, index: u64, into: &mut Vec<u32>) -> Result<bool> {
        if self.wait(index, &AtomicBool::new(false))? != Arrival::Here {
            return Ok(false);
        }
        let state = self.state();
        let made = state.windows.get((index - state.first) as usize);
        let made = made.ok_or_else(|| elsewhere(index, &state))?;
        into.extend_from_slice(&made.tokens);
        Ok(true)
    }

    pub fn epoch(&self, index: u64) -> u64 {
        let state = self.state();
        let made = index
            .checked_sub(state.first)
            .and_then(|at| state.windows.get(at as usize));
        made.map_or(state.epoch, |made| made.epoch)
    }

    /// Where window `index` begins.
    pub fn cursor(&self, index: u64) -> Result<Cursor> {
        let state = self.state();
        if index == state.first {
            return Ok(state.base.clone());
        }
        let before = index.checked_sub(state.first + 1);
        let made = before.and_then(|at| state.windows.get(at as usize));
        made.map(|made| made.after.clone())
            .ok_or_else(|| elsewhere(index, &state))
    }

    /// Lets go of the windows before `index`. Returns the documents that were let through before it.
    pub fn forget(&self, index: u64) -> u64 {
        let mut state = self.state();
        while state.first < index
            && let Some(made) = state.windows.pop_front()
        {
            state.first += 1;
            (state.base, state.epoch) = (made.after, made.epoch);
        }
        state.base.documents
    }
}

fn elsewhere(index: u64, state: &State) -> TrainError {
    let why = format!("window {index} is not among {} to {}", state.first, state.end());
    StackError::Cursor { why }.into()
}
