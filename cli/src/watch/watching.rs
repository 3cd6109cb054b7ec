//! What is told of a run while it is made: the line of progress or the screen, notes, `run.json`, scalars for TensorBoard.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onebit_trainer::TrainOptions;
use onebit_trainer::run::{Event, RunInputs, StepMetrics, Trainer, ValidationMetrics};
use onebit_trainer::schedule::Phase;

use super::record::{Recorder, RunRecord, Session};
use super::sampler::{MOST_PARAMETERS, SAMPLES_FILE, Sampler};
use super::speed::{Machine, Speed};
use super::tensorboard::EventFile;
use super::tui::{Dashboard, News, Screen};
use crate::plot::Run;
use crate::progress::Progress;
use crate::{Result, device, gpu};

/// How a run is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// It goes on where it was.
    pub resume: bool,
    /// What is there may be replaced.
    pub force: bool,
    /// Where scalars for TensorBoard go.
    pub tensorboard: Option<PathBuf>,
    /// Takes the terminal for itself.
    pub tui: bool,
    /// Keeps what the model says.
    pub samples: bool,
}

/// What of a run's inputs is told.
pub(crate) struct Told {
    machine: Machine,
    device: String,
    options: TrainOptions,
}

impl Told {
    pub(crate) fn of(inputs: &RunInputs) -> Self {
        let machine = Machine::of(inputs);
        let device = match &inputs.gpu {
            Some(gpu) => gpu::describe(gpu),
            None => device::describe_cpu(machine.isa, machine.threads),
        };
        Self {
            machine,
            device,
            options: inputs.options.clone(),
        }
    }
}

/// One line of a step, of `total`: loss, phase, learning rate, tokens a second and the share of the machine's peak.
fn line(m: &StepMetrics, total: u64, speed: &Speed) -> String {
    let mut line = format!(
        "step {}/{total}  loss {:.4}  {}  lr {:.2e}",
        m.step,
        m.loss,
        m.phase.name(),
        m.lr
    );
    if let Some(rate) = speed.tokens_per_second() {
        line.push_str(&format!("  {rate:.0} tok/s"));
    }
    if let Some(share) = speed.share_of_peak() {
        line.push_str(&format!("  {:.0}% of peak", 100.0 * share));
    }
    line
}

/// Watches a run.
pub(crate) struct Watching {
    pub progress: Arc<Progress>,
    /// Loss and phase of the last step that changed something.
    pub last: Option<(f64, Phase)>,
    /// Loss and perplexity of the last validation.
    pub validated: Option<(f64, f64)>,
    /// The last checkpoint.
    pub saved: Option<PathBuf>,
    speed: Speed,
    sampler: Sampler,
    /// In the place of lines.
    screen: Option<Screen>,
    /// On the first rank alone.
    recorder: Option<Recorder>,
    events: Option<EventFile>,
    first: u64,
    total: u64,
    step: u64,
}

impl Watching {
    /// Begins, with the run where `trainer` stands.
    pub(crate) fn begin(wish: &Wish, trainer: &Trainer, told: Told, output_dir: &Path) -> Result<Self> {
        let Told {
            machine,
            device,
            options,
        } = told;
        let (config, first, total) = (trainer.network().config(), trainer.steps_done(), trainer.total_steps());
        let precision = trainer.precision();
        let session = Session {
            device,
            isa: machine.isa.name().into(),
            threads: machine.threads,
            ranks: machine.ranks,
            precision: precision.name().into(),
            from_step: first,
            ..Session::default()
        };
        let record = RunRecord {
            config: serde_json::from_str(&config.to_json()).unwrap_or_default(),
            options: serde_json::to_value(&options).unwrap_or_default(),
            parameters: config.parameter_count(),
            total_steps: total,
            tokens_per_step: options.tokens_per_step(),
            sessions: Vec::new(),
        };
        let works = trainer.is_first() && first < total;
        let recorder = works.then(|| Recorder::begin(output_dir, wish.resume, record, session));
        let mut events = match &wish.tensorboard {
            Some(directory) if trainer.is_first() => Some(EventFile::open(directory, wish.resume, wish.force)?),
            _ => None,
        };
        if let Some(events) = &mut events {
            events.fill_from(&output_dir.join("metrics.jsonl"))?;
        }
        let (isa, is_small) = (machine.isa, config.parameter_count() <= MOST_PARAMETERS);
        let samples = (wish.samples && trainer.is_first()).then(|| output_dir.join(SAMPLES_FILE));
        let speed = Speed::new(machine, config, &options, precision, first);
        let screen = (wish.tui && trainer.is_first()).then(|| {
            // Of a run that begins there is nothing yet.
            let before = Run::read(output_dir).unwrap_or_default();
            let title = output_dir.file_name().unwrap_or_default().to_string_lossy();
            Screen::open(Dashboard::new(title.into_owned(), first, total, &before))
        });
        let screen = screen.flatten();
        let listener = { screen.as_ref() }.filter(|_| is_small).map(Screen::news);
        Ok(Self {
            progress: Arc::new(Progress::new("training", total - first)),
            last: None,
            validated: None,
            saved: None,
            speed,
            sampler: Sampler::new(samples, listener, isa, options.quant_schedule()),
            screen,
            recorder,
            events,
            first,
            total,
            step: first,
        })
    }

