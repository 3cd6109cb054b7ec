//! From a model in the host's memory to one on a GPU.

use std::sync::Arc;

use onebit_kernels_cpu::t2;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cuda::decode::{
    DecodeLayer, DecodeModel, DecodeShape, FeedForwardKind, FloatKind, HeadSketch, VocabularyMatrix,
};
use onebit_kernels_cuda::ternary_gemv::{TernaryCode, TernaryMatrix, TernaryPart};
use onebit_kernels_cuda::{DeviceArray, Gpu};

use super::CudaRuntimeError;
use crate::config::{FeedForward, ModelConfig};
use crate::runtime::{Block, FloatMatrix, FloatValues, Linear, PackedModel, Values};

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
    /// Copies `model` to `gpu`, packed as it is.
    ///
    /// # Errors
    /// [`CudaRuntimeError::Unsupported`] for a linear that is not ternary or binary, or an int4 embedding or head; not enough memory.
    pub fn new(gpu: &Gpu, model: &PackedModel) -> Result<Self, CudaRuntimeError> {
        let config = model.config();
        let layers = model.blocks().iter().enumerate().map(|(i, block)| layer(gpu, i, block));
        let head = match std::ptr::eq(model.head(), model.embedding()) {
            true => None,
            false => Some(matrix(gpu, "the head", model.head())?),
        };
        let embedding = matrix(gpu, "the embedding", model.embedding())?;
        let sketch = match sketched(model.head()) {
            true => HeadSketch::new(gpu, head.as_ref().unwrap_or(&embedding))?,
            false => None,
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
        Some(gate) => paired(gpu, &name("gate and up"), gate, &block.up)?,
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

fn stacked(gpu: &Gpu, name: &str, linears: &[&Linear]) -> Result<TernaryMatrix, CudaRuntimeError> {
    let packed = linears
        .iter()
        .map(|linear| Packed::new(name, linear))
        .collect::<Result<Vec<_>, _>>()?;
    let packed = in_one_code(packed);
    let parts: Vec<_> = packed.iter().map(Packed::part).collect();
    Ok(TernaryMatrix::stacked(gpu, &parts)?)
}

fn paired(gpu: &Gpu, name: &str, gate: &Linear, up: &Linear) -> Result<TernaryMatrix, CudaRuntimeError> {
    let packed = in_one_code(vec![Packed::new(name, gate)?, Packed::new(name, up)?]);
    Ok(TernaryMatrix::paired(gpu, packed[0].part(), packed[1].part())?)
}

/// A ternary linear, or a copy of it in the other code.
struct Packed<'a> {
    layout: Layout,
    rows: usize,
    cols: usize,
    bytes: std::borrow::Cow<'a, [u8]>,
    gamma: f32,
}

impl<'a> Packed<'a> {
    fn new(name: &str, linear: &'a Linear) -> Result<Self, CudaRuntimeError> {
        let found = match linear {
            Linear::Ternary {
                rows,
                cols,
                layout,
                packed,
                scale,
                ..
            } => {
                return Ok(Packed {
                    layout: *layout,
                    rows: *rows,
                    cols: *cols,
                    bytes: packed[..].into(),
                    gamma: *scale,
                });
            }
            Linear::Int8 { .. } => "int8",
            Linear::Int4 { .. } => "int4",
            Linear::Float(matrix) => matrix.values.type_name(),
        };
        Err(CudaRuntimeError::Unsupported {
            what: name.into(),
            found: found.into(),
        })
    }

    fn part(&self) -> TernaryPart<'_> {
        TernaryPart {
            code: match self.layout {
                // `in_one_code` leaves no other.
                Layout::T2 | Layout::B1 => TernaryCode::T2,
                Layout::T5 => TernaryCode::T5,
            },
            rows: self.rows,
            cols: self.cols,
            packed: &self.bytes,
            gamma: self.gamma,
        }
    }
}

