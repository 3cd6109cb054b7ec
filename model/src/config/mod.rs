//! What a model is: sizes, block options and the storage mode of every linear layer.
//!
//! [`ModelConfig`] describes a decoder-only transformer built of BitNet b1.58 blocks ("The Era of 1-bit LLMs", Ma et al.
//! 2024; "BitNet b1.58 2B4T Technical Report", 2025). One block, for a token vector `x` of `hidden_size` values:
//!
//! ```text
//! a = rms_norm(x)                     input_layernorm
//! q, k, v = a·Wqᵀ, a·Wkᵀ, a·Wvᵀ       q: heads·head_dim values, k and v: kv_heads·head_dim
//! q, k = rms_norm(q), rms_norm(k)     per head, with `qk_norm`
//! o = attention(rope(q), rope(k), v)  causal, grouped-query, half-split rotation
//! o = rms_norm(o)                     with `sub_norms`
//! x = x + c·(o·Woᵀ)                   c = 1/√2 with `residual_scaling`, otherwise 1
//! m = rms_norm(x)                     post_attention_layernorm
//! f = feed_forward(m)                 see [`FeedForward`]
//! f = rms_norm(f)                     with `sub_norms`
//! x = x + c·(f·Wdownᵀ)
//! ```
//!
//! Behind the last block the logits are `rms_norm(x)·Wheadᵀ`, with `final_logit_softcapping` = C `C·tanh(logits / C)`.
//!
//! Norms are always high precision; each linear has a [`LinearMode`], and so have embedding and head, which are high precision unless somebody asks for less.
//! This module is `no_std`, reading and writing `config.json` in [`json`] too; the shapes shipped by name in [`presets`].

mod error;
mod shapes;
mod sites;
mod validate;

pub mod json;
#[cfg(feature = "std")]
pub mod presets;
#[cfg(all(test, feature = "std"))]
mod tests;

use alloc::vec::Vec;

pub use error::ConfigError;
pub use shapes::{LinearKind, LinearShape, TensorKind, TensorSpec};
pub use sites::MatrixSite;
pub use validate::limits;

/// How the weights of one linear, or of embedding or head, are stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LinearMode {
    /// High precision: f32 master weights, f16, bf16 or f32 when packed. Embedding and head may then also be packed as integers, which is no matter of
    /// the network but of its file.
    F16,
    /// Eight-bit integers, one step per output row.
    Int8,
    /// Four-bit integers in −8..=7, one f16 step for 32 columns (`onebit_kernels_cpu::int4_gemv`).
    Int4,
    /// {−1, 0, +1} with one scale for the matrix (ARCHITECTURE.md §2.1).
    #[default]
    Ternary,
    /// {−1, +1} with one scale for the matrix.
    Binary,
}

impl LinearMode {
    /// Every mode, in the order of the `layer_bit_map` documentation.
    pub const ALL: [LinearMode; 5] = [Self::F16, Self::Int8, Self::Int4, Self::Ternary, Self::Binary];

    /// The word used in `layer_bit_map`: `f16`, `int8`, `int4`, `ternary`, `binary`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Ternary => "ternary",
            Self::Binary => "binary",
        }
    }

    /// Whether weights are −1, 0 or 1 times one γ: ternary or binary.
    pub const fn is_ternary(self) -> bool {
        matches!(self, Self::Ternary | Self::Binary)
    }

    /// The mode of a `layer_bit_map` word. `eightbit` and `fourbit`, the replaced system's words, are read as well.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "eightbit" => Some(Self::Int8),
            "fourbit" => Some(Self::Int4),
            _ => Self::ALL.into_iter().find(|mode| mode.name() == name),
        }
    }
}

/// The feed-forward part of a block; `g`, `u` are the outputs of `gate_proj` and `up_proj`, both of `intermediate_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FeedForward {
    /// `relu(g)² · u`: BitNet b1.58 2B4T.
    #[default]
    Relu2Gated,
    /// `silu(g) · u`: Llama.
    SwiGlu,
    /// `relu(u)²`, no gate: "Primer", So et al. 2021.
    Relu2,
}

impl FeedForward {
    /// The word used in `"onebit".feed_forward`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu2Gated => "relu2_gated",
            Self::SwiGlu => "swiglu",
            Self::Relu2 => "relu2",
        }
    }

    /// The feed-forward of an `"onebit".feed_forward` word.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Relu2Gated, Self::SwiGlu, Self::Relu2]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Whether a block holds a `gate_proj`.
    pub const fn has_gate(self) -> bool {
        !matches!(self, Self::Relu2)
    }
}

/// The mode of each linear of one block. `gate` has no meaning under [`FeedForward::Relu2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LayerModes {
    /// `self_attn.q_proj`
    pub q: LinearMode,
    /// `self_attn.k_proj`
    pub k: LinearMode,
    /// `self_attn.v_proj`
    pub v: LinearMode,
    /// `self_attn.o_proj`
    pub o: LinearMode,
    /// `mlp.gate_proj`
    pub gate: LinearMode,
    /// `mlp.up_proj`
    pub up: LinearMode,
    /// `mlp.down_proj`
    pub down: LinearMode,
}

