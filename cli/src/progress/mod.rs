//! Progress on stderr: a bar on a terminal, plain lines every few seconds elsewhere (and everywhere in a build without the feature `progress`), nothing for
//! work shorter than a second.

#[cfg(feature = "progress")]
mod bar;
#[cfg(not(feature = "progress"))]
mod no_bar;

use std::sync::Mutex;
use std::time::{Duration, Instant};

#[cfg(feature = "progress")]
use self::bar::Bar;
#[cfg(not(feature = "progress"))]
use self::no_bar::Bar;
use crate::output;

/// Work shorter than this shows nothing.
const QUIET: Duration = Duration::from_secs(1);
/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one piece of work; may be told from any thread.
pub(crate) struct Progress {
    label: &'static str,
    total: u64,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    bar: Option<Bar>,
    last_line: Instant,
}

impl Progress {
    /// Work of `total` units, 0 if that is not known.
    pub(crate) fn new(label: &'static str, total: u64) -> Self {
        let started = Instant::now();
        // The first plain line comes as soon as the work has lasted long enough to be worth one.
        let last_line = started.checked_sub(LINE_EVERY).unwrap_or(started);
        let state = Mutex::new(State { bar: None, last_line });
        Self {
            label,
            total,
            started,
            state,
        }
    }

    /// `done` units are done; `message` says more, such as the loss: parts with two spaces between them, of which the last are left out where a terminal is narrow.
    pub(crate) fn set(&self, done: u64, message: impl FnOnce() -> String) {
        if self.started.elapsed() < QUIET {
            return;
        }
        // A thread that finds the lock taken has nothing newer to tell.
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.bar.is_none() {
            state.bar = Bar::new(self.label, self.total);
        }
        if let Some(bar) = &mut state.bar {
            bar.set(done, &message());
        } else if state.last_line.elapsed() >= LINE_EVERY {
            state.last_line = Instant::now();
            let share = if self.total > 0 {
                format!(" {:.0}%", 100.0 * done as f64 / self.total as f64)
            } else {
                String::new()
            };
            let left = self.left(done).map_or(String::new(), |left| format!(", {left} left"));
            let message = message();
            let separator = if message.is_empty() { "" } else { ": " };
            output::note(&format!("{}{share}{separator}{message}{left}", self.label));
        }
    }

    /// The time that the rest will take if it goes on as before.
    pub(crate) fn left(&self, done: u64) -> Option<String> {
        let rest = self.total.checked_sub(done)?;
        let spent = self.started.elapsed().as_secs_f64();
        (done > 0).then(|| output::seconds(spent / done as f64 * rest as f64))
    }

    /// A line beside the bar.
    #[cfg(feature = "train")]
    pub(crate) fn note(&self, line: &str) {
        match self.state.lock().ok().as_deref() {
            Some(State { bar: Some(bar), .. }) => bar.suspend(|| output::note(line)),
            _ => output::note(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock()
            && let Some(bar) = state.bar.take()
        {
            bar.clear();
        }
    }
}
