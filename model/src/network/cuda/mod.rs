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
//!
//! **Straight-through**: as in `onebit_engine::ops::bit_linear`: `dX = dY · W_eff`, `dW = dYᵀ · X_eff`.
//!
//! **What changes from step to step** (batch, annealing value, dropout's step) lies in device memory, so a recording serves all steps of a [`Stage`].
//!
//! | file | |
//! |---|---|
//! | `layout.rs` | arenas of parameters, gradients, codes; linears that are multiplied as one |
//! | `buffers.rs` | activations, planned or allocated by the same code |
//! | `forward.rs`, `head.rs`, `backward.rs` | the launches |

mod backward;
mod buffers;
mod forward;
mod head;
mod layout;
#[cfg(test)]
mod tests;

use half::bf16;
use onebit_engine::Tensor;
use onebit_kernels_cuda::activation::Activation;
use onebit_kernels_cuda::attention::AttentionShape;
use onebit_kernels_cuda::embedding::{PlanShape, Planner};
use onebit_kernels_cuda::rms_norm;
use onebit_kernels_cuda::rope::{RopeTable, rope_norm_partials};
use onebit_kernels_cuda::weights::{COUNTS, WeightMode, WeightTable, WeightTensor};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Pinned};

pub use self::buffers::BatchShape;
use self::buffers::Buffers;
pub use self::layout::{ALIGNMENT, Layout};
use super::{Network, NetworkError, Result};
use crate::config::{FeedForward, LinearMode, ModelConfig, TensorSpec};

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

/// Dropout of a run: on the embedding and on what each block writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CudaDropout {
    /// Probability of zeroing an element.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
}

/// Bytes on the GPU, by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaMemory {
    /// f32 master weights.
    pub weights: u64,
    /// Gradients, f32 or in part bf16.
    pub gradients: u64,
    /// What products read of the weights: int8 codes and bf16.
    pub products: u64,
    /// What a micro-batch keeps, and scratch.
    pub activations: u64,
}

impl CudaMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.products + self.activations
    }
}

/// Bytes up to which the bf16 weights of all blocks are kept, not only those of the block at work.
const DENSE_LIMIT: usize = 4 << 30;

/// A model in training on a GPU.
#[derive(Debug)]
pub struct CudaNetwork {
    gpu: Gpu,
    config: ModelConfig,
    layout: Layout,
    shape: BatchShape,
    dropout: Option<CudaDropout>,
    smoothing: f32,
    /// Micro-batches of a step, whose mean is taken.
    accumulation: usize,
    table: WeightTable,
    rope: RopeTable,
    arrays: Arrays,
    buffers: Buffers,
}

/// What does not depend on the micro-batch's shape, and the batch itself.
#[derive(Clone, Debug)]
struct Arrays {
    parameters: DeviceArray<f32>,
    /// Of all parameters, or of those that are no matrices of a block.
    gradients: DeviceArray<f32>,
    /// Of the blocks' matrices, laid out like their codes, or nothing.
    matrix_gradients: DeviceArray<bf16>,
    codes: DeviceArray<i8>,
    scales: DeviceArray<f32>,
    /// bf16 weights of all blocks, or of one at a time.
    dense: DeviceArray<bf16>,
    head: DeviceArray<bf16>,
    partials: DeviceArray<f32>,
    rope_partials: DeviceArray<f32>,
    embedding_partials: DeviceArray<f32>,
    ids: DeviceArray<u32>,
    targets: DeviceArray<u32>,
    plan: DeviceArray<u32>,
    /// Number of the micro-batch for dropout, and its slot among the losses of the step.
    numbers: DeviceArray<u32>,
    anneal: DeviceArray<f32>,
    /// Loss and smoothed loss of each micro-batch of the step, summed over tokens `[accumulation, 2]`.
    losses: DeviceArray<f32>,
    counts: DeviceArray<u32>,
}

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

/// What [`CudaNetwork::count`] found, on the host.
#[derive(Debug)]
pub struct CountsOnHost {
    counts: Pinned<u32>,
    gammas: Pinned<f32>,
}

/// Whether all blocks' bf16 weights are kept.
fn keeps_dense(layout: &Layout) -> bool {
    2 * layout.codes <= DENSE_LIMIT
}

