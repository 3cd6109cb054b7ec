//! Training on a GPU: the whole forward and backward of a micro-batch as launches of fused kernels over memory that is planned beforehand.
//!
//! On the CPU a step is a tape of operations (`onebit_autograd`). Here it is written out, because what makes a GPU fast lies between operations: the residual
//! addition, the norm and the quantiser are one pass over memory, logits exist a part at a time, nothing is allocated, nothing waits for the host, and the
//! launches of a step can be recorded once and run again ([`onebit_kernels_cuda::Graph`]). The maths is that of [`super::forward`], and the tests hold the two
//! against each other, loss by loss and gradient by gradient.
//!
//! ```text
//! f32   master weights, gradients, residual stream and its gradient, statistics of norms and softmax, sums of every product
//! bf16  branches, attention, gate and up, logits, gradients of outputs; in the backward W and X as they were in the forward, dequantised;
//!       gradients of the blocks' matrices, where that is asked for
//! int8  in the hard phase the inputs and the weights of quantised linears: the forward's products are exact, and these inputs are what is kept
//! ```
//! An int4 linear has a step for each 32 columns, which no integer product has: it multiplies its weights `q · step` and its input, int8 by the token, in bf16.
//!
//! **Embedding and head in a mode** other than f16: rows of the embedding are quantised in f32 as they are looked up; the head's bf16 weights are those of its mode, and its input is
//! rounded as `super::forward` says, from bf16. The cost is their scales, a pass over the tables a step to measure them, and one over the head's input.
//!
//! **Straight-through**: as in `onebit_engine::ops::bit_linear`: `dX = dY · W_eff`, `dW = dYᵀ · X_eff`.
//!
//! **What changes from step to step** (batch, annealing value, dropout's step) lies in device memory, so a recording serves all steps of a [`Stage`].
//!
//! | file | |
//! |---|---|
//! | `layout.rs` | where each parameter lies in its arena; linears that are multiplied as one |
//! | `arrays.rs`, `buffers.rs` | what there is once, and activations; planned or allocated by the same code |
//! | `deal.rs`, `divided.rs` | what ranks divide among them: sums and updates, and master weights |
//! | `batch.rs` | a micro-batch on its way to the GPU |
//! | `forward.rs`, `head.rs`, `backward.rs` | the launches |
//! | `drop.rs` | dropout at its places |
//! | `teachers.rs` | models whose probabilities are learned |
//! | `inspect.rs` | counts of trits, and where a number stopped being one |

mod arrays;
mod backward;
mod batch;
mod buffers;
mod deal;
mod divided;
mod drop;
mod forward;
mod head;
mod inspect;
mod layout;
mod teachers;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use onebit_engine::Tensor;
use onebit_engine::ops::cross_entropy::LossTerms;
use onebit_kernels_cuda::activation::Activation;
use onebit_kernels_cuda::attention::AttentionShape;
use onebit_kernels_cuda::nccl::Communicator;
use onebit_kernels_cuda::rope::RopeTable;
use onebit_kernels_cuda::weights::WeightTable;
use onebit_kernels_cuda::{Arena, DeviceArray, Element, Gpu, Staging};

use rayon::prelude::*;

pub use self::arrays::CudaMemory;
use self::arrays::{Arrays, arrays, attention_shape, weight_tensors};
pub use self::batch::HostBatch;
use self::buffers::Buffers;
pub use self::buffers::{BatchShape, MicroBatches};
pub use self::deal::{Bucket, Deal, GRAIN};
use self::divided::{Divided, own_elements};
pub use self::inspect::CountsOnHost;
pub use self::layout::{ALIGNMENT, Layout};
pub use self::teachers::CudaTeachers;
use super::{DropoutRates, Network, NetworkError, Result};
use crate::config::{FeedForward, ModelConfig};

/// How linears that are quantised in the end are computed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// In full precision: the warm-up.
    Full,
    /// Between the two, at the annealing value in device memory.
    Anneal,
    /// Ternary weights, int8 activations.
    Hard,
}