/// Matrices that become one need one code: where they differ, or where a GPU has none for them, all become `t2`.
fn in_one_code(mut packed: Vec<Packed<'_>>) -> Vec<Packed<'_>> {
    let kept = |part: &Packed<'_>| part.layout.has_zero() && part.layout == packed[0].layout;
    if !packed.iter().all(kept) {
        for part in packed.iter_mut().filter(|part| part.layout != Layout::T2) {
            let bytes = as_t2(part.layout, &part.bytes, part.rows, part.cols);
            (part.layout, part.bytes) = (Layout::T2, bytes.into());
        }
    }
    packed
}

/// A matrix in `layout`, `[rows, cols]`, as `t2`, whose rows past the end are 0.
fn as_t2(layout: Layout, packed: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let (mut out, mut four) = (vec![0; t2::bytes(rows, cols)], vec![0; t2::GROUP_ROWS * cols]);
    let groups = packed
        .chunks_exact(layout.group_bytes(cols).max(1))
        .zip(out.chunks_exact_mut(t2::group_bytes(cols).max(1)));
    for (g, (source, out)) in groups.enumerate() {
        layout.unpack(source, t2::GROUP_ROWS, cols, &mut four);
        let there = (rows - g * t2::GROUP_ROWS).min(t2::GROUP_ROWS);
        four[there * cols..].fill(0);
        t2::pack(&four, t2::GROUP_ROWS, cols, out);
    }
    out
}

/// Whether a GPU gets a sketch of `head`.
pub(super) fn sketched(head: &FloatMatrix) -> bool {
    let floats = matches!(
        head.values,
        FloatValues::F32(_) | FloatValues::F16(_) | FloatValues::Bf16(_)
    );
    floats && head.values.bytes() >= SKETCHED_HEAD
}

/// The kind of an embedding or a head that has a kernel.
pub(super) fn float_kind(name: &str, matrix: &FloatMatrix) -> Result<FloatKind, CudaRuntimeError> {
    match &matrix.values {
        FloatValues::F32(_) => Ok(FloatKind::F32),
        FloatValues::F16(_) => Ok(FloatKind::F16),
        FloatValues::Bf16(_) => Ok(FloatKind::Bf16),
        FloatValues::Int8 { .. } => Ok(FloatKind::Int8),
        FloatValues::Int4 { .. } | FloatValues::Trits { .. } => Err(CudaRuntimeError::Unsupported {
            what: name.into(),
            found: matrix.values.type_name().into(),
        }),
    }
}

fn matrix(gpu: &Gpu, name: &str, matrix: &FloatMatrix) -> Result<VocabularyMatrix, CudaRuntimeError> {
    let kind = float_kind(name, matrix)?;
    let (bytes, steps): (&[u8], Option<&[f32]>) = match &matrix.values {
        FloatValues::F32(values) => (bytemuck::cast_slice(&values[..]), None),
        FloatValues::F16(values) => (bytemuck::cast_slice(&values[..]), None),
        FloatValues::Bf16(values) => (bytemuck::cast_slice(&values[..]), None),
        FloatValues::Int8 { values, steps } => (bytemuck::cast_slice(&values[..]), Some(&steps[..])),
        FloatValues::Int4 { codes: bytes, .. } | FloatValues::Trits { packed: bytes, .. } => (&bytes[..], None),
    };
    let size = [matrix.rows, matrix.cols];
    Ok(VocabularyMatrix::upload(gpu, kind, size, bytes, steps)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_becomes_t2() {
        for (rows, cols) in [(1, 1), (5, 600), (8, 512)] {
            let signs: Vec<i8> = (0..rows * cols).map(|i| 1 - 2 * (i * 7 % 5 % 2) as i8).collect();
            let packed = |layout: Layout| {
                let mut packed = vec![0; layout.bytes(rows, cols)];
                layout.pack(&signs, rows, cols, &mut packed);
                packed
            };
            for layout in Layout::ALL {
                assert_eq!(
                    as_t2(layout, &packed(layout), rows, cols),
                    packed(Layout::T2),
                    "{layout:?}"
                );
            }
        }
    }
}
