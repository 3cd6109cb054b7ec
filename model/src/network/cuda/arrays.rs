//! The memory of a model in training: weights, gradients, what is quantised, the batch; planned or allocated by the same code.

use half::bf16;
use onebit_kernels_cuda::attention::AttentionShape;
use onebit_kernels_cuda::embedding::PlanShape;
use onebit_kernels_cuda::rms_norm;
use onebit_kernels_cuda::rope::rope_norm_partials;
use onebit_kernels_cuda::shards::{PIECE, TRITS};
use onebit_kernels_cuda::weights::{COUNTS, WeightTensor};
use onebit_kernels_cuda::{Arena, DeviceArray};

use super::buffers::{self, BatchShape, Buffers, MicroBatches};
use super::layout::{Layout, weight_mode};
use crate::config::{LinearMode, ModelConfig};

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

/// What does not depend on the micro-batch's shape, and the batch itself.
#[derive(Clone, Debug)]
pub(super) struct Arrays {
    /// All of them; where the blocks' matrices are divided among ranks, of these this rank's parts.
    pub parameters: DeviceArray<f32>,
    /// Of all parameters, or of those that are no matrices of a block.
    pub gradients: DeviceArray<f32>,
    /// Of the blocks' matrices, laid out like their codes, or nothing.
    pub matrix_gradients: DeviceArray<bf16>,
    pub codes: DeviceArray<i8>,
    /// Trits of the blocks' matrices as ranks send them, and sums of |W| of their pieces, where they are divided.
    pub packed: DeviceArray<u8>,
    pub piece_sums: DeviceArray<f32>,
    pub scales: DeviceArray<f32>,
    /// bf16 weights of all blocks, or of one at a time.
    pub dense: DeviceArray<bf16>,
    pub head: DeviceArray<bf16>,
    pub partials: DeviceArray<f32>,
    pub rope_partials: DeviceArray<f32>,
    pub embedding_partials: DeviceArray<f32>,
    pub ids: DeviceArray<u32>,
    pub targets: DeviceArray<u32>,
    pub plan: DeviceArray<u32>,
    /// Number of the micro-batch for dropout, and its slot among the losses of the step.
    pub numbers: DeviceArray<u32>,
    pub anneal: DeviceArray<f32>,
    /// Loss and smoothed loss of each micro-batch of the step, summed over tokens `[all micro-batches, 2]`; with several ranks, one more behind them.
    pub losses: DeviceArray<f32>,
    pub counts: DeviceArray<u32>,
}

/// Whether all blocks' bf16 weights are kept.
pub(super) fn keeps_dense(layout: &Layout) -> bool {
    2 * layout.codes <= DENSE_LIMIT
}

impl Arrays {
    fn take(
        arena: &mut Arena,
        memory: &mut CudaMemory,
        (config, layout): (&ModelConfig, &Layout),
        shape: &BatchShape,
        (step, own): (MicroBatches, Option<usize>),
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
        let parameters = arena.take(own.map_or(layout.len, |own| layout.matrices + own));
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
            packed: arena.take(own.map_or(0, |_| layout.codes / TRITS)),
            piece_sums: arena.take(own.map_or(0, |_| layout.codes / PIECE)),
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
            losses: arena.take(2 * step.all + usize::from(step.has_others())),
            counts: arena.take(COUNTS * (layout.matrix_count() + 1 + usize::from(has_own_embedding(config)))),
        };
        memory.products = (arena.used() - before) as u64;
        arrays
    }
}

pub(super) fn attention_shape(config: &ModelConfig, shape: &BatchShape) -> AttentionShape {
    AttentionShape {
        batch: shape.batch,
        seq: shape.seq,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

pub(super) fn plan_shape(config: &ModelConfig, shape: &BatchShape) -> PlanShape {
    PlanShape {
        tokens: shape.tokens(),
        vocab: config.vocab_size,
    }
}

/// Everything, out of one arena. `own` is how many elements of the blocks' matrices this rank has, where they are divided.
pub(super) fn arrays(
    arena: &mut Arena,
    config: &ModelConfig,
    layout: &Layout,
    shape: &BatchShape,
    (step, own): (MicroBatches, Option<usize>),
) -> (Arrays, Buffers, CudaMemory) {
    let mut memory = CudaMemory::default();
    let arrays = Arrays::take(arena, &mut memory, (config, layout), shape, (step, own));
    let before = arena.used();
    let buffers = Buffers::take(arena, config, layout, shape);
    memory.activations = (arena.used() - before) as u64;
    (arrays, buffers, memory)
}

/// Whether the embedding is quantised and not the head's table.
fn has_own_embedding(config: &ModelConfig) -> bool {
    !config.tie_word_embeddings && config.embedding_mode != LinearMode::F16
}

/// The number of the tensor whose rows the embedding looks up, in the table of [`weight_tensors`], if it is quantised.
pub(super) fn embedding_tensor(config: &ModelConfig, layout: &Layout) -> Option<usize> {
    let quantized = config.embedding_mode != LinearMode::F16;
    quantized.then(|| layout.matrix_count() + usize::from(!config.tie_word_embeddings))
}

/// The table of what is quantised: the blocks' matrices in order, the head behind them, and the embedding if it is a table of its own and quantised. Of the
/// tables no codes are written, and of the embedding nothing: rows are quantised as they are looked up.
pub(super) fn weight_tensors(config: &ModelConfig, layout: &Layout) -> Vec<WeightTensor> {
    let whole = keeps_dense(layout);
    let mut tensors: Vec<WeightTensor> = layout
        .blocks
        .iter()
        .flat_map(|b| &b.matrices)
        .map(|m| WeightTensor {
            master: layout.offsets[m.index],
            rows: m.rows,
            cols: m.cols,
            mode: weight_mode(m.mode),
            codes: m.codes,
            dense: if whole { m.codes } else { m.dense },
            scales: m.scales,
        })
        .collect();
    let [head_scales, embedding_scales] = layout.table_scales;
    let table = |index: usize, mode, scales| WeightTensor {
        master: layout.offsets[index],
        rows: config.vocab_size,
        cols: config.hidden_size,
        mode: weight_mode(mode),
        codes: 0,
        dense: 0,
        scales,
    };
    tensors.push(table(layout.head, config.head_mode, head_scales));
    if has_own_embedding(config) {
        tensors.push(table(layout.embedding, config.embedding_mode, embedding_scales));
    }
    tensors
}