impl Stage {
    /// The stage of annealing value `anneal`.
    pub fn of(anneal: f32) -> Self {
        if anneal <= 0.0 {
            Stage::Full
        } else if anneal < 1.0 {
            Stage::Anneal
        } else {
            Stage::Hard
        }
    }
}

/// Dropout of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CudaDropout {
    /// How much, and where.
    pub rates: DropoutRates,
    /// Seed of the run.
    pub seed: u64,
}

/// A model in training on a GPU.
#[derive(Debug)]
pub struct CudaNetwork {
    gpu: Gpu,
    config: ModelConfig,
    layout: Layout,
    shape: BatchShape,
    dropout: Option<CudaDropout>,
    terms: LossTerms,
    step: MicroBatches,
    table: WeightTable,
    rope: RopeTable,
    arrays: Arrays,
    buffers: Buffers,
    divided: Option<Divided>,
}

impl CudaNetwork {
    /// Bytes that [`CudaNetwork::new`] will take.
    ///
    /// # Errors
    /// A configuration that the kernels have no form for.
    pub fn plan(config: &ModelConfig, shape: &BatchShape, step: impl Into<MicroBatches>) -> Result<CudaMemory> {
        Self::plan_divided(config, shape, step, 1)
    }

    /// Bytes that [`CudaNetwork::new_divided`] will take on each of `ranks` ranks.
    ///
    /// # Errors
    /// As there.
    pub fn plan_divided(
        config: &ModelConfig,
        shape: &BatchShape,
        step: impl Into<MicroBatches>,
        ranks: usize,
    ) -> Result<CudaMemory> {
        let layout = Layout::new(config, &config.tensors())?;
        let own = own_part(&layout, ranks)?;
        Ok(arrays(&mut Arena::plan(), config, &layout, shape, (step.into(), own)).2)
    }

    /// The model of `network` on `gpu`, for micro-batches of `shape`, of which a step has `step`.
    ///
    /// # Errors
    /// A configuration that the kernels have no form for, a sequence longer than the context, no memory.
    pub fn new(
        gpu: &Gpu,
        network: &Network,
        shape: BatchShape,
        step: impl Into<MicroBatches>,
        extras: (Option<CudaDropout>, LossTerms),
    ) -> Result<Self> {
        Self::new_divided(gpu, network, shape, step, extras, None)
    }

