//! One training run.
//!
//! ```text
//! output_dir/
//!   config.json, tokenizer.json, generation_config.json   the model directory, complete when the run ends:
//!   model.safetensors                                     master weights, f32
//!   metrics.jsonl                                         one line a step
//!   checkpoints/step-N/                                   what a resume needs
//! ```
//!
//! Which windows a step sees is a function of (seed, step) alone, and so is every random number: see [`crate::checkpoint`].

mod cuda;
mod memory;
mod metrics;
mod step;
#[cfg(test)]
mod tests;
mod validate;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use onebit_engine::Tensor;
use onebit_kernels_cuda::Gpu;
use onebit_model::files::{Extras, GenerationConfig, save_master};
use onebit_model::network::Network;

pub use cuda::{CudaRun, StepResult, cuda_memory_estimate};
pub use memory::{MemoryEstimate, memory_estimate};
use metrics::MetricsFile;
pub use metrics::{LayerMetrics, StepMetrics, ValidationMetrics};

use crate::checkpoint::{self, State};
use crate::data::{Order, TokenFile};
use crate::error::io_error;
use crate::optimizer::Optimizer;
use crate::options::{Precision, TrainOptions};
use crate::schedule::{LrSchedule, QuantSchedule};
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
    last_checkpoint: Option<PathBuf>,
    /// Where the steps are taken, if not on the CPU; `network` and `optimizer` then are copies, brought up to date when they are saved.
    cuda: Option<CudaRun>,
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
        fs::create_dir_all(&output_dir).map_err(io_error(&output_dir, "choose a directory that can be written"))?;
        let found = checkpoint::latest(&output_dir.join("checkpoints"))?;
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
        let mut trainer = Trainer {
            lr: options.lr_schedule(total_steps),
            quant: options.quant_schedule(),
            metrics: MetricsFile::open(&output_dir, metrics_bytes)?,
            step: 0,
            last_checkpoint: None,
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
            observe(Event::Resumed {
                path: &found.path,
                step: trainer.step,
                skipped: &found.skipped,
            });
        }
        if let Some(gpu) = gpu {
            let run = CudaRun::new(&gpu, &trainer.network, &trainer.optimizer, &trainer.options)?;
            trainer.optimizer.release();
            trainer.cuda = Some(run);
        }
        Ok(trainer)
    }

    fn resume_from(&mut self, found: &checkpoint::Found) -> Result<()> {
        let wrong = |what: &str| TrainError::Checkpoint {
            path: found.path.clone(),
            why: format!("it was made with {what}; pass the same, or start in another directory"),
        };
        let now = self.state(0)?;
        if found.state.config != now.config {
            return Err(wrong("another model configuration"));
        }
        if found.state.data != now.data {
            return Err(wrong("other training data"));
        }
        if !found.state.options.same_run(&self.options) || found.state.total_steps != self.total_steps {
            return Err(wrong("other training options"));
        }
        // A copy, because the parameters are borrowed to be changed.
        let specs = self.network.specs().to_vec();
        checkpoint::restore(&found.path, &specs, self.network.parameters_mut(), &mut self.optimizer)?;
        self.step = found.state.step;
        self.last_checkpoint = Some(found.path.clone());
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
    /// A loss or gradient that is not finite (the last good checkpoint stays), or a disk that is full.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        while self.step < self.total_steps {
            if stop.load(Ordering::Relaxed) {
                self.settle(observe)?;
                self.save(observe)?;
                return Ok(Outcome::Interrupted);
            }
            // On a thread of the pool, where starting a parallel operation does not wake anyone who is awake.
            if let Some(metrics) = rayon::scope(|_| self.step())? {
                self.tell(&metrics, observe)?;
            }
            let last = self.step == self.total_steps;
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let (validate, save) = (
                due(self.options.eval_every) || last,
                due(self.options.save_every) || last,
            );
            if validate || save {
                self.settle(observe)?;
            }
            if validate && let Some(validation) = self.validate()? {
                self.metrics.append(&validation)?;
                observe(Event::Validated(&validation));
            }
            self.metrics.flush()?;
            if save {
                self.save(observe)?;
            }
        }
        self.write_model()?;
        Ok(Outcome::Finished)
    }

    fn tell(&mut self, metrics: &StepMetrics, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        self.metrics.append(metrics)?;
        observe(Event::Step(metrics));
        Ok(())
    }

    /// Waits for steps that are under way on a GPU.
    fn settle(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        while let Some(metrics) = self.collect()? {
            self.tell(&metrics, observe)?;
        }
        Ok(())
    }

    fn save(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if let Some(cuda) = &self.cuda {
            cuda.download(&mut self.network, &mut self.optimizer)?;
        }
        let bytes = self.metrics.sync()?;
        let state = self.state(bytes)?;
        let root = self.output_dir.join("checkpoints");
        let path = checkpoint::save(
            &root,
            &state,
            self.network.specs(),
            self.network.parameters(),
            &mut self.optimizer,
            self.options.keep,
        )?;
        if self.cuda.is_some() {
            self.optimizer.release();
        }
        observe(Event::Saved(&path));
        self.last_checkpoint = Some(path);
        Ok(())
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

    fn state(&self, metrics_bytes: u64) -> Result<State> {
        Ok(State {
            step: self.step,
            total_steps: self.total_steps,
            options: self.options.clone(),
            config: self.network.config().to_json(),
            data: data_identity(&self.train)?,
            metrics_bytes,
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
