//! Training steps in the hard phase on random ids, as the trainer runs them, without writing anything.

use std::time::Instant;

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_model::config::ModelConfig;
use onebit_model::network::{ForwardMode, Network};
use onebit_trainer::TrainOptions;
use onebit_trainer::optimizer::{Optimizer, clip_scale, global_norm};
use onebit_trainer::run::memory_estimate;

use super::Timed;
use crate::commands::train::refuse_if_too_large;
use crate::device::Placement;
use crate::progress::Progress;
use crate::{CliError, Result, random};

/// Steps that are timed, after one that is not.
const STEPS: u64 = 3;
/// Longest sequence.
const SEQUENCE: usize = 256;

/// Times optimiser steps of `tokens` tokens.
pub(super) fn measure(config: &ModelConfig, tokens: usize, place: Placement, seed: u64) -> Result<Timed> {
    let seq_len = SEQUENCE.min(config.max_position_embeddings).min(tokens);
    let batch_size = tokens / seq_len;
    let tokens = batch_size * seq_len;
    let options = TrainOptions {
        batch_size,
        seq_len,
        seed,
        ..Default::default()
    };
    let memory = memory_estimate(config, &options);
    refuse_if_too_large(memory.total())?;
    let mut network = Network::new(config.clone(), place.device, seed)?;
    let mut optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
    let progress = Progress::new("training", STEPS + 1);
    let mut start = Instant::now();
    for step in 0..=STEPS {
        if step == 1 {
            start = Instant::now();
        }
        let ids = random::ids(tokens + 1, config.vocab_size, seed.wrapping_add(step));
        let tensor = |ids: &[u32]| Tensor::from_u32(place.device, [tokens], ids.to_vec());
        let batch = (&tensor(&ids[..tokens])?, &tensor(&ids[1..])?);
        let tape = Tape::new();
        let leaves = network.leaves(&tape);
        let (objective, _) = network.loss(&leaves, batch, seq_len, ForwardMode::evaluation(1.0), 0.0)?;
        let failed = |e: onebit_autograd::AutogradError| CliError::Train(e.into());
        let mut gradients = tape.backward(&objective).map_err(failed)?;
        let zeros = |t: &Tensor| Tensor::zeros(t.device(), t.shape().clone());
        let gradients: Vec<Tensor> = leaves
            .iter()
            .map(|leaf| gradients.take(leaf).unwrap_or_else(|| zeros(leaf.tensor())))
            .collect();
        drop((objective, leaves));
        let clip = clip_scale(global_norm(&gradients)?, options.grad_clip_max_norm);
        optimizer.step(&options, network.parameters_mut(), &gradients, (options.lr, clip), step)?;
        progress.set(step + 1, String::new);
    }
    let seconds = start.elapsed().as_secs_f64() / STEPS as f64;
    // The least that a step moves: weights read by forward and backward and written, gradients and moments read and written.
    let moved = 3 * memory.weights + 2 * memory.gradients + 2 * memory.optimizer;
    Ok(Timed {
        tokens,
        seconds,
        bytes_per_token: moved as f64 / tokens as f64,
        ops_per_token: 6.0 * config.parameter_count() as f64,
    })
}
