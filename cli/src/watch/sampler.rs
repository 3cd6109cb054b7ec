//! What the model of a run says while it is trained: a thread of its own draws a text from a checkpoint, for the screen and for `samples.jsonl`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use onebit_engine::Isa;
use onebit_trainer::schedule::{Phase, QuantSchedule};
use serde::{Deserialize, Serialize};

use super::tui::News;
use crate::commands::checkpoint_step;
use crate::device::Placement;
use crate::progress::Progress;
use crate::report::{Samples, sample};
use crate::{CliError, Result};

/// Its name in the run's directory.
pub(crate) const SAMPLES_FILE: &str = "samples.jsonl";
/// Models of more parameters say nothing while they are trained unless that is asked for: it takes their memory once more.
pub(super) const MOST_PARAMETERS: u64 = 200_000_000;

/// The same text every time, as far as the model is the same.
const SAMPLE: Samples = Samples {
    count: 1,
    max_tokens: 60,
    prompt: String::new(),
    seed: 42,
};

/// What the model of a step said: a line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub step: u64,
    /// Whether in full precision, or else as it is packed.
    pub full_precision: bool,
    pub seed: u64,
    pub text: String,
}

impl Said {
    /// Those of a run, in the order of their steps; none where the run kept none.
    pub(crate) fn read(directory: &Path) -> Result<Vec<Self>> {
        let path = directory.join(SAMPLES_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CliError::io(&path, "read", &error, "check the permissions there")),
        };
        let mut all = Vec::<Self>::new();
        // A line may be torn, where a run was killed.
        for said in text.lines().filter_map(|line| serde_json::from_str::<Self>(line).ok()) {
            // The run went back, or was taken up at a checkpoint before these.
            while all.last().is_some_and(|last| last.step >= said.step) {
                all.pop();
            }
            all.push(said);
        }
        Ok(all)
    }

    /// What it is of.
    pub(crate) fn form(&self) -> &'static str {
        match self.full_precision {
            true => "in full precision",
            false => "packed",
        }
    }

    fn append(&self, path: &Path) -> Result<()> {
        let line = serde_json::to_string(self).map_err(|e| CliError::Failed(e.to_string()))?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .map_err(|e| CliError::io(path, "write", &e, "check the space and the permissions there"))
    }
}

/// Where texts are drawn, and where they go.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Kept there.
    file: Option<PathBuf>,
    screen: Option<Sender<News>>,
    isa: Isa,
    quant: QuantSchedule,
    work: Option<JoinHandle<()>>,
}

impl Sampler {
    /// One that tells `screen`, and keeps what it has in `file`.
    pub(super) fn new(file: Option<PathBuf>, screen: Option<Sender<News>>, isa: Isa, quant: QuantSchedule) -> Self {
        Self {
            file,
            screen,
            isa,
            quant,
            work: None,
        }
    }

    /// Has a checkpoint say something, on one thread beside the trainer's, unless the last one is still at it. While it is annealed a model is neither in full precision nor
    /// ternary, and says nothing.
    pub(super) fn sample(&mut self, checkpoint: &Path, progress: &Arc<Progress>) {
        let Some(step) = checkpoint_step(checkpoint) else {
            return;
        };
        let phase = self.quant.phase(step.saturating_sub(1));
        let nobody_listens = self.file.is_none() && self.screen.is_none();
        if nobody_listens || phase == Phase::Anneal || self.work.as_ref().is_some_and(|work| !work.is_finished()) {
            return;
        }
        let (file, screen, isa) = (self.file.clone(), self.screen.clone(), self.isa);
        let (checkpoint, progress) = (checkpoint.to_path_buf(), progress.clone());
        let full_precision = phase == Phase::Warmup;
        let work = move || {
            let place = Placement {
                isa,
                threads: 1,
                gpu: None,
                gpu_by_name: false,
            };
            // A checkpoint may go before it is read: then there is a sample of the next.
            let drawn = sample(&checkpoint, &SAMPLE, full_precision, place);
            for drawn in drawn.into_iter().flatten() {
                let said = Said {
                    step,
                    full_precision,
                    seed: SAMPLE.seed,
                    text: drawn.text,
                };
                if let Some(Err(error)) = file.as_deref().map(|file| said.append(file)) {
                    progress.note(&format!("note: a sample was not kept; training goes on: {error}"));
                }
                if let Some(screen) = &screen {
                    let _ = screen.send(News::Sample(said));
                }
            }
        };
        self.work = std::thread::Builder::new().name("sampler".into()).spawn(work).ok();
    }

    /// Waits for a text that is to be kept.
    pub(super) fn end(&mut self) {
        self.screen = None;
        if let Some(work) = self.work.take().filter(|_| self.file.is_some()) {
            let _ = work.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(step: u64, text: &str) -> Said {
        Said {
            step,
            full_precision: false,
            seed: 1,
            text: text.into(),
        }
    }

    #[test]
    fn what_a_run_went_back_behind_is_gone_and_a_torn_line_too() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Said::read(dir.path()).unwrap(), []);
        let file = dir.path().join(SAMPLES_FILE);
        for (step, text) in [(10, "a"), (20, "b\n\"c\""), (30, "d")] {
            said(step, text).append(&file).unwrap();
        }
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "{\"step\":40,\"te\n").unwrap();
        assert_eq!(Said::read(dir.path()).unwrap().len(), 3);
        said(20, "e").append(&file).unwrap();
        assert_eq!(Said::read(dir.path()).unwrap(), [said(10, "a"), said(20, "e")]);
    }
}
