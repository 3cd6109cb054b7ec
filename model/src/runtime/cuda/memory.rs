//! What a model and a session take of a GPU's memory, and what has no kernel, found before anything is uploaded.

use onebit_kernels_cuda::decode::{BatchRoom, BatchState, DecodeState, HeadSketch, Room};
use onebit_kernels_cuda::mixed_linear::LinearStack;
use onebit_kernels_cuda::ternary_gemv::Extent;

use super::batch::batch_room;
use super::convert::{decode_shape, sketched};
use super::parts::{kinds, vocabulary_kind};
use super::session::kv_kind;
use super::{CudaModel, CudaRuntimeError};
use crate::config::ModelConfig;
use crate::runtime::{Block, FloatMatrix, KvType, PackedModel, RuntimeError, SessionOptions};

/// Bytes on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaMemory {
    /// The blocks.
    pub blocks: u64,
    /// Embedding and head, and the sketch of a large head of floats.
    pub head: u64,
    /// What a session has for its context: keys and values, the rotation, the parts of attention.
    pub context: u64,
    /// What it has besides.
    pub buffers: u64,
}

impl CudaMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.blocks + self.head + self.context + self.buffers
    }
}

impl CudaModel {
    /// What `model` and a session of `context` tokens with keys and values as `kv` take.
    ///
    /// # Errors
    /// [`CudaRuntimeError::Unsupported`] for what has no kernel, as [`CudaModel::new`].
    pub fn memory(model: &PackedModel, context: usize, kv: KvType) -> Result<CudaMemory, CudaRuntimeError> {
        let config = model.config();
        check_heads(config)?;
        let shape = decode_shape(config);
        let (weights, extent) = weights(model)?;
        let sizes = (config.num_hidden_layers, config.vocab_size);
        let room = Room::new(&shape, context);
        let [context, buffers] = DecodeState::bytes_needed(&shape, sizes, kv_kind(kv), room, extent);
        Ok(CudaMemory {
            context,
            buffers,
            ..weights
        })
    }

    /// What `model` and a batch ([`CudaBatch::new`](super::CudaBatch::new)) take.
    ///
    /// # Errors
    /// As [`CudaBatch::new`](super::CudaBatch::new); [`CudaRuntimeError::Unsupported`] as [`CudaModel::new`].
    pub fn batch_memory(
        model: &PackedModel,
        options: &SessionOptions,
        sequences: usize,
    ) -> Result<CudaMemory, CudaRuntimeError> {
        let config = model.config();
        check_batch(config, options, sequences)?;
        let shape = decode_shape(config);
        let (weights, extent) = weights(model)?;
        let sizes = (config.num_hidden_layers, config.vocab_size);
        let room = batch_room(options, sequences);
        let [context, buffers] = BatchState::bytes_needed(&shape, sizes, kv_kind(options.kv), room, extent);
        Ok(CudaMemory {
            context,
            buffers,
            ..weights
        })
    }
}

/// What the weights take, and the extent of all matrices.
fn weights(model: &PackedModel) -> Result<(CudaMemory, Extent), CudaRuntimeError> {
    let config = model.config();
    let mut blocks = 4 * model.norm().len();
    let mut extent = Extent::default();
    for (index, block) in model.blocks().iter().enumerate() {
        blocks += block_bytes(index, block, &mut extent)?;
    }
    extent = extent.max(vocabulary_kind(model.head()).extent_needed(config.hidden_size));
    let mut head = matrix_bytes(model.embedding());
    if !std::ptr::eq(model.head(), model.embedding()) {
        head += matrix_bytes(model.head());
    }
    if sketched(model.head()) {
        head += HeadSketch::bytes_needed([model.head().rows, model.head().cols]);
    }
    let weights = CudaMemory {
        blocks: blocks as u64,
        head: head as u64,
        ..CudaMemory::default()
    };
    Ok((weights, extent))
}

/// Whether attention has a form for the heads.
fn check_heads(config: &ModelConfig) -> Result<(), CudaRuntimeError> {
    let (heads, kv_heads, head_dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    if head_dim.is_multiple_of(16) && heads <= 32 * kv_heads {
        return Ok(());
    }
    Err(CudaRuntimeError::Unsupported {
        what: "attention".into(),
        found: format!(
            "{heads} heads over {kv_heads} of {head_dim} values (up to 32 for each key head, of a multiple of 16 values)"
        ),
    })
}

/// Whether a batch of so many sequences with these sizes can be.
pub(super) fn check_batch(
    config: &ModelConfig,
    options: &SessionOptions,
    sequences: usize,
) -> Result<(), CudaRuntimeError> {
    options.validate_batch(config, sequences)?;
    check_heads(config)?;
    if config.head_dim > BatchRoom::MOST_HEAD_DIM {
        return Err(CudaRuntimeError::Unsupported {
            what: "attention of many sequences".into(),
            found: format!(
                "heads of {} values (up to {})",
                config.head_dim,
                BatchRoom::MOST_HEAD_DIM
            ),
        });
    }
    if options.chunk > BatchRoom::MOST_CHUNK {
        let error = RuntimeError::Option {
            name: "chunk",
            found: options.chunk,
            limit: BatchRoom::MOST_CHUNK,
        };
        return Err(error.into());
    }
    Ok(())
}

/// Gate and up, which are no stack.
const GATED: &str = "gate and up";

/// Bytes of a block; `extent` becomes that of its matrices too.
fn block_bytes(index: usize, block: &Block, extent: &mut Extent) -> Result<usize, CudaRuntimeError> {
    let name = |part: &str| format!("layer {index}, {part}");
    let (up, feed_forward) = match &block.gate {
        Some(gate) => (GATED, vec![gate, &block.up]),
        None => ("up", vec![&block.up]),
    };
    let matrices = [
        ("q, k and v", vec![&block.q, &block.k, &block.v]),
        ("o", vec![&block.o]),
        (up, feed_forward),
        ("down", vec![&block.down]),
    ];
    let mut bytes = block.norms().map(|norm| 4 * norm.len()).sum();
    for (part, linears) in matrices {
        let sizes = linears.iter().map(|linear| [linear.rows(), linear.cols()]);
        let parts: Vec<_> = kinds(&name(part), &linears)?.into_iter().zip(sizes).collect();
        *extent = extent.max(LinearStack::extent_needed(&parts, part == GATED));
        bytes += parts.iter().map(|(kind, size)| kind.bytes_needed(*size)).sum::<usize>();
    }
    Ok(bytes)
}

fn matrix_bytes(matrix: &FloatMatrix) -> usize {
    vocabulary_kind(matrix).bytes_needed([matrix.rows, matrix.cols])
}
