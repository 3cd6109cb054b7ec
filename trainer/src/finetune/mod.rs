//! A network whose map of bit widths is fixed is trained a little: what a width takes away, the other weights give back in part.
//!
//! ```text
//! weights of a model  --map-->  hard forward from the first step, straight through  --steps-->  weights that suit the map
//! ```
//! It is a run as any other ([`Trainer`]): its directory has metrics and checkpoints while it goes, and a model directory when it is done; a run that was
//! interrupted goes on from there; equal weights, text, options and seed give equal bytes. What is special are its options: no warm-up and no annealing, for
//! the weights are trained already, a learning rate that rises over a twentieth of the steps and falls to 0, no weight decay and no dropout.
//!
//! Weights come from [`Network::from_source`], which takes a model in any file, or from [`Network::with_map`].

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use onebit_kernels_cuda::Gpu;
use onebit_model::files::GenerationConfig;
use onebit_model::network::Network;

use crate::data::TokenFile;
use crate::parallel::World;
use crate::run::{Event, Outcome, RunInputs, Trainer};
use crate::{Result, TrainOptions};

/// A teacher's share of what is learned.
const TEACHER_WEIGHT: f32 = 0.5;

/// What is trained on.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// Token ids, in order.
    Ids(&'a [u32]),
    /// A token file.
    File(&'a Path),
}

/// How a network is fine-tuned.
#[derive(Clone, Debug)]
pub struct FineTune {
    /// Optimiser steps, at least 1.
    pub steps: u64,
    /// Highest learning rate.
    pub lr: f32,
    /// Of the order of the text.
    pub seed: u64,
    /// A model whose probabilities are learned beside the text, for half of the loss: the one that the map was made of, say.
    pub teacher: Option<Network>,
    /// Sequences of a step.
    pub batch_size: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// The GPU that trains, or none for the CPU.
    pub gpu: Option<Gpu>,
    /// Bytes of `tokenizer.json`, for the model directory.
    pub tokenizer: Vec<u8>,
    /// Its sampling defaults.
    pub generation: GenerationConfig,
}

impl FineTune {
    /// The options of the run.
    pub fn options(&self) -> TrainOptions {
        TrainOptions {
            batch_size: self.batch_size,
            seq_len: self.seq_len,
            max_steps: self.steps,
            lr: self.lr,
            lr_min: 0.0,
            lr_warmup_steps: self.steps / 20,
            teacher_weight: if self.teacher.is_some() { TEACHER_WEIGHT } else { 0.0 },
            weight_decay: 0.0,
            quant_warmup_steps: 0,
            quant_anneal_steps: 0,
            save_every: 500,
            keep: 1,
            eval_every: 0,
            log_every: (self.steps / 20).max(1),
            seed: self.seed,
            ..TrainOptions::default()
        }
    }
}

/// Trains `network` on `text` with its map fixed, in `directory`, which holds the model when it is done. A run that is there goes on where it was, and one that is done is done.
/// None if `stop` was set before the end; a checkpoint has been written then.
///
/// # Errors
/// Options that make no sense, ids outside the vocabulary, a text shorter than a window, a directory that cannot be written or holds another run, a loss that
/// stops being a number.
pub fn finetune(
    network: Network,
    text: Text<'_>,
    how: &FineTune,
    directory: &Path,
    stop: &AtomicBool,
    observe: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Network>> {
    let file = match text {
        Text::Ids(ids) => TokenFile::from_ids(ids, "the text to fine-tune on")?,
        Text::File(path) => TokenFile::open(path)?,
    };
    file.check_for(network.config().vocab_size, None)?;
    let inputs = RunInputs {
        network,
        teachers: how.teacher.iter().cloned().collect(),
        train: file.into(),
        validation: None,
        tokenizer: how.tokenizer.clone(),
        generation: how.generation.clone(),
        options: how.options(),
        output_dir: directory.to_path_buf(),
        gpu: how.gpu.clone(),
        world: World::single(),
    };
    let mut trainer = Trainer::new(inputs, true, observe)?;
    Ok(match trainer.run(stop, observe)? {
        Outcome::Finished => Some(trainer.network().clone()),
        Outcome::Interrupted => None,
    })
}
