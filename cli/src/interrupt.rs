//! Ctrl-C. A command that can end in good order polls [`requested`]; any other ends at once, with the status of an interruption.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{CliError, INTERRUPTED, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static POLLED: AtomicBool = AtomicBool::new(false);

/// Signals closer together than this are one: `timeout` and some shells send theirs to the process and to its group.
const SAME: Duration = Duration::from_millis(500);

/// Installs the handler, once a process.
pub(crate) fn install() -> Result<()> {
    let first: Mutex<Option<Instant>> = Mutex::new(None);
    let handler = move || {
        let pending = REQUESTED.swap(true, Ordering::Relaxed);
        let second = match first.lock() {
            Ok(first) if pending => first.is_none_or(|at| at.elapsed() > SAME),
            Ok(mut first) => {
                *first = Some(Instant::now());
                false
            }
            Err(_) => pending,
        };
        if second || !POLLED.load(Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(handler).map_err(|e| CliError::Failed(format!("cannot watch for Ctrl-C: {e}; report this")))
}

/// From here on the command polls; a second Ctrl-C still ends it at once.
pub(crate) fn poll() -> &'static AtomicBool {
    POLLED.store(true, Ordering::Relaxed);
    &REQUESTED
}

/// Ends the polling: Ctrl-C ends the command at once again, and one that was seen is forgotten.
pub(crate) fn forget() {
    REQUESTED.store(false, Ordering::Relaxed);
    POLLED.store(false, Ordering::Relaxed);
}

/// Whether Ctrl-C was pressed.
#[cfg(feature = "train")]
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Asks for the end as Ctrl-C does, where that is a key like others; tells whether somebody had asked before.
#[cfg(feature = "train")]
pub(crate) fn request() -> bool {
    REQUESTED.swap(true, Ordering::Relaxed)
}