    /// As [`new`](Self::new), with the master weights of the blocks' matrices divided among the ranks of `links`, if there are any.
    ///
    /// # Errors
    /// As there; matrices that cannot be divided among so many.
    pub fn new_divided(
        gpu: &Gpu,
        network: &Network,
        shape: BatchShape,
        step: impl Into<MicroBatches>,
        (dropout, terms): (Option<CudaDropout>, LossTerms),
        links: Option<Arc<Communicator>>,
    ) -> Result<Self> {
        let (config, step) = (network.config().clone(), step.into());
        let limit = config.max_position_embeddings;
        if shape.seq > limit {
            return Err(NetworkError::SequenceTooLong {
                found: shape.seq,
                limit,
            });
        }
        if shape.bf16_gradients && step.own > 1 {
            return Err(NetworkError::NotOnCuda {
                what: "micro-batches of a step with bf16 gradients",
                expected: "1".into(),
                found: step.own,
            });
        }
        let layout = Layout::new(&config, network.specs())?;
        let own = own_part(&layout, links.as_ref().map_or(1, |links| links.size()))?;
        let links = links.filter(|_| own.is_some());
        let mut plan = Arena::plan();
        arrays(&mut plan, &config, &layout, &shape, (step, own));
        let mut arena = Arena::new(gpu, plan.used())?;
        let (arrays, buffers, _) = arrays(&mut arena, &config, &layout, &shape, (step, own));
        let tensors = weight_tensors(&config, &layout);
        let divided = match links {
            Some(links) => Some(Divided::new(gpu, links, &layout, &tensors, &arrays)?),
            None => None,
        };
        let this = CudaNetwork {
            gpu: gpu.clone(),
            table: WeightTable::new(gpu, &tensors)?,
            rope: RopeTable::new(gpu, config.rope_theta, config.head_dim, shape.seq)?,
            config,
            layout,
            shape,
            dropout,
            terms,
            step,
            arrays,
            buffers,
            divided,
        };
        this.upload(network)?;
        Ok(this)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The shape of its micro-batches.
    pub fn shape(&self) -> BatchShape {
        self.shape
    }

    /// Where each parameter lies in the arenas.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Master weights, `layout().len` elements; where the blocks' matrices are divided among ranks, the first `layout().matrices` are all that lie where the layout says.
    pub fn parameters(&self) -> &DeviceArray<f32> {
        &self.arrays.parameters
    }

    /// Master weights of a stretch of the arena; of the blocks' matrices, where they are divided among ranks, of one within this rank's part of a block.
    ///
    /// # Errors
    /// A stretch that is another rank's.
    pub fn master(&self, elements: &Range<usize>) -> Result<DeviceArray<f32>> {
        match (&self.divided, elements.start.checked_sub(self.layout.matrices)) {
            (Some(divided), Some(start)) => {
                let own = divided.own(&(start..start + elements.len()));
                own.ok_or(NetworkError::NotOnCuda {
                    what: "weights",
                    expected: "of this rank's part of a block".into(),
                    found: elements.start,
                })
            }
            _ => Ok(self.arrays.parameters.slice(elements.clone())),
        }
    }

    /// Whether the master weights of the blocks' matrices are divided among ranks.
    pub fn is_divided(&self) -> bool {
        self.divided.is_some()
    }

    /// Gradients, laid out like the parameters: of all of them, or, where there are [`CudaNetwork::matrix_gradients`], of the first `layout().matrices` elements.
    pub fn gradients(&self) -> &DeviceArray<f32> {
        &self.arrays.gradients
    }

    /// Gradients of the parameters from element `layout().matrices` on, if they are bf16.
    pub fn matrix_gradients(&self) -> Option<&DeviceArray<bf16>> {
        self.shape.bf16_gradients.then_some(&self.arrays.matrix_gradients)
    }

    /// Loss and smoothed loss of each micro-batch of a step, summed over its tokens: `[all micro-batches, 2]`. Those of other processes are 0 here, and are added by whoever brings them together.
    /// With them there is one number more, which the step leaves alone: what a process wants to tell with its losses, a finite number.
    pub fn losses(&self) -> &DeviceArray<f32> {
        &self.arrays.losses
    }

    /// Loss of each token of the last micro-batch.
    pub fn token_losses(&self) -> &DeviceArray<f32> {
        &self.buffers.nll
    }

    /// Copies the master weights of `network` to the GPU.
    ///
    /// # Errors
    /// The driver's.
    pub fn upload(&self, network: &Network) -> Result<()> {
        if let Some(divided) = &self.divided {
            return self.upload_divided(divided, network);
        }
        for (index, tensor) in network.parameters().iter().enumerate() {
            let range = self.layout.range(index);
            self.gpu.write(&self.arrays.parameters.slice(range), tensor.f32()?)?;
        }
        Ok(())
    }

    /// Copies the master weights from the GPU to `network`. Where ranks divide them, all call it, and the first of them gets the blocks' matrices.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn download(&self, staging: &mut Staging, network: &mut Network) -> Result<()> {
        if let Some(divided) = &self.divided {
            return self.download_divided(divided, staging, network);
        }
        self.read_arena(staging, &self.arrays.parameters, network.parameters_mut().iter_mut())
    }

