//! A micro-batch on its way to the GPU.

use onebit_kernels_cuda::Pinned;
use onebit_kernels_cuda::embedding::{PlanShape, Planner};

use super::CudaNetwork;
use super::arrays::plan_shape;
use crate::network::{NetworkError, Result};

/// What is copied to the GPU for a micro-batch, in memory that it copies from by itself.
#[derive(Debug)]
pub struct HostBatch {
    ids: Pinned<u32>,
    targets: Pinned<u32>,
    plan: Pinned<u32>,
    numbers: Pinned<u32>,
    anneal: Pinned<f32>,
    planner: Planner,
}

impl HostBatch {
    /// Fills it with inputs and targets `[tokens]`, the micro-batch's number for dropout, its slot within the step, and the annealing value.
    ///
    /// # Errors
    /// An id outside the vocabulary, or another number of tokens.
    pub fn fill(&mut self, (ids, targets): (&[u32], &[u32]), number: u64, slot: usize, anneal: f32) -> Result<()> {
        self.planner.plan(ids, self.plan.as_mut_slice())?;
        let PlanShape { vocab, .. } = self.planner.shape();
        if targets.len() != ids.len() || targets.iter().any(|&id| id as usize >= vocab) {
            let found = format!("{} targets", targets.len());
            return Err(NetworkError::Batch { vocab, found });
        }
        self.ids.as_mut_slice().copy_from_slice(ids);
        self.targets.as_mut_slice().copy_from_slice(targets);
        self.numbers
            .as_mut_slice()
            .copy_from_slice(&[number as u32, slot as u32]);
        self.anneal.as_mut_slice().copy_from_slice(&[anneal]);
        Ok(())
    }
}

impl CudaNetwork {
    /// Room on the host for a micro-batch.
    ///
    /// # Errors
    /// No memory.
    pub fn host_batch(&self) -> Result<HostBatch> {
        let (gpu, tokens, plan) = (&self.gpu, self.shape.tokens(), plan_shape(&self.config, &self.shape));
        Ok(HostBatch {
            ids: gpu.pinned(tokens)?,
            targets: gpu.pinned(tokens)?,
            plan: gpu.pinned(plan.words())?,
            numbers: gpu.pinned(2)?,
            anneal: gpu.pinned(1)?,
            planner: Planner::new(plan)?,
        })
    }

    /// Starts copying the ids of `batch` to the GPU, all that a forward without training reads.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn send_ids(&self, batch: &HostBatch) -> Result<()> {
        Ok(self.gpu.write_pinned(&self.arrays.ids, &batch.ids)?)
    }

    /// Starts copying `batch` to the GPU; it must stay as it is until the stream has come that far.
    ///
    /// # Errors
    /// The driver's.
    pub fn send(&self, batch: &HostBatch) -> Result<()> {
        let to = &self.arrays;
        self.gpu.write_pinned(&to.ids, &batch.ids)?;
        self.gpu.write_pinned(&to.targets, &batch.targets)?;
        self.gpu.write_pinned(&to.plan, &batch.plan)?;
        self.gpu.write_pinned(&to.numbers, &batch.numbers)?;
        Ok(self.gpu.write_pinned(&to.anneal, &batch.anneal)?)
    }
}
