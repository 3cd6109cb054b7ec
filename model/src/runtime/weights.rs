//! The weights of a model as inference reads them.

use alloc::vec;
use alloc::vec::Vec;

use half::{bf16, f16};
use onebit_kernels_cpu::int4_gemv;
use onebit_kernels_cpu::ternary::{Layout, padded_cols};
use onebit_kernels_cpu::ternary_columns::Line;

use super::sketch::HeadSketch;
use super::values::Values;
use crate::config::ModelConfig;

/// Float values in the type in which they are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum FloatValues {
    /// IEEE single precision.
    F32(Values<f32>),
    /// IEEE half precision.
    F16(Values<f16>),
    /// The upper half of a single.
    Bf16(Values<bf16>),
    /// Bytes in ±127 times a step a row: `w[r, k] = values[r, k] · steps[r]`.
    Int8 {
        /// Row by row.
        values: Values<i8>,
        /// `[rows]`
        steps: Values<f32>,
    },
    /// Half bytes in −8..=7 times a step for each group of 32 columns, as [`int4_gemv`] has them.
    Int4 {
        /// `[rows, int4_gemv::row_bytes(cols)]`
        codes: Values<u8>,
        /// `[rows, int4_gemv::row_steps(cols)]`, finite.
        steps: Values<f16>,
        /// Values of a row, which the padded codes do not tell.
        cols: usize,
    },
    /// −1, 0 or 1 times one γ: an embedding or a head in mode `ternary` or `binary`.
    Trits {
        /// How `packed` lies.
        layout: Layout,
        /// `layout.bytes(rows, cols)` bytes.
        packed: Values<u8>,
        /// γ.
        scale: f32,
        /// Rows, which the padded groups do not tell.
        rows: usize,
        /// Values of a row.
        cols: usize,
    },
}

impl FloatValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Int8 { values, .. } => values.len(),
            Self::Int4 { steps, cols, .. } => cols * steps.len().checked_div(int4_gemv::row_steps(*cols)).unwrap_or(0),
            Self::Trits { rows, cols, .. } => rows * cols,
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the values lie in memory that others hold, such as a mapped file.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::F32(values) => values.is_shared(),
            Self::F16(values) => values.is_shared(),
            Self::Bf16(values) => values.is_shared(),
            Self::Int8 { values, .. } => values.is_shared(),
            Self::Int4 { codes: bytes, .. } | Self::Trits { packed: bytes, .. } => bytes.is_shared(),
        }
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => 4 * values.len(),
            Self::F16(values) => 2 * values.len(),
            Self::Bf16(values) => 2 * values.len(),
            Self::Int8 { values, steps } => values.len() + 4 * steps.len(),
            Self::Int4 { codes, steps, .. } => codes.len() + 2 * steps.len(),
            Self::Trits { packed, .. } => packed.len(),
        }
    }

    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F16(_) => "f16",
            Self::Bf16(_) => "bf16",
            Self::Int8 { .. } => "int8",
            Self::Int4 { .. } => "int4",
            Self::Trits { layout, .. } => trits_name(*layout),
        }
    }

    /// Whether no value is NaN or infinite; of integers their steps are asked.
    pub(crate) fn all_finite(&self) -> bool {
        // All of them, without a branch on each: an embedding has hundreds of millions.
        fn all<T>(values: &[T], is_finite: impl Fn(&T) -> bool) -> bool {
            values.iter().fold(true, |finite, value| finite & is_finite(value))
        }
        match self {
            Self::F32(values) | Self::Int8 { steps: values, .. } => all(values, |v| v.is_finite()),
            Self::F16(values) | Self::Int4 { steps: values, .. } => all(values, |v| v.is_finite()),
            Self::Bf16(values) => all(values, |v| v.is_finite()),
            Self::Trits { scale, .. } => scale.is_finite(),
        }
    }

    /// The values as f32: floats, trits and int4 exactly, int8 times their step, rounded.
    pub fn into_f32(self) -> Vec<f32> {
        let len = self.len();
        match self {
            Self::F32(values) => values.into_vec(),
            Self::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
            Self::Int8 { values, steps } => {
                let rows = values.chunks((values.len() / steps.len().max(1)).max(1)).zip(&*steps);
                rows.flat_map(|(row, step)| row.iter().map(move |v| f32::from(*v) * step))
                    .collect()
            }
            Self::Int4 { codes, steps, cols } => {
                let mut out = vec![0.0; len];
                int4_gemv::dequantize(&codes, &steps, cols, &mut out);
                out
            }
            Self::Trits {
                layout,
                packed,
                scale,
                rows,
                cols,
            } => {
                let mut trits = vec![0; len];
                layout.unpack(&packed, rows, cols, &mut trits);
                trits.into_iter().map(|trit| f32::from(trit) * scale).collect()
            }
        }
    }
}

/// The mode whose weights lie so.
fn trits_name(layout: Layout) -> &'static str {
    match layout {
        Layout::T2 | Layout::T5 => "ternary",
        Layout::B1 => "binary",
    }
}

/// A high-precision matrix `[rows, cols]`: embedding, head, or a linear in mode `f16`.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatMatrix {
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// Row by row.
    pub values: FloatValues,
}

impl FloatMatrix {
    /// Writes row `row` as f32.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        let at = row * self.cols..(row + 1) * self.cols;
        match &self.values {
            FloatValues::F32(values) => out.copy_from_slice(&values[at]),
            FloatValues::F16(values) => out.iter_mut().zip(&values[at]).for_each(|(o, v)| *o = v.to_f32()),
            FloatValues::Bf16(values) => out.iter_mut().zip(&values[at]).for_each(|(o, v)| *o = v.to_f32()),
            FloatValues::Int8 { values, steps } => {
                let step = steps[row];
                out.iter_mut()
                    .zip(&values[at])
                    .for_each(|(o, v)| *o = f32::from(*v) * step);
            }
            FloatValues::Int4 { codes, steps, cols } => {
                let (bytes, groups) = (int4_gemv::row_bytes(*cols), int4_gemv::row_steps(*cols));
                let (codes, steps) = (&codes[row * bytes..][..bytes], &steps[row * groups..][..groups]);
                int4_gemv::dequantize(codes, steps, *cols, out);
            }
            FloatValues::Trits {
                layout, packed, scale, ..
            } => layout.dequantize_row(packed, row, *scale, out),
        }
    }
}

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
    /// Mode `int4`: `y[r] = Σ_g step[r, g] · (1/s) · (Σ_{k of group g} xq·Wq)`, as [`int4_gemv`] sums.
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
