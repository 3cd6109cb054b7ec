//! Bytes on each GPU.

use onebit_kernels_cuda::Arena;
use serde::Serialize;

use super::{PIECE, Parts, Run, Sharding, share};
use crate::Result;
use crate::options::OptimizerKind;
use crate::run::cuda_memory_estimate;

/// Bytes of a rank, by use. On one GPU, with nothing to divide, they are what [`cuda_memory_estimate`] says of the run without ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RankMemory {
    /// f32 master weights.
    pub weights: u64,
    /// Trits of all ranks, with the sums and tables that they are made with.
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

/// That of the rank that has most.
pub(super) fn of_rank(run: &Run<'_>, parts: &Parts, gpus: usize, shard: Sharding) -> Result<RankMemory> {
    let whole = cuda_memory_estimate(run.config, &[], run.options)?;
    let (matrices, own) = (parts.matrices(), parts.share(gpus));
    let kind = run.options.optimizer;
    let optimizer = match shard {
        Sharding::None => whole.optimizer,
        // What is left over is no moments.
        _ => whole.optimizer - moments(kind, parts.rest + matrices) + moments(kind, share(parts.rest, gpus) + own),
    };
    let (weights, packed) = match shard {
        Sharding::Parameters => (arena(4, parts.rest + own), exchange(matrices, own)),
        _ => (whole.weights, 0),
    };
    Ok(RankMemory {
        weights,
        packed,
        gradients: whole.gradients,
        optimizer,
        products: whole.products,
        activations: whole.activations,
    })
}

/// Bytes of an array of an arena.
fn arena(size: usize, elements: usize) -> u64 {
    (size * elements).next_multiple_of(Arena::ALIGNMENT) as u64
}

/// Moments of `elements`, as they lie on the GPU; none of Muon's are divided.
fn moments(kind: OptimizerKind, elements: usize) -> u64 {
    match kind {
        OptimizerKind::AdamW8bit => {
            2 * arena(1, elements) + 2 * arena(4, elements / onebit_kernels_cuda::optimizer::BLOCK)
        }
        OptimizerKind::AdamW | OptimizerKind::Muon => 2 * arena(4, elements),
    }
}

/// The packed arena, a sum for each of its pieces, and the tables of `ShardTable`.
fn exchange(matrices: usize, own: usize) -> u64 {
    let pieces = matrices / PIECE;
    arena(1, matrices / 4) + arena(4, pieces) + arena(4, pieces) + arena(16, own / PIECE)
}
