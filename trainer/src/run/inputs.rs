//! What a run is made of, what it tells, and how it ends.

use std::path::{Path, PathBuf};

use onebit_kernels_cuda::Gpu;
use onebit_model::files::GenerationConfig;
use onebit_model::network::Network;

use super::{Rollback, StepMetrics, TrainData, ValidationMetrics};
use crate::TrainError;
use crate::data::TokenFile;
use crate::options::TrainOptions;
use crate::parallel::World;

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
    /// A run goes on with another number of ranks: the micro-batches of a step are divided among them anew.
    Regrouped {
        /// Ranks that made the checkpoint.
        from: usize,
        /// Ranks now.
        to: usize,
        /// Micro-batches of a step on each.
        accumulation_steps: usize,
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
    /// Models whose probabilities it learns too; none for the text alone.
    pub teachers: Vec<Network>,
    /// What is trained on.
    pub train: TrainData,
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
    /// The ranks of the run: what else is here is the same on all of them, but for the GPU.
    pub world: World,
}