impl Arrays {
    fn take(
        arena: &mut Arena,
        memory: &mut CudaMemory,
        (config, layout): (&ModelConfig, &Layout),
        shape: &BatchShape,
        accumulation: usize,
    ) -> Self {
        let tokens = shape.tokens();
        // Whole chunks of logits are written, so there are weights (of zeros) for their last columns.
        let head = buffers::vocab_stride(config) * config.hidden_size;
        let widest = config
            .hidden_size
            .max(config.query_size())
            .max(config.intermediate_size);
        let plan = plan_shape(config, shape);
        let before = arena.used();
        let parameters = arena.take(layout.len);
        memory.weights = (arena.used() - before) as u64;
        let before = arena.used();
        let (wide, narrow) = match shape.bf16_gradients {
            true => (layout.matrices, layout.codes),
            false => (layout.len, 0),
        };
        let (gradients, matrix_gradients) = (arena.take(wide), arena.take(narrow));
        memory.gradients = (arena.used() - before) as u64;
        let before = arena.used();
        let dense = if keeps_dense(layout) {
            layout.codes
        } else {
            layout.dense
        };
        let arrays = Arrays {
            parameters,
            gradients,
            matrix_gradients,
            codes: arena.take(layout.codes),
            scales: arena.take(layout.scales),
            dense: arena.take(dense),
            head: arena.take(head),
            partials: arena.take(rms_norm::partial_len(widest)),
            rope_partials: arena.take(rope_norm_partials(attention_shape(config, shape))),
            embedding_partials: arena.take(plan.partial_rows() * config.hidden_size),
            ids: arena.take(tokens),
            targets: arena.take(tokens),
            plan: arena.take(plan.words()),
            numbers: arena.take(2),
            anneal: arena.take(1),
            losses: arena.take(2 * accumulation),
            counts: arena.take(COUNTS * (layout.blocks.iter().map(|b| b.matrices.len()).sum::<usize>() + 1)),
        };
        memory.products = (arena.used() - before) as u64;
        arrays
    }
}

