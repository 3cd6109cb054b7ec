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
//! ([`guard`]). Of a stream ([`source`]) the step sees the next ones, and a checkpoint has the place.
//!
//! A checkpoint is written while training goes on. One that cannot be written, for want of space, say, is told of and tried again at the next; the last one, and that of an
//! interruption, must succeed.
//!
//! A run may be made by several processes ([`crate::parallel`]): each is a [`Trainer`] with a [`World`], takes its part of every step ([`ranks`]), and ends as the others do. All
//! of the above is the business of rank 0.

mod batch;
mod cuda;
pub mod guard;
mod inputs;
mod lock;
mod memory;
mod metrics;
mod ranks;
mod saving;
mod setbacks;
mod source;
mod step;
mod steps;
mod teachers;
#[cfg(test)]
mod tests;
mod validate;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use onebit_kernels_cuda::Gpu;
use onebit_model::files::{GenerationConfig, remove_unfinished};
use onebit_model::network::Network;

pub use cuda::{CudaRun, StepResult, cuda_memory_estimate};
pub use guard::GuardState;
pub use inputs::{Event, Outcome, RunInputs};
pub use lock::RunLock;
pub use memory::{MemoryEstimate, memory_estimate};
use metrics::MetricsFile;
pub use metrics::{LayerMetrics, Rollback, StepMetrics, ValidationMetrics};
use saving::Saver;
use setbacks::Verdict;
use source::Source;
pub use source::{Arrival, StreamState, TrainData, WindowStream};
pub use teachers::check_teacher;

use crate::checkpoint::{self, State};
use crate::data::{Order, TokenFile};
use crate::optimizer::Optimizer;
use crate::options::{Precision, Sharding, TrainOptions};
use crate::parallel::World;
use crate::schedule::{LrSchedule, QuantSchedule};
use crate::storage::{Disk, Storage};
use crate::{Result, TrainError};

/// A training run. See the [module](self).
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    teachers: Vec<Network>,
    optimizer: Optimizer,
    options: TrainOptions,
    source: Source,
    validation: Option<TokenFile>,
    tokenizer: Vec<u8>,
    generation: GenerationConfig,
    lr: LrSchedule,
    quant: QuantSchedule,
    total_steps: u64,
    step: u64,
    /// Whether the data has ended before the steps, and all is done that the last step asks for.
    ended: bool,
    output_dir: PathBuf,
    metrics: MetricsFile,
    saver: Saver,
    last_checkpoint: Option<PathBuf>,
    guard: GuardState,
    /// The last step that changed something.
    good: Mark,
    /// What the steps that were told ask for.
    verdict: Verdict,
    /// The checkpoint that was gone back to last, and how often in a row.
    rollbacks: (u64, u64),
    /// Whether nothing is done while a checkpoint is written, so that what is written can be counted.
    #[cfg(test)]
    in_turn: bool,
    /// Steps whose loss is made no number, and micro-batches whose loss is made high.
    #[cfg(test)]
    tampered: [std::ops::Range<u64>; 2],
    world: World,
    /// Whether this process is asked to stop, and whether any rank was at the last step that was told.
    asked: Asked,
    /// Dropped last; on rank 0 alone.
    _lock: Option<RunLock>,
    /// Where the steps are taken, if not on the CPU; `network` and `optimizer` then are copies, brought up to date when they are saved.
    cuda: Option<CudaRun>,
}

/// Requests to stop.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    here: bool,
    anywhere: bool,
}

