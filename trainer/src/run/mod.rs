//! One training run.
//!
//! ```text
//! output_dir/
//!   config.json, tokenizer.json, generation_config.json   the model directory, complete when the run ends:
//!   model.safetensors                                     master weights, f32
//!   metrics.jsonl                                         one line a step
//!   checkpoints/step-N/                                   what a resume needs
//!   .lock                                                 held while a run is at work
//! ```
//!
//! Which windows a step sees is a function of (seed, step) alone, and so is every random number: see [`crate::checkpoint`]. Only a rollback moves the data on
//! ([`guard`]).
//!
//! A checkpoint is written while training goes on. One that cannot be written, for want of space, say, is told of and tried again at the next; the last one, and that of an
//! interruption, must succeed.

mod cuda;
pub mod guard;
mod lock;
mod memory;
mod metrics;
mod saving;
mod step;
#[cfg(test)]
mod tests;
mod validate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onebit_engine::Tensor;
use onebit_engine::ops::elementwise::all_finite;
use onebit_kernels_cuda::Gpu;
use onebit_model::files::{Extras, GenerationConfig, remove_unfinished, save_master};
use onebit_model::network::Network;

pub use cuda::{CudaRun, StepResult, cuda_memory_estimate};
pub use guard::GuardState;
pub use lock::RunLock;
pub use memory::{MemoryEstimate, memory_estimate};
use metrics::MetricsFile;
pub use metrics::{LayerMetrics, Rollback, StepMetrics, ValidationMetrics};
use saving::Saver;

use crate::checkpoint::{self, State};
use crate::data::{Order, TokenFile};
use crate::optimizer::Optimizer;
use crate::options::{Precision, TrainOptions};
use crate::schedule::{LrSchedule, QuantSchedule};
use crate::storage::{Disk, Storage};
use crate::{Result, TrainError};

