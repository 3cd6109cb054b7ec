//! Bytes on each GPU.

use serde::Serialize;

use super::{Run, Sharding};
use crate::Result;
use crate::options::TrainOptions;
use crate::run::cuda_memory_estimate;

/// Bytes of a rank, by use. On one GPU, with nothing to divide, they are what [`cuda_memory_estimate`] says of the run without ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RankMemory {
    /// f32 master weights.
    pub weights: u64,
    /// Trits of all ranks, and the sums that they are made with; with several ranks also the losses of the others.
    pub packed: u64,
    /// Gradients, whole.
    pub gradients: u64,
    /// Moments, and what the optimiser has beside them.
    pub optimizer: u64,
    /// What products read of the weights, int8 and bf16.
    pub products: u64,
    /// What a micro-batch keeps, and scratch.
    pub activations: u64,
}

impl RankMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.packed + self.gradients + self.optimizer + self.products + self.activations
    }
}

/// That of a rank.
pub(super) fn of_rank(run: &Run<'_>, gpus: usize, shard: Sharding) -> Result<RankMemory> {
    let ranks = |world, shard| TrainOptions {
        world,
        shard,
        ..run.options.clone()
    };
    let whole = cuda_memory_estimate(run.config, &[], &ranks(1, Sharding::None))?;
    let divided = cuda_memory_estimate(run.config, &[], &ranks(gpus, shard))?;
    Ok(RankMemory {
        weights: divided.weights,
        packed: divided.products.saturating_sub(whole.products),
        gradients: divided.gradients,
        optimizer: divided.optimizer,
        products: whole.products.min(divided.products),
        activations: divided.activations,
    })
}