    /// Fills `tensors`, shaped like the parameters, from an arena that is laid out like them.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn read_arena<'a>(
        &self,
        staging: &mut Staging,
        arena: &DeviceArray<f32>,
        tensors: impl Iterator<Item = &'a mut Tensor>,
    ) -> Result<()> {
        for (index, tensor) in tensors.enumerate() {
            read_into(staging, &arena.slice(self.layout.range(index)), tensor.f32_mut()?)?;
        }
        Ok(())
    }

    /// Launches forward and backward of the micro-batch that was sent. Gradients replace what was there, or with `accumulate` are added to it; they are those of the
    /// mean loss over the tokens of a whole step.
    ///
    /// The weights are quantised anew unless `accumulate` says that this step has done so.
    ///
    /// # Errors
    /// The driver's.
    pub fn forward_backward(&self, stage: Stage, accumulate: bool) -> Result<()> {
        self.forward_backward_taught(stage, accumulate, None, &mut |_| Ok(()))
    }

    /// As [`forward_backward`](Self::forward_backward), with teachers, which the micro-batch was sent to as well. `complete` is called for each of the layout's buckets, in their order, when all that its
    /// gradients need has been launched.
    ///
    /// # Errors
    /// The driver's, and those of `complete`.
    pub fn forward_backward_taught<E: From<NetworkError>>(
        &self,
        stage: Stage,
        accumulate: bool,
        teachers: Option<&CudaTeachers>,
        complete: &mut dyn FnMut(&Range<usize>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        if !accumulate {
            if self.step.has_others() {
                let losses = self.arrays.losses.slice(..2 * self.step.all);
                self.gpu.fill_bytes(&losses, 0).map_err(NetworkError::from)?;
            }
            self.quantize_weights(stage)?;
        }
        self.forward(stage, true)?;
        if let Some(teachers) = teachers {
            teachers.forward()?;
        }
        self.head(accumulate, teachers)?;
        let buckets = self.layout.buckets();
        let (blocks, others): (Vec<_>, Vec<_>) = buckets.into_iter().partition(|b| b.start >= self.layout.matrices);
        let (head, others) = others.split_at(usize::from(!self.config.tie_word_embeddings));
        head.iter().try_for_each(&mut *complete)?;
        self.backward_begin(accumulate)?;
        for (block, bucket) in (0..blocks.len()).rev().zip(&blocks) {
            self.block_backward(stage, block, accumulate)?;
            complete(bucket)?;
        }
        self.backward_end(accumulate)?;
        others.iter().try_for_each(complete)
    }

    /// Launches the forward of the micro-batch that was sent, without dropout; the losses of its tokens are then in [`CudaNetwork::token_losses`].
    ///
    /// # Errors
    /// The driver's.
    pub fn evaluate(&self, stage: Stage) -> Result<()> {
        self.quantize_weights(stage)?;
        self.forward(stage, false)?;
        self.head_losses()
    }

    fn attention_shape(&self) -> AttentionShape {
        attention_shape(&self.config, &self.shape)
    }

    fn activation(&self) -> Activation {
        match self.config.feed_forward {
            FeedForward::Relu2Gated => Activation::Relu2Gate,
            FeedForward::SwiGlu => Activation::SiluGate,
            FeedForward::Relu2 => Activation::Relu2,
        }
    }

    /// Parameter `index`.
    fn parameter(&self, index: usize) -> DeviceArray<f32> {
        self.arrays.parameters.slice(self.layout.range(index))
    }

    /// Its gradient, which is f32.
    fn gradient(&self, index: usize) -> DeviceArray<f32> {
        self.arrays.gradients.slice(self.layout.range(index))
    }
}

/// Elements of the blocks' matrices that one of several ranks has.
fn own_part(layout: &Layout, ranks: usize) -> Result<Option<usize>> {
    match ranks {
        0 | 1 => Ok(None),
        ranks => own_elements(layout, ranks).map(Some),
    }
}

/// Copies `array` to as many values of the host, by all threads, because the first writing of fresh memory takes longer than the copy.
///
/// # Errors
/// What a kernel ran into.
pub fn read_into<T: Element + Send + Sync>(staging: &mut Staging, array: &DeviceArray<T>, to: &mut [T]) -> Result<()> {
    const PART: usize = 1 << 18;
    Ok(staging.read(array, |first, values| {
        let to = &mut to[first..first + values.len()];
        to.par_chunks_mut(PART)
            .zip(values.par_chunks(PART))
            .for_each(|(to, from)| to.copy_from_slice(from));
    })?)
}