/// What happens in a run, for whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run was resumed: from where, and what was passed over on the way.
    Resumed {
        /// The checkpoint.
        path: &'a Path,
        /// Steps done.
        step: u64,
        /// Newer checkpoints that were not whole, and why.
        skipped: &'a [String],
    },
    /// A step is done.
    Step(&'a StepMetrics),
    /// A validation is done.
    Validated(&'a ValidationMetrics),
    /// A checkpoint is on the disk.
    Saved(&'a Path),
    /// A checkpoint could not be written; the run goes on, and the one before it is there.
    SaveFailed(&'a TrainError),
    /// The run went back to a checkpoint.
    RolledBack(&'a Rollback),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done and the model directory is complete.
    Finished,
    /// The stop flag was seen; a checkpoint was written.
    Interrupted,
}

/// What a run is made of.
#[derive(Debug)]
pub struct RunInputs {
    /// The model to train.
    pub network: Network,
    /// Training tokens.
    pub train: TokenFile,
    /// Validation tokens.
    pub validation: Option<TokenFile>,
    /// Bytes of `tokenizer.json`, copied into the model directory.
    pub tokenizer: Vec<u8>,
    /// Sampling defaults of the finished model.
    pub generation: GenerationConfig,
    /// How to train.
    pub options: TrainOptions,
    /// Where the run lives.
    pub output_dir: PathBuf,
    /// The GPU that trains, or none for the CPU.
    pub gpu: Option<Gpu>,
}

/// A training run. See the [module](self).
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    optimizer: Optimizer,
    options: TrainOptions,
    train: TokenFile,
    validation: Option<TokenFile>,
    tokenizer: Vec<u8>,
    generation: GenerationConfig,
    order: Order,
    lr: LrSchedule,
    quant: QuantSchedule,
    total_steps: u64,
    step: u64,
    output_dir: PathBuf,
    metrics: MetricsFile,
    saver: Saver,
    last_checkpoint: Option<PathBuf>,
    guard: GuardState,
    /// The last step that changed something, as a checkpoint of it would be.
    good: State,
    /// What the steps that were told ask for.
    verdict: Verdict,
    /// The checkpoint that was gone back to last, and how often in a row.
    rollbacks: (u64, u64),
    /// Whether nothing is done while a checkpoint is written: for tests that count what is written.
    in_turn: bool,
    /// Steps whose loss is made no number, and micro-batches whose loss is made high.
    #[cfg(test)]
    tampered: [std::ops::Range<u64>; 2],
    /// Dropped last.
    _lock: RunLock,
    /// Where the steps are taken, if not on the CPU; `network` and `optimizer` then are copies, brought up to date when they are saved.
    cuda: Option<CudaRun>,
}

/// What a run does after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    GoOn,
    /// Step `step` (counted from 1) was the last of too many that were not finite.
    Stop {
        step: u64,
        what: &'static str,
    },
    /// The loss of step `step` (counted from 1) ended a spike.
    GoBack {
        step: u64,
        loss: f64,
    },
}

/// Inputs and targets of one micro-batch, each `[batch·seq]`.
struct Batch {
    ids: Tensor,
    targets: Tensor,
}

impl Trainer {
    /// Prepares a run in `inputs.output_dir`: checks options, data and directory before any work. With `resume` it goes on from
    /// the newest whole checkpoint there, if any; without, a directory that holds a run is refused.
    ///
    /// # Errors
    /// Any mismatch between model, data and options, a directory that cannot be written, a checkpoint of another run.
    pub fn new(inputs: RunInputs, resume: bool, observe: &mut dyn FnMut(Event<'_>)) -> Result<Self> {
        Self::on(Arc::new(Disk), inputs, resume, observe)
    }

    /// [`Trainer::new`], for a run that is kept in `storage`.
    ///
    /// # Errors
    /// As there.
    pub fn on(
        storage: Arc<dyn Storage>,
        inputs: RunInputs,
        resume: bool,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self> {
        let RunInputs {
            network,
            train,
            validation,
            tokenizer,
            generation,
            mut options,
            output_dir,
            gpu,
        } = inputs;
        options.validate()?;
        options.validate_device(gpu.is_some())?;
        let limit = network.config().max_position_embeddings;
        if options.seq_len > limit {
            let why = format!("{} is longer than the model's context of {limit}", options.seq_len);
            return Err(TrainError::Option { option: "seq-len", why });
        }
        let order = Order::new(&train, options.seq_len, options.alignment(), options.seed)?;
        if let Some(validation) = &validation {
            Order::new(validation, options.seq_len, options.alignment(), 0)?;
        }
        let total_steps = options.total_steps(order.windows_per_epoch());
        let lock = RunLock::take(&output_dir)?;
        remove_unfinished(&output_dir)?;
        let saver = Saver::new(storage, output_dir.join("checkpoints"));
        let found = checkpoint::latest(saver.root())?;
        if !resume && (found.is_some() || output_dir.join("metrics.jsonl").exists()) {
            let why = format!(
                "{} already holds a run; pass --resume to go on, or choose another directory",
                output_dir.display()
            );
            return Err(TrainError::Option {
                option: "output-dir",
                why,
            });
        }
        // A run that was begun on another CPU goes on as it began.
        options.precision = match (&found, options.precision) {
            (Some(found), Precision::Auto) => found.state.options.precision,
            (_, Precision::Auto) if gpu.is_some() => Precision::Bf16,
            (_, chosen) => chosen.resolved(network.device()),
        };
        let optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
        let metrics_bytes = found.as_ref().map_or(0, |f| f.state.metrics_bytes);
        let beginning = State {
            step: 0,
            total_steps,
            options: options.clone(),
            config: network.config().to_json(),
            data: data_identity(&train)?,
            metrics_bytes: 0,
            guard: GuardState::default(),
            val_loss: None,
        };
        let mut trainer = Trainer {
            lr: options.lr_schedule(total_steps),
            quant: options.quant_schedule(),
            metrics: MetricsFile::open(saver.storage(), &output_dir, metrics_bytes)?,
            saver,
            step: 0,
            last_checkpoint: None,
            guard: GuardState::default(),
            good: beginning,
            verdict: Verdict::GoOn,
            rollbacks: (0, 0),
            in_turn: false,
            #[cfg(test)]
            tampered: [0..0, 0..0],
            _lock: lock,
            network,
            optimizer,
            options,
            train,
            validation,
            tokenizer,
            generation,
            order,
            total_steps,
            output_dir,
            cuda: None,
        };
        if let Some(found) = found {
            trainer.resume_from(&found)?;
            let saver = &trainer.saver;
            checkpoint::tidy(saver.storage(), saver.root(), trainer.step, trainer.keep())?;
            observe(Event::Resumed {
                path: &found.path,
                step: trainer.step,
                skipped: &found.skipped,
            });
        }
        if let Some(gpu) = gpu {
            trainer.place_on(&gpu)?;
        }
        Ok(trainer)
    }

    /// Brings weights and moments to the GPU, where the steps are taken from here on.
    fn place_on(&mut self, gpu: &Gpu) -> Result<()> {
        let skipped = self.guard.skipped_in_a_row;
        let run = CudaRun::new(gpu, &self.network, &self.optimizer, &self.options, skipped)?;
        self.optimizer.release();
        self.cuda = Some(run);
        Ok(())
    }

    fn resume_from(&mut self, found: &checkpoint::Found) -> Result<()> {
        let wrong = |what: &str| TrainError::Checkpoint {
            path: found.path.clone(),
            why: format!("it was made with {what}; pass the same, or start in another directory"),
        };
        let now = self.state(0, 0)?;
        if found.state.config != now.config {
            return Err(wrong("another model configuration"));
        }
        if found.state.data != now.data {
            return Err(wrong("other training data"));
        }
        if !found.state.options.same_run(&self.options) || found.state.total_steps != self.total_steps {
            return Err(wrong("other training options"));
        }
        self.restore(&found.path, &found.state)
    }

    /// Makes the run what it was at a checkpoint.
    fn restore(&mut self, path: &Path, state: &State) -> Result<()> {
        // A copy, because the parameters are borrowed to be changed.
        let specs = self.network.specs().to_vec();
        checkpoint::restore(path, &specs, self.network.parameters_mut(), &mut self.optimizer)?;
        self.step = state.step;
        self.guard = state.guard.clone();
        self.good = state.clone();
        self.last_checkpoint = Some(path.to_path_buf());
        Ok(())
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Arithmetic of the matrix products, decided.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Trains to the end, or until `stop` is set: then a checkpoint is written first. When the run ends, the model directory is complete.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] after too many steps in a row whose loss or gradient was not finite, with a checkpoint of the state before them; [`TrainError::Diverged`];
    /// a disk that is full at the end.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        while self.step < self.total_steps {
            if stop.load(Ordering::Relaxed) {
                self.settle(observe)?;
                if self.verdict == Verdict::GoOn {
                    self.save_now(self.state(self.step, self.metrics.bytes())?, observe)?;
                    return Ok(Outcome::Interrupted);
                }
            }
            self.look_at_saves(false, observe);
            // On a thread of the pool, where starting a parallel operation does not wake anyone who is awake.
            if self.verdict == Verdict::GoOn
                && let Some(metrics) = rayon::scope(|_| self.step())?
            {
                self.tell(&metrics, observe)?;
            }
            let last = self.step == self.total_steps;
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let (validate, save) = (due(self.options.eval_every) || last, self.schedule().has(self.step));
            if validate || save {
                self.settle(observe)?;
            }
            match self.verdict {
                Verdict::GoOn => {}
                Verdict::Stop { step, what } => return Err(self.stopped(step, what, observe)?),
                Verdict::GoBack { step, loss } => {
                    self.go_back(step, loss, observe)?;
                    continue;
                }
            }
            if validate && let Some(validation) = self.validate()? {
                self.metrics.append(&validation)?;
                if self.good.step == self.step {
                    self.good.metrics_bytes = self.metrics.bytes();
                    let is_hard = self.quant.anneal(self.step.saturating_sub(1)) >= 1.0;
                    self.good.val_loss = is_hard.then_some(validation.val_loss);
                }
                observe(Event::Validated(&validation));
            }
            self.metrics.flush()?;
            if last {
                self.save_now(self.state(self.step, self.metrics.bytes())?, observe)?;
            } else if save {
                self.begin_save(observe)?;
            }
        }
        self.write_model()?;
        Ok(Outcome::Finished)
    }

    /// Writes the metrics of a step and decides what follows from them.
    fn tell(&mut self, metrics: &StepMetrics, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if self.verdict != Verdict::GoOn {
            // A step that a GPU had begun already.
            return Ok(());
        }
        self.metrics.append(metrics)?;
        observe(Event::Step(metrics));
        let step = metrics.step;
        if let Some(what) = metrics.skipped {
            self.guard.skipped += 1;
            self.guard.skipped_in_a_row += 1;
            if self.guard.skipped_in_a_row >= self.options.max_skipped {
                self.verdict = Verdict::Stop { step, what };
            }
            return Ok(());
        }
        self.guard.skipped_in_a_row = 0;
        let deviations = f64::from(self.options.spike_guard);
        let spike = deviations > 0.0 && self.guard.losses.is_spike(metrics.phase, metrics.loss, deviations);
        if spike && step > self.options.save_every {
            let loss = metrics.loss;
            self.verdict = Verdict::GoBack { step, loss };
        }
        self.good.step = step;
        self.good.metrics_bytes = self.metrics.bytes();
        self.good.guard = self.guard.clone();
        self.good.val_loss = None;
        Ok(())
    }

    /// Waits for steps that are under way on a GPU.
    fn settle(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        while let Some(metrics) = self.collect()? {
            self.tell(&metrics, observe)?;
        }
        Ok(())
    }

    /// Saves the state before the steps that were not finite, and says what they met.
    fn stopped(&mut self, step: u64, what: &'static str, observe: &mut dyn FnMut(Event<'_>)) -> Result<TrainError> {
        if let Some(cuda) = &mut self.cuda {
            cuda.drain()?;
        }
        let place = self.bad_place(step - 1)?;
        self.step = self.good.step;
        if let Some(cuda) = &mut self.cuda {
            cuda.download(&mut self.network, &mut self.optimizer)?;
        }
        let mut are_finite = true;
        for parameter in self.network.parameters() {
            are_finite &= all_finite(parameter)?;
        }
        // Weights that are no numbers themselves are nothing to go on from.
        if are_finite {
            self.save_now(self.good.clone(), observe)?;
        }
        let checkpoint = match &self.last_checkpoint {
            Some(path) => path.display().to_string(),
            None => "none yet (see --save-every)".into(),
        };
        Ok(TrainError::NotFinite {
            step,
            what,
            place,
            skipped: self.options.max_skipped - 1,
            checkpoint,
        })
    }

    /// Goes back to the newest checkpoint, from step `from` with its loss, and on with the data behind that step's.
    fn go_back(&mut self, from: u64, loss: f64, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        let gpu = match &mut self.cuda {
            Some(cuda) => {
                cuda.drain()?;
                Some(cuda.gpu().clone())
            }
            None => None,
        };
        // The graphs and arrays of the GPU are made anew.
        self.cuda = None;
        self.look_at_saves(true, observe);
        // One that an interruption made is not gone back to: the run that was not interrupted does not have it.
        let schedule = self.schedule();
        let found = checkpoint::latest_of(self.saver.root(), |step| schedule.has(step))?;
        let found = found.ok_or_else(|| TrainError::Checkpoint {
            path: self.saver.root().to_path_buf(),
            why: "there is none to go back to".into(),
        })?;
        // They tell of metrics that will not be there any more.
        checkpoint::discard_after(self.saver.storage(), self.saver.root(), found.state.step)?;
        let (offset, rollbacks) = (self.guard.data_offset, self.guard.rollbacks);
        self.restore(&found.path, &found.state)?;
        self.rollbacks = match self.rollbacks {
            (step, times) if step == self.step => (step, times + 1),
            _ => (self.step, 1),
        };
        if self.rollbacks.1 > guard::MOST_ROLLBACKS {
            return Err(TrainError::Diverged {
                step: from,
                loss,
                times: guard::MOST_ROLLBACKS,
                checkpoint: found.path.display().to_string(),
            });
        }
        self.guard.rollbacks = rollbacks + 1;
        self.guard.data_offset = offset + (from - self.step) * self.options.accumulation_steps as u64;
        self.good.guard = self.guard.clone();
        self.metrics = MetricsFile::open(self.saver.storage(), &self.output_dir, found.state.metrics_bytes)?;
        let rollback = Rollback {
            step: self.step,
            rolled_back_from: from,
            spike_loss: loss,
        };
        self.metrics.append(&rollback)?;
        self.good.metrics_bytes = self.metrics.bytes();
        self.verdict = Verdict::GoOn;
        observe(Event::RolledBack(&rollback));
        match gpu {
            Some(gpu) => self.place_on(&gpu),
            None => Ok(()),
        }
    }

    /// Writes the model directory: configuration, master weights, tokenizer, sampling defaults.
    fn write_model(&self) -> Result<()> {
        let extras = Extras {
            tokenizer: Some(&self.tokenizer),
            generation: Some(&self.generation),
        };
        save_master(
            &self.output_dir,
            self.network.config(),
            &self.network.named_tensors()?,
            extras,
        )?;
        Ok(())
    }

    /// What a checkpoint of the run as it is says, at step `step` and so many bytes of metrics.
    fn state(&self, step: u64, metrics_bytes: u64) -> Result<State> {
        Ok(State {
            step,
            total_steps: self.total_steps,
            options: self.options.clone(),
            config: self.network.config().to_json(),
            data: data_identity(&self.train)?,
            metrics_bytes,
            guard: self.guard.clone(),
            val_loss: self.good.val_loss.filter(|_| self.good.step == step),
        })
    }

    /// The micro-batch of a global index.
    fn batch(&self, index: u64) -> Result<Batch> {
        let (ids, targets) = self.batch_ids(index)?;
        let (shape, device) = ([ids.len()], self.network.device());
        Ok(Batch {
            ids: Tensor::from_u32(device, shape, ids)?,
            targets: Tensor::from_u32(device, shape, targets)?,
        })
    }

    /// Its inputs and targets.
    fn batch_ids(&self, index: u64) -> Result<(Vec<u32>, Vec<u32>)> {
        let (batch, seq) = (self.options.batch_size, self.options.seq_len);
        let windows = (0..batch as u64).map(|i| self.order.window(index * batch as u64 + i));
        windows_ids(&self.train, windows, seq)
    }
}

/// What tells one training file from another: its length, its tokenizer, and a hash of both ends.
fn data_identity(tokens: &TokenFile) -> Result<String> {
    const ENDS: usize = 1 << 12;
    let n = tokens.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tokens.tokenizer().unwrap_or_default());
    let mut ids = Vec::new();
    for range in [0..n.min(ENDS), n.saturating_sub(ENDS)..n] {
        tokens.get(range, &mut ids)?;
        hasher.update(bytemuck::cast_slice(&ids));
    }
    Ok(format!("{n} tokens, {}", hasher.finalize().to_hex()))
}

/// Inputs and targets of windows of `seq + 1` tokens.
fn windows_ids(
    tokens: &TokenFile,
    windows: impl Iterator<Item = std::ops::Range<usize>>,
    seq: usize,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut ids, mut targets, mut window) = (Vec::new(), Vec::new(), Vec::new());
    for range in windows {
        tokens.get(range, &mut window)?;
        ids.extend_from_slice(&window[..seq]);
        targets.extend_from_slice(&window[1..]);
    }
    Ok((ids, targets))
}
