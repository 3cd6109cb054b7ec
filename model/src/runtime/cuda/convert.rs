//! From a model in the host's memory to one on a GPU.

use std::sync::Arc;

use onebit_kernels_cuda::decode::{DecodeLayer, DecodeModel, DecodeShape, FeedForwardKind, HeadSketch, Vocabulary};
use onebit_kernels_cuda::{DeviceArray, Gpu};

use super::CudaRuntimeError;
use super::parts::{gated, stacked, vocabulary};
use crate::config::{FeedForward, ModelConfig};
use crate::runtime::{Block, FloatMatrix, FloatValues, PackedModel, Values};

/// Bytes of a head of floats from which on its sketch is worth a further kernel for each token.
const SKETCHED_HEAD: usize = 64 << 20;

/// A model in the memory of a GPU. It never changes; clones share it.
#[derive(Clone, Debug)]
pub struct CudaModel {
    pub(super) gpu: Gpu,
    pub(super) config: Arc<ModelConfig>,
    pub(super) model: Arc<DecodeModel>,
}

impl CudaModel {
    /// Copies `model` to `gpu`, each matrix packed as it is.
    ///
    /// # Errors
    /// [`CudaRuntimeError::Unsupported`] for a linear of floats that is packed as embeddings are; not enough memory.
    pub fn new(gpu: &Gpu, model: &PackedModel) -> Result<Self, CudaRuntimeError> {
        let config = model.config();
        let layers = model.blocks().iter().enumerate().map(|(i, block)| layer(gpu, i, block));
        let head = match std::ptr::eq(model.head(), model.embedding()) {
            true => None,
            false => Some(vocabulary(gpu, model.head())?),
        };
        let embedding = vocabulary(gpu, model.embedding())?;
        let sketch = match head.as_ref().unwrap_or(&embedding) {
            Vocabulary::Floats(head) if sketched(model.head()) => HeadSketch::new(gpu, head)?,
            _ => None,
        };
        let decode = DecodeModel {
            shape: decode_shape(config),
            embedding,
            head,
            sketch,
            norm: gpu.upload(model.norm())?,
            layers: layers.collect::<Result<_, _>>()?,
        };
        Ok(CudaModel {
            gpu: gpu.clone(),
            config: Arc::new(config.clone()),
            model: Arc::new(decode),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of weights that one token reads of which only the largest logit is wanted: of a large head of floats a sketch.
    pub fn bytes_per_token(&self) -> usize {
        self.model.bytes_per_token()
    }

    /// Bytes of weights that a prompt reads in so many chunks: the blocks for each, and the head once.
    pub fn bytes_per_prompt(&self, chunks: usize) -> usize {
        chunks * self.model.block_bytes() + self.model.head().bytes()
    }
}

/// The sizes of `config`.
pub(super) fn decode_shape(config: &ModelConfig) -> DecodeShape {
    DecodeShape {
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        inner: config.intermediate_size,
        softcap: config.final_logit_softcapping,
        eps: config.rms_norm_eps,
        residual_scale: config.residual_scale(),
        feed_forward: match config.feed_forward {
            FeedForward::Relu2Gated => FeedForwardKind::GatedRelu2,
            FeedForward::SwiGlu => FeedForwardKind::SwiGlu,
            FeedForward::Relu2 => FeedForwardKind::Relu2,
        },
    }
}

fn layer(gpu: &Gpu, index: usize, block: &Block) -> Result<DecodeLayer, CudaRuntimeError> {
    let name = |part: &str| format!("layer {index}, {part}");
    let norm = |w: &Values<f32>| gpu.upload(&w[..]);
    let optional = |w: &Option<Values<f32>>| w.as_ref().map(norm).transpose();
    let qk_norms: Option<[DeviceArray<f32>; 2]> = match (&block.q_norm, &block.k_norm) {
        (Some(q), Some(k)) => Some([norm(q)?, norm(k)?]),
        _ => None,
    };
    let up = match &block.gate {
        Some(gate) => gated(gpu, &name("gate and up"), gate, &block.up)?,
        None => stacked(gpu, &name("up"), &[&block.up])?,
    };
    Ok(DecodeLayer {
        input_norm: norm(&block.input_norm)?,
        post_attention_norm: norm(&block.post_attention_norm)?,
        qk_norms,
        attn_sub_norm: optional(&block.attn_sub_norm)?,
        ffn_sub_norm: optional(&block.ffn_sub_norm)?,
        qkv: stacked(gpu, &name("q, k and v"), &[&block.q, &block.k, &block.v])?,
        o: stacked(gpu, &name("o"), &[&block.o])?,
        up,
        down: stacked(gpu, &name("down"), &[&block.down])?,
    })
}

/// Whether a GPU gets a sketch of `head`.
pub(super) fn sketched(head: &FloatMatrix) -> bool {
    let floats = matches!(
        head.values,
        FloatValues::F32(_) | FloatValues::F16(_) | FloatValues::Bf16(_)
    );
    floats && head.values.bytes() >= SKETCHED_HEAD
}
