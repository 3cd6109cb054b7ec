//! Training steps on a GPU, as the trainer launches them, beside its copies and its largest products.

use std::time::Instant;

use onebit_kernels_cuda::Gpu;
use onebit_model::config::ModelConfig;
use onebit_model::network::Network;
use onebit_trainer::TrainOptions;
use onebit_trainer::optimizer::{Optimizer, Rates};
use onebit_trainer::options::Precision;
use onebit_trainer::parallel::World;
use onebit_trainer::run::{CudaRun, StepResult};
use onebit_trainer::schedule::Phase;

use super::super::report::{Timed, Training, block_weights};
use crate::commands::train::Memory;
use crate::device::Placement;
use crate::limits::{self, median};
use crate::progress::Progress;
use crate::{Result, random};

/// Steps that are not timed: the first loads the kernels, the second runs their recording for the first time.
const WARM: u64 = 3;
/// Steps that are.
const STEPS: u64 = 15;

/// Times optimiser steps on `gpu`; the median counts.
pub(super) fn measure(
    config: &ModelConfig,
    options: TrainOptions,
    phase: Phase,
    place: &Placement,
    (gpu, world): (&Gpu, &World),
) -> Result<Timed> {
    let steps = WARM + STEPS;
    let options = TrainOptions {
        precision: Precision::Bf16,
        quant_warmup_steps: if phase == Phase::Warmup { steps } else { 0 },
        quant_anneal_steps: 0,
        ..options
    };
    let memory = Memory::new((config, &[]), &options, place)?;
    memory.refuse_if_too_large((config, &[]), &options, place)?;
    memory.tell();
    let (bandwidth, gemm_ops) = (limits::cuda::copy_bandwidth(gpu)?, limits::cuda::product_rate(gpu)?);

    let network = Network::new(config.clone(), place.device(), options.seed)?;
    let optimizer = Optimizer::new(options.optimizer, network.specs(), network.parameters());
    let began = Instant::now();
    let mut run = CudaRun::new((gpu, world), (&network, &[]), &optimizer, &options, 0)?;
    // The GPU has the weights.
    drop((network, optimizer));
    let tokens = options.batch_size * options.seq_len;
    let rates = Rates {
        lr: options.lr,
        weight_decay: options.weight_decay,
    };
    let progress = Progress::new("training", steps);
    let (mut marks, mut first_step, mut loss) = (Vec::new(), None, None);
    let mut told = |result: Option<StepResult>| loss = result.map(|r| r.loss).or(loss);
    for step in 0..steps {
        // Every rank has ids of its own.
        let number = step * world.size() as u64 + world.rank() as u64;
        let ids = random::ids(tokens + 1, config.vocab_size, options.seed.wrapping_add(number));
        let batch = (number, ids[..tokens].to_vec(), ids[1..].to_vec());
        let anneal = options.quant_schedule().anneal(step);
        told(run.launch(
            &options,
            (step, rates, anneal),
            std::iter::once(Ok(batch)),
            (false, false),
        )?);
        marks.push(gpu.mark()?);
        if step == 0 {
            gpu.synchronize()?;
            first_step = Some(began.elapsed().as_secs_f64());
        }
        progress.set(step + 1, String::new);
    }
    while let Some(result) = run.collect()? {
        told(Some(result));
    }
    let mut times = Vec::new();
    for pair in marks[WARM as usize - 1..].windows(2) {
        times.push(pair[1].seconds_since(&pair[0])?);
    }
    let seconds = median(&mut times);
    let estimate = memory.estimate;
    // The least that a step moves: weights read by forward and backward and written, gradients and moments read and written.
    let moved = 3 * estimate.weights + 2 * estimate.gradients + 2 * estimate.optimizer;
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    let ops_per_token = 6.0 * weights;
    let ranks = world.size();
    Ok(Timed {
        tokens: ranks * tokens,
        seconds,
        bandwidth: Some(ranks as f64 * bandwidth),
        peak_ops: Some(ranks as f64 * gemm_ops),
        bytes_per_token: moved as f64 / tokens as f64,
        ops_per_token,
        decoding: None,
        training: Some(Training {
            phase: phase.name(),
            precision: options.precision.name(),
            gemm_ops,
            fraction_of_gemm: tokens as f64 * ops_per_token / seconds / gemm_ops,
            memory_bytes: estimate.total(),
            first_step_seconds: first_step,
            loss,
        }),
    })
}
