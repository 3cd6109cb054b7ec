//! What a step keeps on the GPU beside parameters: planned first, then cut out of one allocation by the same code.

use half::bf16;
use onebit_kernels_cuda::{Arena, DeviceArray};

use super::layout::{Group, GroupLayout, Layout};
use crate::config::ModelConfig;

/// Elements of the scratch for partial sums of weight gradients. On 132 multiprocessors no product of the presets up to 125M asks for more, and of those above it what
/// more would buy is at most 5 % of a product.
const WORKSPACE: usize = 16 << 20;
/// Bytes of the logits that exist at one time, about.
const LOGITS: usize = 512 << 20;

/// The shape of a micro-batch, and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub seq: usize,
    /// Keep only the input of each block, and compute a block again for its gradient.
    pub recompute: bool,
    /// Whether there are steps before the hard phase, whose inputs are kept in bf16 instead of int8.
    pub soft_phases: bool,
    /// Round the gradients of the blocks' matrices to bf16, half the memory. Those of several micro-batches then cannot be added up.
    pub bf16_gradients: bool,
}

impl BatchShape {
    /// Tokens of a micro-batch.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }
}

/// The micro-batches of a step, whose mean is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroBatches {
    /// Of this process.
    pub own: usize,
    /// Of all that take part in the step.
    pub all: usize,
}

impl MicroBatches {
    /// Whether others take part.
    pub fn has_others(&self) -> bool {
        self.all > self.own
    }
}

impl From<usize> for MicroBatches {
    /// So many, all of this process.
    fn from(own: usize) -> Self {
        MicroBatches { own, all: own }
    }
}

/// The input of a group of linears, as their products read it.
#[derive(Clone, Debug)]
pub(super) struct GroupInput {
    /// Of quantised linears: int8 in the hard phase, bf16 before it.
    pub quantized: Option<DeviceArray<u8>>,
    /// A token's step, in the hard phase.
    pub steps: DeviceArray<f32>,
    /// Of linears that stay in full precision: bf16.
    pub full: Option<DeviceArray<bf16>>,
}

impl GroupInput {
    fn take(arena: &mut Arena, shape: &BatchShape, group: &GroupLayout) -> Self {
        let tokens = shape.tokens();
        let bytes = if shape.soft_phases { 2 } else { 1 };
        GroupInput {
            quantized: group.quantizes().then(|| arena.take(tokens * group.cols * bytes)),
            steps: arena.take(tokens),
            full: group.has_full().then(|| arena.take(tokens * group.cols)),
        }
    }

    /// The quantised linears' input of `cols` values as int8, in the hard phase. There may be room for two bytes a value.
    pub fn int8(&self, cols: usize) -> Option<DeviceArray<i8>> {
        let bytes = self.quantized.as_ref()?;
        Some(bytes.slice(..self.steps.len() * cols).cast())
    }

    /// The quantised linears' input as bf16, before the hard phase.
    pub fn soft(&self) -> Option<DeviceArray<bf16>> {
        self.quantized.as_ref().map(DeviceArray::cast)
    }
}

/// What a block keeps for its backward.
#[derive(Clone, Debug)]
pub(super) struct BlockBuffers {
    /// Residual stream at its beginning `[T, d]`; kept for each block even where all else is computed again.
    pub x_in: DeviceArray<f32>,
    pub rstd_in: DeviceArray<f32>,
    pub attn_in: GroupInput,
    /// q, k, v `[T, q + 2 kv]`, as they came out of their product.
    pub qkv: DeviceArray<bf16>,
    /// The same after QK-norm and rotation; without QK-norm the rotation is in place and this is `qkv`.
    pub rotated: DeviceArray<bf16>,
    pub attn_out: DeviceArray<bf16>,
    /// Log-sum-exp of the scores `[batch, heads, seq]`.
    pub lse: DeviceArray<f32>,
    pub rstd_attn: DeviceArray<f32>,
    pub o_in: GroupInput,
    /// Residual stream between attention and feed-forward.
    pub x_mid: DeviceArray<f32>,
    pub rstd_mid: DeviceArray<f32>,
    pub ffn_in: GroupInput,
    /// gate and up `[T, 2f]`, or up alone `[T, f]`.
    pub gate_up: DeviceArray<bf16>,
    pub rstd_ffn: DeviceArray<f32>,
    pub down_in: GroupInput,
}

impl BlockBuffers {
    fn take(
        arena: &mut Arena,
        config: &ModelConfig,
        layout: &Layout,
        shape: &BatchShape,
        block: usize,
        x_in: DeviceArray<f32>,
    ) -> Self {
        let tokens = shape.tokens();
        let block = &layout.blocks[block];
        let input = |arena: &mut Arena, group| GroupInput::take(arena, shape, block.group(group));
        let qkv = arena.take(tokens * block.group(Group::Qkv).rows);
        BlockBuffers {
            x_in,
            rstd_in: arena.take(tokens),
            attn_in: input(arena, Group::Qkv),
            rotated: if config.qk_norm {
                arena.take(qkv.len())
            } else {
                qkv.clone()
            },
            qkv,
            attn_out: arena.take(tokens * config.query_size()),
            lse: arena.take(tokens * config.num_attention_heads),
            rstd_attn: arena.take(tokens),
            o_in: input(arena, Group::O),
            x_mid: arena.take(tokens * config.hidden_size),
            rstd_mid: arena.take(tokens),
            ffn_in: input(arena, Group::GateUp),
            gate_up: arena.take(tokens * block.group(Group::GateUp).rows),
            rstd_ffn: arena.take(tokens),
            down_in: input(arena, Group::Down),
        }
    }

