//! The tensors that a configuration implies: names as Hugging Face writes them, shapes, and how many parameters.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{LinearMode, ModelConfig};

/// One of the linears of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearKind {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl LinearKind {
    /// In the order in which a block uses them.
    pub const ALL: [LinearKind; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The module's name inside its block, such as `self_attn.q_proj`.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The key used in `layer_bit_map` objects, such as `q`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One linear of a block: `y[rows] = W[rows, cols] · x[cols]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Which one it is.
    pub kind: LinearKind,
    /// The weight's full name, such as `model.layers.3.self_attn.q_proj.weight`.
    pub name: String,
    /// Output values.
    pub rows: usize,
    /// Input values.
    pub cols: usize,
    /// How it is stored.
    pub mode: LinearMode,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorKind {
    /// `model.embed_tokens.weight`, `[vocab_size, hidden_size]`.
    Embedding,
    /// The weight of an RMSNorm, one value per channel.
    Norm,
    /// The weight of a block's linear.
    Linear(LinearMode),
    /// `lm_head.weight`, `[vocab_size, hidden_size]`, when the head is not tied to the embedding.
    Head,
}

/// Name, shape and use of one float tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name in `model.safetensors`.
    pub name: String,
    /// `[rows, cols]` of a matrix, `[n]` of a norm.
    pub shape: Vec<usize>,
    /// What it is for.
    pub kind: TensorKind,
}

impl TensorSpec {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its mode; norms are always `f16`, high precision.
    pub fn mode(&self, config: &ModelConfig) -> LinearMode {
        match self.kind {
            TensorKind::Embedding => config.embedding_mode,
            TensorKind::Head => config.head_mode,
            TensorKind::Linear(mode) => mode,
            TensorKind::Norm => LinearMode::F16,
        }
    }

    /// Whether the tensor holds nothing, which no valid configuration allows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The name of the embedding.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The name of a head that is not tied.
pub(crate) const HEAD: &str = "lm_head.weight";

/// `model.layers.{layer}.{suffix}`.
fn in_layer(layer: usize, suffix: &str) -> String {
    alloc::format!("model.layers.{layer}.{suffix}")
}

impl ModelConfig {
    /// `(rows, cols)` of a linear.
    pub const fn linear_size(&self, kind: LinearKind) -> (usize, usize) {
        match kind {
            LinearKind::Q => (self.query_size(), self.hidden_size),
            LinearKind::K | LinearKind::V => (self.key_value_size(), self.hidden_size),
            LinearKind::O => (self.hidden_size, self.query_size()),
            LinearKind::Gate | LinearKind::Up => (self.intermediate_size, self.hidden_size),
            LinearKind::Down => (self.hidden_size, self.intermediate_size),
        }
    }

    /// Whether blocks hold this linear: `gate_proj` is absent under plain ReLU².
    pub const fn has_linear(&self, kind: LinearKind) -> bool {
        !matches!(kind, LinearKind::Gate) || self.feed_forward.has_gate()
    }

    /// The linears of block `layer`, in the order in which it uses them.
    ///
    /// # Panics
    /// If `layer_modes` holds no entry for `layer`; [`validate`](Self::validate) rules that out for
    /// `layer < num_hidden_layers`.
    pub fn linears(&self, layer: usize) -> impl Iterator<Item = LinearShape> + '_ {
        let modes = self.layer_modes[layer];
        LinearKind::ALL
            .into_iter()
            .filter(|&kind| self.has_linear(kind))
            .map(move |kind| {
                let (rows, cols) = self.linear_size(kind);
                let name = alloc::format!("model.layers.{layer}.{}.weight", kind.module());
                LinearShape {
                    kind,
                    name,
                    rows,
                    cols,
                    mode: modes.get(kind),
                }
            })
    }