fn attention_shape(config: &ModelConfig, shape: &BatchShape) -> AttentionShape {
    AttentionShape {
        batch: shape.batch,
        seq: shape.seq,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

fn plan_shape(config: &ModelConfig, shape: &BatchShape) -> PlanShape {
    PlanShape {
        tokens: shape.tokens(),
        vocab: config.vocab_size,
    }
}

impl CudaNetwork {
    /// Bytes that [`CudaNetwork::new`] will take.
    ///
    /// # Errors
    /// A configuration that the kernels have no form for.
    pub fn plan(config: &ModelConfig, shape: &BatchShape, accumulation: usize) -> Result<CudaMemory> {
        let layout = Layout::new(config, &config.tensors())?;
        Ok(arrays(&mut Arena::plan(), config, &layout, shape, accumulation).2)
    }

    /// The model of `network` on `gpu`, for micro-batches of `shape`, of which a step has `accumulation`.
    ///
    /// # Errors
    /// A configuration that the kernels have no form for, a sequence longer than the context, no memory.
    pub fn new(
        gpu: &Gpu,
        network: &Network,
        shape: BatchShape,
        accumulation: usize,
        (dropout, smoothing): (Option<CudaDropout>, f32),
    ) -> Result<Self> {
        let config = network.config().clone();
        let limit = config.max_position_embeddings;
        if shape.seq > limit {
            return Err(NetworkError::SequenceTooLong {
                found: shape.seq,
                limit,
            });
        }
        if shape.bf16_gradients && accumulation > 1 {
            return Err(NetworkError::NotOnCuda {
                what: "micro-batches of a step with bf16 gradients",
                expected: "1".into(),
                found: accumulation,
            });
        }
        let layout = Layout::new(&config, network.specs())?;
        let mut plan = Arena::plan();
        arrays(&mut plan, &config, &layout, &shape, accumulation);
        let mut arena = Arena::new(gpu, plan.used())?;
        let (arrays, buffers, _) = arrays(&mut arena, &config, &layout, &shape, accumulation);
        let this = CudaNetwork {
            gpu: gpu.clone(),
            table: WeightTable::new(gpu, &weight_tensors(&config, &layout))?,
            rope: RopeTable::new(gpu, config.rope_theta, config.head_dim, shape.seq)?,
            config,
            layout,
            shape,
            dropout,
            smoothing,
            accumulation,
            arrays,
            buffers,
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

    /// Master weights, `layout().len` elements.
    pub fn parameters(&self) -> &DeviceArray<f32> {
        &self.arrays.parameters
    }

    /// Gradients, laid out like the parameters: of all of them, or, where there are [`CudaNetwork::matrix_gradients`], of the first `layout().matrices` elements.
    pub fn gradients(&self) -> &DeviceArray<f32> {
        &self.arrays.gradients
    }

    /// Gradients of the parameters from element `layout().matrices` on, if they are bf16.
    pub fn matrix_gradients(&self) -> Option<&DeviceArray<bf16>> {
        self.shape.bf16_gradients.then_some(&self.arrays.matrix_gradients)
    }

    /// Loss and smoothed loss of each micro-batch of a step, summed over its tokens: `[accumulation, 2]`.
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
        for (index, tensor) in network.parameters().iter().enumerate() {
            let range = self.layout.range(index);
            self.gpu.write(&self.arrays.parameters.slice(range), tensor.f32()?)?;
        }
        Ok(())
    }

    /// Copies the master weights from the GPU to `network`.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn download(&self, network: &mut Network) -> Result<()> {
        self.read_arena(&self.arrays.parameters, network.parameters_mut().iter_mut())
    }

    /// Fills `tensors`, shaped like the parameters, from an arena that is laid out like them.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn read_arena<'a>(
        &self,
        arena: &DeviceArray<f32>,
        tensors: impl Iterator<Item = &'a mut Tensor>,
    ) -> Result<()> {
        for (index, tensor) in tensors.enumerate() {
            let values = self.gpu.download(&arena.slice(self.layout.range(index)))?;
            tensor.f32_mut()?.copy_from_slice(&values);
        }
        Ok(())
    }

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

    /// Launches forward and backward of the micro-batch that was sent. Gradients replace what was there, or with `accumulate` are added to it; they are those of the
    /// mean loss over the tokens of a whole step.
    ///
    /// The weights are quantised anew unless `accumulate` says that this step has done so.
    ///
    /// # Errors
    /// The driver's.
    pub fn forward_backward(&self, stage: Stage, accumulate: bool) -> Result<()> {
        if !accumulate {
            self.quantize_weights(stage)?;
        }
        self.forward(stage, true)?;
        self.head(accumulate)?;
        self.backward(stage, accumulate)
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

    /// Launches the counting of zeros, clipped weights and trits that differ from those of the last forward, for each ternary matrix of the master weights as they
    /// are now; [`CudaNetwork::read_counts`] copies the result.
    ///
    /// # Errors
    /// The driver's.
    pub fn count(&self) -> Result<()> {
        let (a, blocks) = (&self.arrays, 0..self.table.tensors().len() - 1);
        self.table
            .measure(&self.gpu, blocks.clone(), &a.parameters, &a.scales)?;
        Ok(self
            .table
            .statistics(&self.gpu, blocks, &a.parameters, Some(&a.codes), &a.counts)?)
    }

    /// Launches the quantisation of the master weights for [`CudaNetwork::count`] to compare with, in stages whose forward does not do it.
    ///
    /// # Errors
    /// The driver's.
    pub fn quantize_codes(&self) -> Result<()> {
        let (a, blocks) = (&self.arrays, 0..self.table.tensors().len() - 1);
        self.table
            .measure(&self.gpu, blocks.clone(), &a.parameters, &a.scales)?;
        Ok(self.table.write(
            &self.gpu,
            blocks,
            &a.parameters,
            &a.scales,
            Some(&a.codes),
            None,
            &a.anneal,
        )?)
    }

    /// Room on the host for what [`CudaNetwork::count`] finds.
    ///
    /// # Errors
    /// No memory.
    pub fn counts_on_host(&self) -> Result<CountsOnHost> {
        Ok(CountsOnHost {
            counts: self.gpu.pinned(self.arrays.counts.len())?,
            gammas: self.gpu.pinned(self.table.gammas().len())?,
        })
    }

    /// Starts copying what [`CudaNetwork::count`] found.
    ///
    /// # Errors
    /// The driver's.
    pub fn read_counts(&self, to: &mut CountsOnHost) -> Result<()> {
        self.gpu.read_pinned(&self.arrays.counts, &mut to.counts)?;
        Ok(self.gpu.read_pinned(self.table.gammas(), &mut to.gammas)?)
    }

    /// Of each ternary matrix the index of its parameter, γ, and how many weights are zero, clipped and flipped.
    pub fn ternary_counts<'a>(
        &'a self,
        from: &'a CountsOnHost,
    ) -> impl Iterator<Item = (usize, f32, [u32; COUNTS])> + 'a {
        let matrices = self.layout.blocks.iter().flat_map(|b| &b.matrices);
        let counts = from.counts.as_slice().chunks_exact(COUNTS);
        matrices
            .zip(counts.zip(from.gammas.as_slice()))
            .filter(|(m, _)| m.mode == LinearMode::Ternary)
            .map(|(m, (counts, gamma))| (m.index, *gamma, [counts[0], counts[1], counts[2]]))
    }

    /// The first place in the last forward, or else the first gradient of its backward, with a number that is not finite.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn first_not_finite(&self, specs: &[TensorSpec]) -> Result<Option<String>> {
        let finite =
            |array: &DeviceArray<f32>| Ok::<_, NetworkError>(self.gpu.download(array)?.iter().all(|x| x.is_finite()));
        let b = &self.buffers;
        for (i, block) in b.blocks.iter().enumerate() {
            let before = match i.checked_sub(1) {
                Some(before) => format!("model.layers.{before}.mlp"),
                None => "model.embed_tokens".into(),
            };
            if !finite(&block.x_in)? {
                return Ok(Some(before));
            }
            // With recomputation the blocks share this array.
            if !self.shape.recompute && !finite(&block.x_mid)? {
                return Ok(Some(format!("model.layers.{i}.self_attn")));
            }
        }
        if !finite(&b.x_last)? {
            return Ok(Some(format!("model.layers.{}.mlp", b.blocks.len() - 1)));
        }
        if !finite(&b.nll)? {
            return Ok(Some("lm_head".into()));
        }
        for (index, spec) in specs.iter().enumerate() {
            let finite = match self.matrix_gradients().zip(self.layout.codes_range(index)) {
                Some((narrow, range)) => self.gpu.download(&narrow.slice(range))?.iter().all(|x| x.is_finite()),
                None => finite(&self.gradient(index))?,
            };
            if !finite {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
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

/// Everything, out of one arena.
fn arrays(
    arena: &mut Arena,
    config: &ModelConfig,
    layout: &Layout,
    shape: &BatchShape,
    accumulation: usize,
) -> (Arrays, Buffers, CudaMemory) {
    let mut memory = CudaMemory::default();
    let arrays = Arrays::take(arena, &mut memory, (config, layout), shape, accumulation);
    let before = arena.used();
    let buffers = Buffers::take(arena, config, layout, shape);
    memory.activations = (arena.used() - before) as u64;
    (arrays, buffers, memory)
}

/// The table of what is quantised: the blocks' matrices in order, and the head behind them.
fn weight_tensors(config: &ModelConfig, layout: &Layout) -> Vec<WeightTensor> {
    let whole = keeps_dense(layout);
    let mut tensors: Vec<WeightTensor> = layout
        .blocks
        .iter()
        .flat_map(|b| &b.matrices)
        .map(|m| WeightTensor {
            master: layout.offsets[m.index],
            rows: m.rows,
            cols: m.cols,
            mode: match m.mode {
                LinearMode::F16 => WeightMode::Full,
                LinearMode::Int8 => WeightMode::Int8,
                LinearMode::Int4 => WeightMode::Int4,
                LinearMode::Ternary => WeightMode::Ternary,
                LinearMode::Binary => WeightMode::Binary,
            },
            codes: m.codes,
            dense: if whole { m.codes } else { m.dense },
            scales: m.scales,
        })
        .collect();
    tensors.push(WeightTensor {
        master: layout.offsets[layout.head],
        rows: config.vocab_size,
        cols: config.hidden_size,
        mode: WeightMode::Full,
        codes: 0,
        dense: 0,
        scales: 0,
    });
    tensors
}