    pub(crate) fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step(m) => self.step(m),
            Event::Validated(m) => self.validation(m),
            Event::Saved(path) => {
                self.saved = Some(path.to_path_buf());
                self.record();
                self.sampler.sample(path, &self.progress);
            }
            Event::SaveFailed(error) => {
                let progress = &self.progress;
                progress.note(&format!("no checkpoint was written; training goes on: {error}"));
            }
            Event::RolledBack(back) => {
                self.progress.note(&format!(
                    "step {}: the loss is {:.4}; back to step {}, and on with other data",
                    back.rolled_back_from, back.spike_loss, back.step
                ));
                self.step = back.step;
                if let Some(screen) = &self.screen {
                    screen.tell(News::Back(back.step));
                }
                self.speed.pause(back.step);
                self.tell(|events| events.back_to(back.step));
            }
            Event::Resumed { .. } | Event::Regrouped { .. } => {}
        }
    }

    fn step(&mut self, m: &StepMetrics) {
        self.step = m.step;
        self.speed.step(m.step);
        let (speed, total, done) = (&self.speed, self.total, m.step - self.first);
        match &self.screen {
            Some(screen) => screen.tell(News::Step {
                metrics: m.clone(),
                tokens_per_second: speed.tokens_per_second(),
                share_of_peak: speed.share_of_peak(),
                left: self.progress.left(done),
            }),
            None => self.progress.set(done, || line(m, total, speed)),
        }
        match m.skipped {
            Some(what) => self.progress.note(&format!(
                "step {}: the {what} is not finite; the step is skipped",
                m.step
            )),
            None => self.last = Some((m.loss, m.phase)),
        }
        let rate = self.speed.tokens_per_second();
        self.tell(|events| events.line(&serde_json::to_value(m).unwrap_or_default(), rate));
    }

    fn validation(&mut self, m: &ValidationMetrics) {
        self.progress.note(&format!(
            "step {}: validation loss {:.4}, perplexity {:.3}",
            m.step, m.val_loss, m.val_ppl
        ));
        self.validated = Some((m.val_loss, m.val_ppl));
        if let Some(screen) = &self.screen {
            screen.tell(News::Validated(m.clone()));
        }
        self.speed.pause(self.step);
        self.tell(|events| {
            events.line(&serde_json::to_value(m).unwrap_or_default(), None)?;
            events.flush()
        });
    }

    /// Tells TensorBoard. For want of that no run ends.
    fn tell(&mut self, write: impl FnOnce(&mut EventFile) -> Result<()>) {
        if let Some(events) = &mut self.events
            && let Err(error) = write(events)
        {
            self.progress.note(&format!(
                "note: TensorBoard is told nothing more; training goes on: {error}"
            ));
            self.events = None;
        }
    }

    fn record(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.set(self.step, self.speed.share_of_run(self.first, self.step));
        }
    }

    /// The run has ended, in whatever way.
    pub(crate) fn end(&mut self) {
        self.record();
        self.tell(EventFile::flush);
        self.screen = None;
        self.sampler.end();
    }
}
