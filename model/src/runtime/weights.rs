//! The weights of a model as inference reads them.

use alloc::vec::Vec;

use half::f16;
use onebit_kernels_cpu::ternary::{Layout, padded_cols};
use onebit_kernels_cpu::ternary_columns::Line;

use super::floats::FloatMatrix;
use super::sketch::HeadSketch;
use super::values::Values;
use crate::config::ModelConfig;

/// The weights of one linear.
#[derive(Clone, Debug, PartialEq)]
pub enum Linear {
    /// Modes `ternary` and `binary`: `y = (Σ xq·Wq) · γ / s`.
    Ternary {
        /// Output values.
        rows: usize,
        /// Input values.
        cols: usize,
        /// How `packed` lies.
        layout: Layout,
        /// `layout.bytes(rows, cols)` bytes.
        packed: Values<u8>,
        /// γ.
        scale: f32,
        /// The same weights by columns, `[cols, lines of a column]`, where [`PackedModel::with_columns`] put them or a file holds them.
        columns: Option<Values<Line>>,
    },
    /// Mode `int8`: `y[r] = (Σ xq·Wq) · step[r] / s`.
    Int8 {
        /// Output values.
        rows: usize,
        /// Input values.
        cols: usize,
        /// `[rows, cols]`.
        values: Values<i8>,
        /// A step for each output row.
        steps: Values<f32>,
    },
    /// Mode `int4`: `y[r] = Σ_g step[r, g] · (1/s) · (Σ_{k of group g} xq·Wq)`, as [`int4_gemv`](onebit_kernels_cpu::int4_gemv) sums.
    Int4 {
        /// Output values.
        rows: usize,
        /// Input values.
        cols: usize,
        /// `[rows, int4_gemv::row_bytes(cols)]`
        codes: Values<u8>,
        /// `[rows, int4_gemv::row_steps(cols)]`, finite.
        steps: Values<f16>,
    },
    /// Mode `f16`: `y = W·x`, activations not quantised.
    Float(FloatMatrix),
}

impl Linear {
    /// Output values.
    pub fn rows(&self) -> usize {
        match self {
            Self::Ternary { rows, .. } | Self::Int8 { rows, .. } | Self::Int4 { rows, .. } => *rows,
            Self::Float(matrix) => matrix.rows,
        }
    }

    /// Input values.
    pub fn cols(&self) -> usize {
        match self {
            Self::Ternary { cols, .. } | Self::Int8 { cols, .. } | Self::Int4 { cols, .. } => *cols,
            Self::Float(matrix) => matrix.cols,
        }
    }

    /// Bytes that one product with a vector reads; with columns it may read fewer.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ternary { packed, .. } => packed.len(),
            Self::Int8 { values, steps, .. } => values.len() + 4 * steps.len(),
            Self::Int4 { codes, steps, .. } => codes.len() + 2 * steps.len(),
            Self::Float(matrix) => matrix.values.bytes(),
        }
    }

    /// Bytes of the copy by columns.
    fn column_bytes(&self) -> usize {
        match self {
            Self::Ternary {
                columns: Some(columns), ..
            } => size_of_val(&columns[..]),
            _ => 0,
        }
    }

    /// Whether the input is quantised to int8.
    pub fn is_quantized(&self) -> bool {
        !matches!(self, Self::Float(_))
    }
}

/// The weights of one block; `None` where the configuration has no such part.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// `[hidden_size]`
    pub input_norm: Values<f32>,
    /// `[hidden_size]`
    pub post_attention_norm: Values<f32>,
    /// `[head_dim]`
    pub q_norm: Option<Values<f32>>,
    /// `[head_dim]`
    pub k_norm: Option<Values<f32>>,
    /// `[heads · head_dim]`, before `o`.
    pub attn_sub_norm: Option<Values<f32>>,
    /// `[intermediate_size]`, before `down`.
    pub ffn_sub_norm: Option<Values<f32>>,
    /// `self_attn.q_proj`
    pub q: Linear,
    /// `self_attn.k_proj`
    pub k: Linear,
    /// `self_attn.v_proj`
    pub v: Linear,
    /// `self_attn.o_proj`
    pub o: Linear,
    /// `mlp.gate_proj`; absent under plain ReLU².
    pub gate: Option<Linear>,
    /// `mlp.up_proj`
    pub up: Linear,
    /// `mlp.down_proj`
    pub down: Linear,
}