/// Where a run stands after a step: what of a checkpoint's [`State`] is not the same all along.
#[derive(Clone, Debug, Default)]
struct Mark {
    step: u64,
    metrics_bytes: u64,
    guard: GuardState,
    val_loss: Option<f64>,
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
            teachers,
            train,
            validation,
            tokenizer,
            generation,
            mut options,
            output_dir,
            gpu,
            world,
        } = inputs;
        options.world = world.size();
        options.validate()?;
        options.validate_device(gpu.is_some())?;
        let limit = network.config().max_position_embeddings;
        if options.seq_len > limit {
            let why = format!("{} is longer than the model's context of {limit}", options.seq_len);
            return Err(TrainError::Option { option: "seq-len", why });
        }
        options.teachers = teachers::identities(&network, &teachers, &options)?;
        let source = Source::new(train, &options)?;
        if let Some(validation) = &validation {
            Order::new(validation, options.seq_len, options.alignment(), 0)?;
        }
        let saver = Saver::new(storage, output_dir.join("checkpoints"));
        let mut lock = None;
        let found = world.decide(|| {
            lock = Some(RunLock::take(&output_dir)?);
            remove_unfinished(&output_dir)?;
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
            Ok(found)
        })?;
        if let Some(found) = &found {
            options.accumulation_steps = ranks::accumulation(&found.state.options, &options)?;
        }
        let total_steps = source.total_steps(&options);
        // A run that was begun on another CPU goes on as it began, and all ranks as the first.
        options.precision = world.decide(|| {
            Ok(match (&found, options.precision) {
                (Some(found), Precision::Auto) => found.state.options.precision,
                (_, Precision::Auto) if gpu.is_some() => Precision::Bf16,
                (_, chosen) => chosen.resolved(network.device()),
            })
        })?;
        let mut optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
        if options.shard == Sharding::Optimizer && !world.is_single() && gpu.is_none() {
            optimizer.divide(&world);
        }
        let metrics_bytes = found.as_ref().map_or(0, |f| f.state.metrics_bytes);
        let mut trainer = Trainer {
            lr: options.lr_schedule(total_steps),
            quant: options.quant_schedule(),
            metrics: MetricsFile::of_another(&output_dir),
            saver,
            step: 0,
            ended: false,
            last_checkpoint: None,
            guard: GuardState::default(),
            good: Mark::default(),
            verdict: Verdict::GoOn,
            rollbacks: (0, 0),
            #[cfg(test)]
            in_turn: false,
            #[cfg(test)]
            tampered: [0..0, 0..0],
            world,
            asked: Asked::default(),
            _lock: lock,
            network,
            teachers,
            optimizer,
            options,
            source,
            validation,
            tokenizer,
            generation,
            total_steps,
            output_dir,
            cuda: None,
        };
        if let Some(found) = found {
            trainer.resume_from(&found)?;
            if trainer.world.is_first() {
                let saver = &trainer.saver;
                checkpoint::tidy(saver.storage(), saver.root(), trainer.step, trainer.keep())?;
                observe(Event::Resumed {
                    path: &found.path,
                    step: trainer.step,
                    skipped: &found.skipped,
                });
                trainer.tell_of_ranks(&found.state.options, observe);
            }
        }
        trainer.agree(gpu.is_some())?;
        if trainer.world.is_first() {
            // Not before: a run that was refused leaves nothing that looks like one.
            trainer.metrics = MetricsFile::open(trainer.saver.storage(), &trainer.output_dir, metrics_bytes)?;
        }
        if let Some(gpu) = gpu {
            trainer.place_on(&gpu)?;
        }
        Ok(trainer)
    }

    /// Brings weights and moments to the GPU, where the steps are taken from here on.
    fn place_on(&mut self, gpu: &Gpu) -> Result<()> {
        let skipped = self.guard.skipped_in_a_row;
        let run = CudaRun::new(
            (gpu, &self.world),
            (&self.network, &self.teachers),
            &self.optimizer,
            &self.options,
            skipped,
        )?;
        // The GPU has them.
        self.teachers.clear();
        self.optimizer.release();
        self.cuda = Some(run);
        Ok(())
    }

    fn resume_from(&mut self, found: &checkpoint::Found) -> Result<()> {
        let wrong = |what: &str| TrainError::Checkpoint {
            path: found.path.clone(),
            why: format!("it was made with {what}; pass the same, or start in another directory"),
        };
        if found.state.config != self.network.config().to_json() {
            return Err(wrong("another model configuration"));
        }
        if found.state.data != self.source.identity()? {
            return Err(wrong("other training data"));
        }
        if !found.state.options.same_run(&self.options) || found.state.total_steps != self.total_steps {
            return Err(wrong("other training options"));
        }
        self.restore(&found.path, &found.state)?;
        let stream = self.stream_state(found)?;
        self.source.go_on(self.first_window(self.step), stream)
    }

    /// Makes the run what it was at a checkpoint.
    fn restore(&mut self, path: &Path, state: &State) -> Result<()> {
        self.read_tensors(path)?;
        self.step = state.step;
        self.ended = state.ended;
        self.guard = state.guard.clone();
        self.good = Mark {
            step: state.step,
            metrics_bytes: state.metrics_bytes,
            guard: state.guard.clone(),
            val_loss: state.val_loss,
        };
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

    /// Whether this is the rank that writes and tells.
    pub fn is_first(&self) -> bool {
        self.world.is_first()
    }

    /// Arithmetic of the matrix products, decided.
    pub fn precision(&self) -> Precision {
        self.options.precision
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the run stands now.
    fn here(&self) -> Mark {
        Mark {
            step: self.step,
            metrics_bytes: self.metrics.bytes(),
            guard: self.guard.clone(),
            val_loss: self.good.val_loss.filter(|_| self.good.step == self.step),
        }
    }

    /// What a checkpoint at `mark` says.
    fn state(&self, mark: Mark) -> Result<(State, Vec<u8>)> {
        let stream = self.source.state(self.window_of(&mark))?;
        let (cursor, memory) = stream.map_or((None, Vec::new()), |s| (Some(s.cursor), s.memory));
        let state = State {
            step: mark.step,
            total_steps: self.total_steps,
            options: self.options.clone(),
            config: self.network.config().to_json(),
            data: self.source.identity()?,
            metrics_bytes: mark.metrics_bytes,
            guard: mark.guard,
            val_loss: mark.val_loss,
            stream: cursor,
            ended: self.ended,
        };
        Ok((state, memory))
    }

    /// The first window behind the steps of `mark`.
    fn window_of(&self, mark: &Mark) -> u64 {
        let micro_batches = mark.step * self.options.micro_batches_per_step() as u64 + mark.guard.data_offset;
        micro_batches * self.options.batch_size as u64
    }
}
