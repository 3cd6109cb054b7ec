//! What a step sends and how long it takes.

use serde::Serialize;

use super::rates::MEMORY;
use super::{Fabric, PIECE, Parts, Run, Sharding};
use crate::options::OptimizerKind;
use crate::schedule::Phase;

/// Bytes that a rank sends in a step, if the collectives are rings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// Gradients.
    pub gradients: f64,
    /// Weights: as f32, bf16 or trits.
    pub weights: f64,
}

impl Traffic {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.gradients + self.weights
    }
}

/// Seconds of a step; they add up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepTime {
    /// Forward and backward, and what is as on one GPU.
    pub compute: f64,
    /// What is left of the reduction of gradients when the backward has ended.
    pub reduce: f64,
    /// Norm, update and quantisation, with the exchange of the norm.
    pub update: f64,
    /// Gathering weights.
    pub gather: f64,
    /// All of it.
    pub total: f64,
}

/// Bytes of the gradient of an element of a matrix.
fn gradient(run: &Run<'_>) -> f64 {
    if run.options.bf16_gradients() { 2.0 } else { 4.0 }
}

/// Bytes of the weights that a gather leaves on every rank: of each block, and of the rest.
fn gathered(run: &Run<'_>, parts: &Parts, shard: Sharding) -> (Vec<f64>, f64) {
    let of = |trit: f64, full: f64| {
        let blocks = parts.blocks.iter();
        blocks.map(|b| trit * b.trits as f64 + full * b.full as f64).collect()
    };
    let rest = 4.0 * parts.rest as f64;
    match shard {
        Sharding::None => (Vec::new(), 0.0),
        Sharding::Optimizer => (of(4.0, 4.0), rest),
        Sharding::Parameters if run.phase == Phase::Hard => (of(0.25, 2.0), rest),
        Sharding::Parameters => (of(2.0, 2.0), rest),
    }
}

/// Bytes of the sums of |W| that all ranks add, from which each has γ.
fn sums(parts: &Parts, shard: Sharding) -> f64 {
    match shard {
        Sharding::Parameters => 4.0 * (parts.matrices() / PIECE) as f64,
        _ => 0.0,
    }
}

pub(super) fn traffic(run: &Run<'_>, parts: &Parts, gpus: usize, shard: Sharding) -> Traffic {
    let others = (gpus as f64 - 1.0) / gpus as f64;
    let gradients = gradient(run) * parts.matrices() as f64 + 4.0 * parts.rest as f64;
    let (blocks, rest) = gathered(run, parts, shard);
    let times = if shard == Sharding::None { 2.0 } else { 1.0 };
    Traffic {
        gradients: times * others * gradients,
        weights: others * (blocks.iter().sum::<f64>() + rest + 2.0 * sums(parts, shard)),
    }
}

pub(super) fn time(run: &Run<'_>, parts: &Parts, fabric: &Fabric, gpus: usize, shard: Sharding) -> StepTime {
    let alone = run.options.tokens_per_step() as f64 / run.rate.tokens_per_second;
    // A rate that somebody gave may leave no time for anything else than the update.
    let compute = (alone - update(run, parts, 1, Sharding::None)).max(0.0);
    let norm = match shard {
        Sharding::None => 0.0,
        _ => fabric.all_gather(8.0 * gpus as f64, gpus),
    };
    let (blocks, rest) = gathered(run, parts, shard);
    let gathers = blocks.iter().map(|&bytes| fabric.all_gather(bytes, gpus)).sum::<f64>();
    let mut time = StepTime {
        compute,
        reduce: reduce(run, parts, fabric, gpus, shard, compute),
        update: update(run, parts, gpus, shard) + norm,
        gather: gathers + fabric.all_gather(rest, gpus) + fabric.all_reduce(sums(parts, shard), gpus),
        total: 0.0,
    };
    time.total = time.compute + time.reduce + time.update + time.gather;
    time
}

/// What the backward of the last micro-batch does not hide: its blocks are ready one by one, and the rest when it has ended.
fn reduce(run: &Run<'_>, parts: &Parts, fabric: &Fabric, gpus: usize, shard: Sharding, compute: f64) -> f64 {
    let collective = |bytes: f64| match shard {
        Sharding::None => fabric.all_reduce(bytes, gpus),
        _ => fabric.reduce_scatter(bytes, gpus),
    };
    // Forward, again for the gradients, and two products for each of its.
    let share = if run.options.recompute { 3.0 / 4.0 } else { 2.0 / 3.0 };
    let backward = share * compute / run.options.accumulation_steps.max(1) as f64;
    let blocks = parts.blocks.len().max(1) as f64;
    let mut sent = 0.0f64;
    for (i, bucket) in parts.blocks.iter().rev().enumerate() {
        let ready = backward * ((i as f64 + 1.0) / blocks);
        sent = sent.max(ready) + collective(gradient(run) * bucket.elements() as f64);
    }
    sent.max(backward) + collective(4.0 * parts.rest as f64) - backward
}

/// Seconds in which memory moves what norm, optimiser and quantiser read and write: bytes as the kernels' headers have them.
fn update(run: &Run<'_>, parts: &Parts, gpus: usize, shard: Sharding) -> f64 {
    let (matrices, rest, trits) = (parts.matrices() as f64, parts.rest as f64, parts.trits() as f64);
    let own = if shard == Sharding::None {
        1.0
    } else {
        1.0 / gpus as f64
    };
    // Beside the gradient: weights read and written, moments read and written.
    let state = match run.options.optimizer {
        OptimizerKind::AdamW8bit => 12.0,
        OptimizerKind::AdamW | OptimizerKind::Muon => 24.0,
    };
    let of = |gradient: f64, elements: f64| own * elements * (2.0 * gradient + state);
    let quantised = match shard {
        // Measured and packed by its owner, unpacked by all to codes and bf16.
        Sharding::Parameters if run.phase == Phase::Hard => trits * (8.25 * own + 3.25),
        _ => trits * 11.0,
    };
    (of(gradient(run), matrices) + of(4.0, rest) + quantised) / MEMORY
}