    /// The tensors that have a γ ([`LinearMode::is_ternary`]): linears in the order of the forward pass, then embedding and head. The head is its own tensor
    /// only where it is not tied.
    ///
    /// # Panics
    /// As [`linears`](Self::linears).
    pub fn scaled(&self) -> Vec<String> {
        let linears = (0..self.num_hidden_layers).flat_map(|layer| self.linears(layer));
        let mut all: Vec<String> = linears
            .filter(|linear| linear.mode.is_ternary())
            .map(|linear| linear.name)
            .collect();
        if self.embedding_mode.is_ternary() {
            all.push(EMBEDDING.to_string());
        }
        if self.head_mode.is_ternary() && !self.tie_word_embeddings {
            all.push(HEAD.to_string());
        }
        all
    }

    /// Every tensor of the model, in the order of the forward pass.
    ///
    /// # Panics
    /// As [`linears`](Self::linears).
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let norm = |name: String, n: usize| TensorSpec {
            name,
            shape: vec![n],
            kind: TensorKind::Norm,
        };
        let table = |name: &str, kind| TensorSpec {
            name: name.to_string(),
            shape: vec![self.vocab_size, self.hidden_size],
            kind,
        };
        let mut all = vec![table(EMBEDDING, TensorKind::Embedding)];
        for layer in 0..self.num_hidden_layers {
            all.push(norm(in_layer(layer, "input_layernorm.weight"), self.hidden_size));
            for linear in self.linears(layer) {
                match linear.kind {
                    LinearKind::O => {
                        if self.qk_norm {
                            all.push(norm(in_layer(layer, "self_attn.q_norm.weight"), self.head_dim));
                            all.push(norm(in_layer(layer, "self_attn.k_norm.weight"), self.head_dim));
                        }
                        if self.sub_norms {
                            all.push(norm(
                                in_layer(layer, "self_attn.attn_sub_norm.weight"),
                                self.query_size(),
                            ));
                        }
                    }
                    LinearKind::Down if self.sub_norms => {
                        all.push(norm(in_layer(layer, "mlp.ffn_sub_norm.weight"), self.intermediate_size));
                    }
                    _ => {}
                }
                let after_attention = linear.kind == LinearKind::O;
                all.push(TensorSpec {
                    name: linear.name,
                    shape: vec![linear.rows, linear.cols],
                    kind: TensorKind::Linear(linear.mode),
                });
                if after_attention {
                    all.push(norm(
                        in_layer(layer, "post_attention_layernorm.weight"),
                        self.hidden_size,
                    ));
                }
            }
        }
        all.push(norm("model.norm.weight".to_string(), self.hidden_size));
        if !self.tie_word_embeddings {
            all.push(table(HEAD, TensorKind::Head));
        }
        all
    }

    /// Parameters of the model; a tied head is counted once. `None` when the number does not fit in 64 bits.
    pub fn checked_parameter_count(&self) -> Option<u64> {
        let mul = |a: usize, b: usize| (a as u64).checked_mul(b as u64);
        let (h, f) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads.checked_mul(self.head_dim)?;
        let kv = self.num_key_value_heads.checked_mul(self.head_dim)?;
        let mut block = mul(h, q)?.checked_mul(2)?.checked_add(mul(h, kv)?.checked_mul(2)?)?;
        block = block.checked_add(mul(h, f)?.checked_mul(if self.feed_forward.has_gate() { 3 } else { 2 })?)?;
        block = block.checked_add(mul(h, 2)?)?;
        if self.sub_norms {
            block = block.checked_add(q as u64)?.checked_add(f as u64)?;
        }
        if self.qk_norm {
            block = block.checked_add(mul(self.head_dim, 2)?)?;
        }
        let table = mul(self.vocab_size, h)?;
        let tables = if self.tie_word_embeddings {
            table
        } else {
            table.checked_mul(2)?
        };
        block
            .checked_mul(self.num_hidden_layers as u64)?
            .checked_add(tables)?
            .checked_add(h as u64)
    }

    /// Parameters of the model; a tied head is counted once. Saturates at `u64::MAX`, which no valid configuration
    /// reaches.
    pub fn parameter_count(&self) -> u64 {
        self.checked_parameter_count().unwrap_or(u64::MAX)
    }
}
