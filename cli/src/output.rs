//! Results on stdout, everything else on stderr.

use std::io::{ErrorKind, Write};
#[cfg(feature = "train")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::{CliError, Result};

/// Writes text to stdout as it is.
///
/// A reader that has gone ends the command quietly, as a pipe into `head` should.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => CliError::ReaderGone,
            _ => CliError::Failed(format!("cannot write the result: {error}; check where stdout goes")),
        })
}

/// Writes a line to stdout.
pub(crate) fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// Writes one JSON object on one line to stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string(value)
        .map_err(|e| CliError::Failed(format!("cannot write the result as JSON: {e}; report this")))?;
    line(&json)
}

/// Which of several processes this is.
static RANK: AtomicUsize = AtomicUsize::new(0);

/// From here on this is rank `rank` of several processes that do the same: rank 0 speaks for all, the others tell of errors alone.
#[cfg(feature = "train")]
pub(crate) fn speak_as(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

/// Takes lines in the place of stderr.
#[cfg(feature = "train")]
type Diversion = Box<dyn Fn(&str) + Send>;

/// Where notes go while something else is on the terminal.
#[cfg(feature = "train")]
static DIVERTED: Mutex<Option<Diversion>> = Mutex::new(None);

/// From here on notes go to `to`.
#[cfg(feature = "train")]
pub(crate) fn divert(to: Diversion) {
    if let Ok(mut diverted) = DIVERTED.lock() {
        *diverted = Some(to);
    }
}

/// From here on they go to stderr again.
#[cfg(feature = "train")]
pub(crate) fn undivert() {
    if let Ok(mut diverted) = DIVERTED.lock() {
        *diverted = None;
    }
}

/// Writes a line to stderr. An error there has nowhere left to be told.
pub(crate) fn note(line: &str) {
    #[cfg(feature = "train")]
    if let Ok(diverted) = DIVERTED.lock()
        && let Some(to) = diverted.as_ref()
    {
        return to(line);
    }
    if RANK.load(Ordering::Relaxed) == 0 {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Writes a line about a failure to stderr, with its rank where that is not 0.
pub(crate) fn alarm(line: &str) {
    let _ = match RANK.load(Ordering::Relaxed) {
        0 => writeln!(std::io::stderr().lock(), "{line}"),
        rank => writeln!(std::io::stderr().lock(), "rank {rank}: {line}"),
    };
}

/// Rows of a name and a value, aligned.
pub(crate) fn table(rows: &[(&str, String)]) -> Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: String = rows
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect();
    text(&lines)
}

/// A number of bytes for people: `1.50 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.2} {}", UNITS[unit])
    }
}

/// A count for people: `2.41 B`, `24.7 M`.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} B", n as f64 / 1e9),
    }
}

/// A duration for people: `45 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536 << 20), "1.50 GiB");
        assert_eq!(count(9999), "9999");
        assert_eq!(count(2_412_820_480), "2.41 B");
        assert_eq!(seconds(59.4), "59 s");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(7500.0), "2 h 05 min");
    }
}