    pub fn input(&self, group: Group) -> &GroupInput {
        match group {
            Group::Qkv => &self.attn_in,
            Group::O => &self.o_in,
            Group::GateUp => &self.ffn_in,
            Group::Down => &self.down_in,
        }
    }
}

/// Elements from one row of logits to the next.
pub(super) fn vocab_stride(config: &ModelConfig) -> usize {
    config.vocab_size.next_multiple_of(8)
}

/// Tokens of `tokens` whose logits exist at one time.
pub(super) fn head_rows(vocab_stride: usize, tokens: usize) -> usize {
    (LOGITS / 2 / vocab_stride).max(256).next_multiple_of(128).min(tokens)
}

/// Everything of a micro-batch.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    pub blocks: Vec<BlockBuffers>,
    /// Residual stream behind the last block.
    pub x_last: DeviceArray<f32>,
    pub rstd_last: DeviceArray<f32>,
    /// What the head reads `[T, d]`, and later its gradient's product.
    pub head_in: DeviceArray<bf16>,
    pub d_head_in: DeviceArray<bf16>,
    /// Logits of `head_rows` tokens, then their gradient; rows are `vocab_stride` apart.
    pub logits: DeviceArray<bf16>,
    pub head_rows: usize,
    pub vocab_stride: usize,
    /// Per token: log-sum-exp of the logits, loss, smoothed loss.
    pub lse: DeviceArray<f32>,
    pub nll: DeviceArray<f32>,
    pub smoothed: DeviceArray<f32>,
    /// What a branch adds to the stream `[T, d]`.
    pub branch: DeviceArray<bf16>,
    /// Gradient of the stream.
    pub d_stream: DeviceArray<f32>,
    /// Gradient of a branch.
    pub d_branch: DeviceArray<bf16>,
    /// Gradients of a group's outputs and of its inputs, and a second of the inputs where a group has segments.
    pub d_out: DeviceArray<bf16>,
    pub d_in: DeviceArray<bf16>,
    pub d_in_more: DeviceArray<bf16>,
    /// A group's input in bf16.
    pub dequantized: DeviceArray<bf16>,
    /// `rowsum(do · o)` of the attention.
    pub delta: DeviceArray<f32>,
    pub workspace: DeviceArray<f32>,
}

impl Buffers {
    pub fn take(arena: &mut Arena, config: &ModelConfig, layout: &Layout, shape: &BatchShape) -> Self {
        let tokens = shape.tokens();
        let hidden = config.hidden_size;
        let stream = tokens * hidden;
        let mut blocks: Vec<BlockBuffers> = Vec::with_capacity(layout.blocks.len());
        for block in 0..layout.blocks.len() {
            let x_in = arena.take(stream);
            // Blocks differ in nothing but what is quantised: the first that has the same inputs lends its buffers.
            let lender = blocks.iter().enumerate().find(|(i, _)| {
                shape.recompute
                    && Group::ALL.iter().all(|&g| {
                        let (a, b) = (layout.blocks[*i].group(g), layout.blocks[block].group(g));
                        (a.quantizes(), a.has_full()) == (b.quantizes(), b.has_full())
                    })
            });
            blocks.push(match lender {
                Some((_, lender)) => BlockBuffers { x_in, ..lender.clone() },
                None => BlockBuffers::take(arena, config, layout, shape, block, x_in),
            });
        }
        let widest = |of: &dyn Fn(&GroupLayout) -> usize| {
            let groups = layout.blocks.iter().flat_map(|b| Group::ALL.map(|g| of(b.group(g))));
            groups.max().unwrap_or(0)
        };
        let (inputs, outputs) = (widest(&|g| g.cols), widest(&|g| g.rows));
        let segments = widest(&|g| g.segments.len());
        let vocab_stride = vocab_stride(config);
        let head_rows = head_rows(vocab_stride, tokens);
        Buffers {
            blocks,
            x_last: arena.take(stream),
            rstd_last: arena.take(tokens),
            head_in: arena.take(stream),
            d_head_in: arena.take(stream),
            logits: arena.take(head_rows * vocab_stride),
            head_rows,
            vocab_stride,
            lse: arena.take(tokens),
            nll: arena.take(tokens),
            smoothed: arena.take(tokens),
            branch: arena.take(stream),
            d_stream: arena.take(stream),
            d_branch: arena.take(stream),
            d_out: arena.take(tokens * outputs),
            d_in: arena.take(tokens * inputs),
            d_in_more: arena.take(if segments > 1 { tokens * inputs } else { 0 }),
            dequantized: arena.take(tokens * inputs),
            delta: arena.take(tokens * config.num_attention_heads),
            workspace: arena.take(WORKSPACE.min(64 * layout.dense)),
        }
    }
}