impl LayerModes {
    /// The same mode for all seven linears.
    pub const fn uniform(mode: LinearMode) -> Self {
        Self {
            q: mode,
            k: mode,
            v: mode,
            o: mode,
            gate: mode,
            up: mode,
            down: mode,
        }
    }

    /// The mode of one linear.
    pub const fn get(&self, kind: LinearKind) -> LinearMode {
        match kind {
            LinearKind::Q => self.q,
            LinearKind::K => self.k,
            LinearKind::V => self.v,
            LinearKind::O => self.o,
            LinearKind::Gate => self.gate,
            LinearKind::Up => self.up,
            LinearKind::Down => self.down,
        }
    }

    /// Sets the mode of one linear.
    pub fn set(&mut self, kind: LinearKind, mode: LinearMode) {
        *match kind {
            LinearKind::Q => &mut self.q,
            LinearKind::K => &mut self.k,
            LinearKind::V => &mut self.v,
            LinearKind::O => &mut self.o,
            LinearKind::Gate => &mut self.gate,
            LinearKind::Up => &mut self.up,
            LinearKind::Down => &mut self.down,
        } = mode;
    }
}

/// What `model.safetensors` holds for the ternary linears.
///
/// Both packed layouts of Hugging Face call their scale `weight_scale` and give it the shape `[1]`, and mean opposite
/// things by it; only `quantization_config.linear_class` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WeightStorage {
    /// Float master weights, quantised when the model is loaded or trained.
    #[default]
    Master,
    /// Packed trits; `weight_scale` is mean|W| and multiplies (`autobitlinear`, BitNet b1.58 2B4T).
    PackedMultiply,
    /// Packed trits; `weight_scale` is 1/mean|W| and divides (`bitlinear`, Falcon3-1.58bit, Falcon-E).
    PackedDivide,
}

/// Sizes and options of a model. Build it from a preset or a `config.json`, or fill it and call
/// [`validate`](Self::validate); every reader and writer validates.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Number of token ids; rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads of a block.
    pub num_attention_heads: usize,
    /// Key and value heads of a block; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Values per head, even; usually `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Longest context in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Kind of feed-forward.
    pub feed_forward: FeedForward,
    /// Whether the head is the transposed embedding; otherwise `lm_head.weight` is its own tensor.
    pub tie_word_embeddings: bool,
    /// RMSNorm before `o_proj` and before `down_proj`, as in BitNet b1.58 2B4T.
    pub sub_norms: bool,
    /// RMSNorm over each query and key head, with one learned weight of `head_dim` values for each of the two.
    pub qk_norm: bool,
    /// Each branch is multiplied by 1/√2 before it is added to the residual stream.
    pub residual_scaling: bool,
    /// The soft-cap of the logits (Gemma 2, 2024): with C they are `C·tanh(logits / C)`, for whoever reads them. None: as the head gives them.
    pub final_logit_softcapping: Option<f32>,
    /// The modes of each block's linears, `num_hidden_layers` of them.
    pub layer_modes: Vec<LayerModes>,
    /// The mode of the embedding.
    pub embedding_mode: LinearMode,
    /// The mode of the head; that of the embedding where the head is tied to it.
    pub head_mode: LinearMode,
    /// Token put before a sequence, when there is one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// Standard deviation of the initial weights.
    pub initializer_range: f32,
    /// How the ternary linears are stored.
    pub storage: WeightStorage,
}

/// The factor on each residual branch under `residual_scaling`.
pub const RESIDUAL_SCALE: f32 = core::f32::consts::FRAC_1_SQRT_2;

impl ModelConfig {
    /// The factor on each residual branch: 1/√2 with `residual_scaling`, otherwise 1.
    pub const fn residual_scale(&self) -> f32 {
        if self.residual_scaling { RESIDUAL_SCALE } else { 1.0 }
    }

    /// Values of all query heads: `num_attention_heads · head_dim`.
    pub const fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Values of all key (or value) heads: `num_key_value_heads · head_dim`.
    pub const fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Gives every linear of every block the same mode.
    pub fn set_all_modes(&mut self, mode: LinearMode) {
        self.layer_modes.clear();
        self.layer_modes
            .resize(self.num_hidden_layers, LayerModes::uniform(mode));
    }

    /// Whether any linear has this mode.
    pub fn uses_mode(&self, mode: LinearMode) -> bool {
        let of = |modes: &LayerModes| LinearKind::ALL.map(|kind| self.has_linear(kind) && modes.get(kind) == mode);
        let layers = self.layer_modes.iter().take(self.num_hidden_layers);
        layers.flat_map(of).any(|uses| uses)
    }
}
