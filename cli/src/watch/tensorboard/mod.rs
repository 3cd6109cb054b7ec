//! Scalars of a run as TensorBoard reads them: event files of [`records`], in a directory of their own.
//!
//! Each command at work writes one file more. What an earlier one wrote is not written again: a resume reads which steps are there, writes those that are missing from
//! `metrics.jsonl`, and goes on behind them. Where a run goes back to a checkpoint and on with other data, the file says so, and TensorBoard drops what it held.

mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use self::records::{Event, Scalar, SessionLog, Summary, What};
use crate::{CliError, Result};

/// How event files begin.
const PREFIX: &str = "events.out.tfevents.";
/// How ours end.
const SUFFIX: &str = ".onebit";
/// The version of the format.
const VERSION: &str = "brain.Event:2";
/// A reader waits no longer than this for what was written.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// An open event file.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// The last step of each scalar that is there.
    last: BTreeMap<String, i64>,
    flushed: Instant,
}

impl EventFile {
    /// Refuses a directory that another run has events in, unless this one is `resumed`, or `force`d to remove those of ours.
    pub(crate) fn check(directory: &Path, resumed: bool, force: bool) -> Result<()> {
        if resumed || !directory.exists() {
            return Ok(());
        }
        let ours = |path: &PathBuf| path.to_string_lossy().ends_with(SUFFIX);
        let found = event_files(directory)?;
        if found.iter().all(|path| force && ours(path)) {
            return Ok(());
        }
        Err(CliError::Failed(format!(
            "--tensorboard: {} already holds events of a run; give another directory{}",
            directory.display(),
            if found.iter().all(ours) {
                ", --resume to go on, or --force"
            } else {
                ""
            }
        )))
    }

    /// Opens a file more in `directory`, which is made if it is not there, [checked](Self::check) and with `force` cleared of ours.
    pub(crate) fn open(directory: &Path, resumed: bool, force: bool) -> Result<Self> {
        Self::check(directory, resumed, force)?;
        let failed =
            |e: std::io::Error| CliError::io(directory, "write to", &e, "give --tensorboard another directory");
        fs::create_dir_all(directory).map_err(failed)?;
        let mut last = BTreeMap::new();
        for path in event_files(directory)? {
            if resumed {
                let bytes = fs::read(&path).map_err(|e| CliError::io(&path, "read", &e, "remove it"))?;
                records::read(&bytes).iter().for_each(|event| take_up(&mut last, event));
            } else {
                fs::remove_file(&path).map_err(|e| CliError::io(&path, "remove", &e, "remove it by hand"))?;
            }
        }
        let path = directory.join(format!("{PREFIX}{}.{}{SUFFIX}", now() as u64, std::process::id()));
        let file = File::create(&path).map_err(failed)?;
        let mut events = Self {
            path,
            file: BufWriter::new(file),
            last,
            flushed: Instant::now(),
        };
        events.write(0, What::FileVersion(VERSION.into()))?;
        Ok(events)
    }

    /// Writes what `metrics.jsonl` has and no event file does.
    pub(crate) fn fill_from(&mut self, metrics: &Path) -> Result<()> {
        let text = match fs::read_to_string(metrics) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CliError::io(metrics, "read", &error, "check the permissions there")),
        };
        for line in text.lines() {
            // A rollback stands there as a line of its own, and the steps before it as they were.
            if let Ok(line) = serde_json::from_str::<Value>(line) {
                self.line(&line, None)?;
            }
        }
        self.flush()
    }

    /// Writes the scalars of a line of metrics, and the speed at it, but for those that are there.
    pub(crate) fn line(&mut self, line: &Value, tokens_per_second: Option<f64>) -> Result<()> {
        let Some(step) = line.get("step").and_then(Value::as_i64) else {
            return Ok(());
        };
        let mut value = scalars(line);
        value.extend(tokens_per_second.map(|rate| Scalar::new("speed/tokens_per_second", rate)));
        value.retain(|scalar| self.last.get(&scalar.tag).is_none_or(|last| *last < step));
        if value.is_empty() {
            return Ok(());
        }
        for scalar in &value {
            self.last.insert(scalar.tag.clone(), step);
        }
        self.write(step, What::Summary(Summary { value }))?;
        if self.flushed.elapsed() > FLUSH_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// The run went back to `step`: what lies behind it comes again.
    pub(crate) fn back_to(&mut self, step: u64) -> Result<()> {
        let first = i64::try_from(step).unwrap_or(i64::MAX).saturating_add(1);
        self.last.values_mut().for_each(|last| *last = (*last).min(first - 1));
        self.write(first, What::SessionLog(SessionLog::start()))
    }

    /// Hands everything to the system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.file.flush().map_err(|e| self.failed(&e))
    }

    fn write(&mut self, step: i64, what: What) -> Result<()> {
        let event = Event {
            wall_time: now(),
            step,
            what: Some(what),
        };
        records::write(&mut self.file, &event).map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &std::io::Error) -> CliError {
        CliError::io(&self.path, "write", error, "check the space and the permissions there")
    }
}

/// Event files of whatever program, in the order in which TensorBoard reads them.
fn event_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| CliError::io(directory, "read", &e, "give --tensorboard another directory");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Which steps are there once `event` is read.
fn take_up(last: &mut BTreeMap<String, i64>, event: &Event) {
    match &event.what {
        Some(What::Summary(summary)) => {
            for scalar in &summary.value {
                last.insert(scalar.tag.clone(), event.step);
            }
        }
        Some(What::SessionLog(log)) if log.is_start() => {
            last.values_mut().for_each(|last| *last = (*last).min(event.step - 1));
        }
        _ => {}
    }
}

/// The scalars of a line of metrics.
fn scalars(line: &Value) -> Vec<Scalar> {
    const TAGS: [(&str, &str); 4] = [
        ("loss", "loss/training"),
        ("val_loss", "loss/validation"),
        ("val_ppl", "perplexity/validation"),
        ("lr", "learning_rate"),
    ];
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_f64);
    let mut found: Vec<Scalar> = { TAGS.iter() }
        .filter_map(|(key, tag)| Some(Scalar::new(tag, number(line, key)?)))
        .collect();
    found.extend(number(line, "loss").map(|loss| Scalar::new("perplexity/training", loss.exp())));
    for layer in line.get("layers").and_then(Value::as_array).into_iter().flatten() {
        let name = layer.get("name").and_then(Value::as_str).unwrap_or_default();
        for (key, group) in [("zero", "zeros"), ("flip", "flips")] {
            found.extend(number(layer, key).map(|y| Scalar::new(&format!("{group}/{name}"), y)));
        }
    }
    found
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