impl Block {
    /// The linears in the order in which the block uses them.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.q, &self.k, &self.v, &self.o]
            .into_iter()
            .chain(self.gate.as_ref())
            .chain([&self.up, &self.down])
    }

    /// The same, to be changed.
    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.o]
            .into_iter()
            .chain(self.gate.as_mut())
            .chain([&mut self.up, &mut self.down])
    }

    /// The norms that the block has.
    pub fn norms(&self) -> impl Iterator<Item = &Values<f32>> {
        let optional = [&self.q_norm, &self.k_norm, &self.attn_sub_norm, &self.ffn_sub_norm];
        [&self.input_norm, &self.post_attention_norm]
            .into_iter()
            .chain(optional.into_iter().flatten())
    }

    fn norm_values(&self) -> usize {
        self.norms().map(|w| w.len()).sum()
    }
}

/// A model ready to run: configuration and packed weights. It never changes, so any number of sessions may share it.
#[derive(Clone, Debug)]
pub struct PackedModel {
    pub(super) config: ModelConfig,
    pub(super) embedding: FloatMatrix,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Values<f32>,
    pub(super) head: Option<FloatMatrix>,
    pub(super) sketch: Option<HeadSketch>,
}

/// Bytes of a model's weights by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightBytes {
    /// Linears in modes `ternary` and `binary`, with padding.
    pub ternary: usize,
    /// Linears in mode `int8`.
    pub int8: usize,
    /// Linears in mode `int4`.
    pub int4: usize,
    /// Linears in mode `f16`.
    pub float: usize,
    /// All norms.
    pub norms: usize,
    /// The embedding, which a tied head shares.
    pub embedding: usize,
    /// The head, if it is not tied.
    pub head: usize,
    /// The head's sketch.
    pub sketch: usize,
    /// The second copy, by columns, of linears that have one.
    pub columns: usize,
}

impl WeightBytes {
    /// All of them.
    pub fn total(&self) -> usize {
        self.ternary
            + self.int8
            + self.int4
            + self.float
            + self.norms
            + self.embedding
            + self.head
            + self.sketch
            + self.columns
    }
}

impl PackedModel {
    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The embedding `[vocab_size, hidden_size]`.
    pub fn embedding(&self) -> &FloatMatrix {
        &self.embedding
    }

    /// The blocks in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The final norm `[hidden_size]`.
    pub fn norm(&self) -> &[f32] {
        &self.norm
    }

    /// The head `[vocab_size, hidden_size]`: a matrix of its own, or the embedding when tied.
    pub fn head(&self) -> &FloatMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of the weights by kind.
    pub fn bytes(&self) -> WeightBytes {
        let mut bytes = WeightBytes {
            embedding: self.embedding.values.bytes(),
            head: self.head.as_ref().map_or(0, |head| head.values.bytes()),
            sketch: self.sketch.as_ref().map_or(0, HeadSketch::bytes),
            norms: 4 * self.norm.len(),
            ..WeightBytes::default()
        };
        for block in &self.blocks {
            bytes.norms += 4 * block.norm_values();
            for linear in block.linears() {
                bytes.columns += linear.column_bytes();
                *match linear {
                    Linear::Ternary { .. } => &mut bytes.ternary,
                    Linear::Int8 { .. } => &mut bytes.int8,
                    Linear::Int4 { .. } => &mut bytes.int4,
                    Linear::Float(_) => &mut bytes.float,
                } += linear.bytes();
            }
        }
        bytes
    }

    /// Bytes of weights that one decode step with all logits reads: every block, the head, and one row of the embedding. Divided by the
    /// speed of memory it is the least time of a token (the key-value cache comes on top).
    pub fn bytes_per_token(&self) -> usize {
        let bytes = self.bytes();
        let row = self.embedding.values.bytes() / self.embedding.rows.max(1);
        bytes.ternary + bytes.int8 + bytes.int4 + bytes.float + bytes.norms + self.head().values.bytes() + row
    }

    /// Most values in a row that a linear may read, a multiple of the packed block.
    pub(super) fn widest_input(config: &ModelConfig) -> usize {
        let widest = config
            .hidden_size
            .max(config.query_size())
            .max(config.intermediate_size);
        padded_cols(widest)
    }
}
