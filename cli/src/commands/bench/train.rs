//! Training steps on random ids, as the trainer runs them, without writing anything, beside the rate of the f32 matrix product.

mod cuda;

use std::time::Instant;

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_engine::ops::matmul::{Arithmetic, Layout, matmul_into};
use onebit_model::config::ModelConfig;
use onebit_model::network::{ForwardMode, Network};
use onebit_trainer::TrainOptions;
use onebit_trainer::optimizer::{Optimizer, Rates, clip_scale, global_norm};
use onebit_trainer::parallel::World;
use onebit_trainer::schedule::Phase;

use super::Bench;
use super::report::{Timed, Training, block_weights};
use crate::commands::train::{Memory, Ranks, ranks_on_gpus};
use crate::device::Placement;
use crate::limits::median;
use crate::progress::Progress;
use crate::{CliError, Result, args, random};

/// Steps that are timed, after one that is not.
const STEPS: u64 = 5;
/// Longest sequence.
pub(super) const SEQUENCE: usize = 256;
/// Side of the square product that steps are compared with.
const SIDE: usize = 1024;
/// Products before each step and after the last.
const PRODUCTS: usize = 3;

impl Bench {
    /// Phase of training, and its options but for the batch.
    pub(super) fn training(&self) -> Result<(Phase, TrainOptions)> {
        let phase = match self.phase.as_deref() {
            None | Some("hard") => Phase::Hard,
            Some("warmup") => Phase::Warmup,
            Some(other) => {
                return Err(CliError::Usage(format!(
                    "--phase: expected warmup or hard, found {other:?}"
                )));
            }
        };
        let options = TrainOptions {
            precision: args::parse(self.precision.as_deref().unwrap_or("auto"), "--precision")?,
            optimizer: args::parse(self.optimizer.as_deref().unwrap_or("adamw"), "--optimizer")?,
            gradients: args::parse(self.gradients.as_deref().unwrap_or("f32"), "--gradients")?,
            recompute: self.recompute,
            shard: args::parse(self.shard.as_deref().unwrap_or("none"), "--shard")?,
            seed: self.seed,
            ..Default::default()
        };
        options.validate().map_err(|e| CliError::Usage(e.to_string()))?;
        Ok((phase, options))
    }

    /// The ranks that are measured; none where this process has started them, and they have ended.
    pub(super) fn ranks(&self) -> Result<Option<Ranks>> {
        let gpus = match self.gpus.as_deref() {
            Some(text) => Some(args::parse(text, "--gpus")?),
            None => None,
        };
        if self.shard.is_some() && gpus.is_none_or(|n| n < 2) && std::env::var_os("RANK").is_none() {
            return Err(CliError::Usage(
                "--shard divides among ranks, and there is one; give --gpus, or leave it out".into(),
            ));
        }
        ranks_on_gpus(gpus, self.device.as_deref())
    }
}

/// Times optimiser steps of `tokens` tokens. The host's speed drifts, so steps and products take turns, and the median of each counts.
pub(super) fn measure(
    config: &ModelConfig,
    (tokens, seq_len): (usize, Option<usize>),
    phase: Phase,
    options: TrainOptions,
    (place, world): (&Placement, &World),
) -> Result<Timed> {
    options.validate_device(place.gpu.is_some())?;
    let seq_len = seq_len
        .unwrap_or(SEQUENCE.min(tokens))
        .min(config.max_position_embeddings);
    let batch_size = (tokens / seq_len).max(1);
    let tokens = batch_size * seq_len;
    let options = TrainOptions {
        batch_size,
        seq_len,
        world: world.size(),
        ..options
    };
    if let Some(gpu) = &place.gpu {
        return cuda::measure(config, options, phase, place, (gpu, world));
    }
    let options = TrainOptions {
        precision: options.precision.resolved(place.device()),
        ..options
    };
    let seed = options.seed;
    let memory = Memory::new((config, &[]), &options, place)?;
    memory.refuse_if_too_large((config, &[]), &options, place)?;
    let memory = memory.estimate;
    let mut network = Network::new(config.clone(), place.device(), seed)?;
    let mut optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
    let mode = ForwardMode {
        arithmetic: options.precision.arithmetic(place.device()),
        ..ForwardMode::evaluation(if phase == Phase::Warmup { 0.0 } else { 1.0 })
    };
    let square = Tensor::full(place.device(), [SIDE, SIDE], 0.5);
    let mut product = square.clone();
    let mut multiply = || -> Result<f64> {
        let start = Instant::now();
        matmul_into(Arithmetic::F32, Layout::NN, &square, &square, false, &mut product)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let rates = Rates {
        lr: options.lr,
        weight_decay: options.weight_decay,
    };
    let mut one_step = |step: u64| -> Result<f64> {
        let ids = random::ids(tokens + 1, config.vocab_size, seed.wrapping_add(step));
        let tensor = |ids: &[u32]| Tensor::from_u32(place.device(), [tokens], ids.to_vec());
        let batch = (&tensor(&ids[..tokens])?, &tensor(&ids[1..])?);
        let start = Instant::now();
        let tape = Tape::new();
        let leaves = network.leaves(&tape);
        let (objective, _) = network.loss(&leaves, batch, seq_len, mode, (options.loss_terms(), None))?;
        let failed = |e: onebit_autograd::AutogradError| CliError::Train(e.into());
        let mut gradients = tape.backward(&objective).map_err(failed)?;
        let zeros = |t: &Tensor| Tensor::zeros(t.device(), t.shape().clone());
        let gradients: Vec<Tensor> = leaves
            .iter()
            .map(|leaf| gradients.take(leaf).unwrap_or_else(|| zeros(leaf.tensor())))
            .collect();
        drop((objective, leaves));
        let clip = clip_scale(global_norm(&gradients)?, options.grad_clip_max_norm);
        optimizer.step(&options, network.parameters_mut(), &gradients, (rates, clip), step)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let progress = Progress::new("training", STEPS + 1);
    let (mut steps, mut products) = (Vec::new(), Vec::new());
    for step in 0..=STEPS {
        // On a thread of the pool, as the trainer does.
        let seconds = rayon::scope(|_| one_step(step))?;
        // The first step allocates.
        if step > 0 {
            steps.push(seconds);
        }
        for _ in 0..PRODUCTS {
            products.push(rayon::scope(|_| multiply())?);
        }
        progress.set(step + 1, String::new);
    }
    let seconds = median(&mut steps);
    // The least that a step moves: weights read by forward and backward and written, gradients and moments read and written.
    let moved = 3 * memory.weights + 2 * memory.gradients + 2 * memory.optimizer;
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    let ops_per_token = 6.0 * weights;
    let gemm_ops = 2.0 * (SIDE * SIDE * SIDE) as f64 / median(&mut products);
    Ok(Timed {
        tokens,
        seconds,
        bandwidth: None,
        peak_ops: None,
        bytes_per_token: moved as f64 / tokens as f64,
        ops_per_token,
        decoding: None,
        training: Some(Training {
            phase: phase.name(),
            precision: options.precision.name(),
            gemm_ops,
            fraction_of_gemm: tokens as f64 * ops_per_token / seconds / gemm_ops,
            memory_bytes: memory.total(),
            first_step_seconds: None,
            loss: None,
        }),
    })
}
