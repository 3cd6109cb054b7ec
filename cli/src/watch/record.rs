//! `run.json` beside the metrics: what a run is, what it ran on, and how long it took. It depends on the clock, as the metrics must not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use onebit_model::files::replace_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{CliError, Result, output};

/// Its name in the run's directory.
pub(crate) const RUN_FILE: &str = "run.json";

/// A run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The model, as in its `config.json`.
    pub config: Value,
    /// How it is trained.
    pub options: Value,
    /// Parameters of the model.
    pub parameters: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Tokens of a step, of all ranks.
    pub tokens_per_step: u64,
    /// The commands that made it, in order: one, and one more for each resume.
    pub sessions: Vec<Session>,
}

/// One command at work on a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Version of the program.
    pub version: String,
    /// As it is told when training begins.
    pub device: String,
    /// Path of the CPU.
    pub isa: String,
    /// Threads of the CPU.
    pub threads: usize,
    /// Processes.
    pub ranks: usize,
    /// Arithmetic of the matrix products.
    pub precision: String,
    /// When it began, seconds since 1970.
    pub began: u64,
    /// Steps done before.
    pub from_step: u64,
    /// Steps done when this was written last.
    pub to_step: u64,
    /// Seconds of training until then.
    pub seconds: f64,
    /// The share of the machine's peak, where that is known.
    pub share_of_peak: Option<f64>,
}

impl RunRecord {
    /// Reads that of a run; none where there is no file.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(RUN_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::io(&path, "read", &error, "check the permissions there")),
        };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            CliError::Failed(format!(
                "{}: {e}; it is not as `onebit train` writes it: remove it to go without",
                path.display()
            ))
        })
    }

    /// Seconds of all sessions.
    pub(crate) fn seconds(&self) -> f64 {
        self.sessions.iter().map(|session| session.seconds).sum()
    }

    /// Steps of all sessions, those included that were lost when one was killed.
    pub(crate) fn steps(&self) -> u64 {
        let steps = |session: &Session| session.to_step.saturating_sub(session.from_step);
        self.sessions.iter().map(steps).sum()
    }
}

/// Keeps the file up to date.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    record: RunRecord,
    start: Instant,
    told: bool,
}

impl Recorder {
    /// Begins a session. `resumed`: the sessions before are kept.
    pub(crate) fn begin(directory: &Path, resumed: bool, run: RunRecord, session: Session) -> Self {
        let mut record = run;
        if resumed {
            // One that cannot be read says nothing, and training goes on without.
            record.sessions = RunRecord::read(directory).ok().flatten().unwrap_or_default().sessions;
        }
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        record.sessions.push(Session {
            version: crate::version::VERSION.into(),
            began: began.map_or(0, |since| since.as_secs()),
            to_step: session.from_step,
            ..session
        });
        let mut recorder = Self {
            path: directory.join(RUN_FILE),
            record,
            start: Instant::now(),
            told: false,
        };
        recorder.write();
        recorder
    }

    /// The run stands at `step`.
    pub(crate) fn set(&mut self, step: u64, share_of_peak: Option<f64>) {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(session) = self.record.sessions.last_mut() {
            session.to_step = step;
            session.seconds = seconds;
            session.share_of_peak = share_of_peak.or(session.share_of_peak);
        }
        self.write();
    }

    /// A run does not end for want of it.
    fn write(&mut self) {
        let written = serde_json::to_vec_pretty(&self.record).map_err(|e| CliError::Failed(e.to_string()));
        let written = written.and_then(|mut json| {
            json.push(b'\n');
            replace_file(&self.path, |temporary| {
                fs::write(temporary, &json)
                    .map_err(|e| CliError::io(&self.path, "write", &e, "check the space and the permissions there"))
            })
        });
        if let Err(error) = written
            && !std::mem::replace(&mut self.told, true)
        {
            output::note(&format!("note: no {RUN_FILE}; training goes on: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_adds_a_session() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunRecord::read(dir.path()).unwrap().is_none());
        let at = |from_step| Session {
            from_step,
            ..Session::default()
        };
        Recorder::begin(dir.path(), false, RunRecord::default(), at(0)).set(10, Some(0.5));
        Recorder::begin(dir.path(), true, RunRecord::default(), at(8)).set(20, None);
        let record = RunRecord::read(dir.path()).unwrap().unwrap();
        assert_eq!((record.sessions.len(), record.steps()), (2, 22));
        assert_eq!(record.sessions[0].share_of_peak, Some(0.5));
        // A run that starts over has nothing before it.
        Recorder::begin(dir.path(), false, RunRecord::default(), at(0));
        assert_eq!(RunRecord::read(dir.path()).unwrap().unwrap().sessions.len(), 1);
        fs::write(dir.path().join(RUN_FILE), "{").unwrap();
        let error = RunRecord::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(RUN_FILE) && error.contains("remove it"), "{error}");
    }
}
