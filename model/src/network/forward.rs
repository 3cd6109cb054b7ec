//! The forward pass of training.

use onebit_autograd::{Tape, Var, ops};
use onebit_engine::Tensor;
use onebit_engine::ops::activation::Gate;
use onebit_engine::ops::attention::AttentionShape;
use onebit_engine::ops::cross_entropy::Losses;
use onebit_engine::ops::matmul::{Arithmetic, Products};
use onebit_engine::ops::quantize::Precision;
use onebit_engine::ops::rope::RopeTable;
use onebit_engine::rng::Key;

use super::{LayerIndex, Network, NetworkError, Result};
use crate::config::{FeedForward, LinearMode};

/// RNG purpose of dropout masks; the site's index is added.
pub(super) const DROPOUT_PURPOSE: u32 = 0x6472_6f70;

/// Dropout of one forward: on the embedding and on what each block writes to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of zeroing an element.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// A number that differs for each micro-batch.
    pub step: u64,
}

/// How a forward runs.
#[derive(Clone, Copy, Debug)]
pub struct ForwardMode {
    /// Annealing value: 0 full precision, 1 hard.
    pub anneal: f32,
    /// None in evaluation.
    pub dropout: Option<Dropout>,
    /// What products in training may be rounded to; f32 in evaluation.
    pub arithmetic: Arithmetic,
}

impl ForwardMode {
    /// Evaluation at annealing value `anneal`.
    pub fn evaluation(anneal: f32) -> Self {
        ForwardMode {
            anneal,
            dropout: None,
            arithmetic: Arithmetic::F32,
        }
    }

    /// The hard phase's outputs are those of the packed runtime, so only its gradients are rounded.
    fn products(&self) -> Products {
        Products {
            forward: if self.anneal < 1.0 {
                self.arithmetic
            } else {
                Arithmetic::F32
            },
            backward: self.arithmetic,
        }
    }
}

/// What one forward carries from block to block.
struct Pass<'a> {
    leaves: &'a [Var],
    mode: ForwardMode,
    seq: usize,
    rope: RopeTable,
    dropout_site: u32,
}

impl Pass<'_> {
    fn dropout(&mut self, x: Var) -> Result<Var> {
        let Some(d) = self.mode.dropout else { return Ok(x) };
        let key = Key::new(d.seed, DROPOUT_PURPOSE.wrapping_add(self.dropout_site), d.step);
        self.dropout_site += 1;
        Ok(ops::dropout(&x, d.p, key)?)
    }

    fn leaf(&self, index: usize) -> &Var {
        &self.leaves[index]
    }

    fn bit_linear(&self, x: &Var, weights: &[(&Var, Precision)]) -> Result<Vec<Var>> {
        Ok(ops::bit_linear(x, weights, self.mode.anneal, self.mode.products())?)
    }
}

/// The engine's precision of a configured mode.
fn precision(mode: LinearMode) -> Precision {
    match mode {
        LinearMode::F16 => Precision::Full,
        LinearMode::Int8 => Precision::Int8,
        LinearMode::Int4 => Precision::Int4,
        LinearMode::Ternary => Precision::Ternary,
        LinearMode::Binary => Precision::Binary,
    }
}

impl Network {
    /// A leaf of `tape` for each parameter, in their order.
    pub fn leaves(&self, tape: &Tape) -> Vec<Var> {
        self.parameters.iter().map(|t| tape.leaf(t.clone())).collect()
    }

    /// Logits `[batch·seq, vocab]` of `ids` `[batch·seq]`, sequences of `seq` tokens.
    ///
    /// # Errors
    /// A sequence longer than the context, an id outside the vocabulary.
    pub fn forward(&self, leaves: &[Var], ids: &Tensor, seq: usize, mode: ForwardMode) -> Result<Var> {
        self.forward_observed(leaves, ids, seq, mode, &mut |_, _| ())
    }

    /// As [`Network::forward`], calling `observe` with the name and the value of the residual stream after each part: what finds
    /// the layer in which a NaN was born.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward_observed(
        &self,
        leaves: &[Var],
        ids: &Tensor,
        seq: usize,
        mode: ForwardMode,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Var> {
        let limit = self.config.max_position_embeddings;
        if seq > limit {
            return Err(NetworkError::SequenceTooLong { found: seq, limit });
        }
        let rope = RopeTable::new(self.device, self.config.rope_theta, self.config.head_dim, seq)?;
        let mut pass = Pass {
            leaves,
            mode,
            seq,
            rope,
            dropout_site: 0,
        };
        let embedded = ops::embedding(pass.leaf(self.embedding), ids)?;
        let mut x = pass.dropout(embedded)?;
        observe("model.embed_tokens", x.tensor());
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.attention(&mut pass, i, layer, &x)?;
            observe(&format!("model.layers.{i}.self_attn"), x.tensor());
            x = self.feed_forward(&mut pass, i, layer, &x)?;
            observe(&format!("model.layers.{i}.mlp"), x.tensor());
        }
        let x = ops::rms_norm(&x, pass.leaf(self.final_norm), self.config.rms_norm_eps)?;
        let logits = ops::linear(&x, pass.leaf(self.head), mode.products())?;
        observe("lm_head", logits.tensor());
        Ok(logits)
    }

    /// Mean loss of predicting `targets` from `ids`, both `[batch·seq]`, and the losses to report.
    ///
    /// # Errors
    /// As [`Network::forward`], or a target outside the vocabulary.
    pub fn loss(
        &self,
        leaves: &[Var],
        (ids, targets): (&Tensor, &Tensor),
        seq: usize,
        mode: ForwardMode,
        smoothing: f32,
    ) -> Result<(Var, Losses)> {
        let logits = self.forward(leaves, ids, seq, mode)?;
        Ok(ops::cross_entropy(&logits, targets, smoothing)?)
    }

    fn attention(&self, pass: &mut Pass, i: usize, at: &LayerIndex, x: &Var) -> Result<Var> {
        let (config, modes, eps) = (&self.config, &self.config.layer_modes[i], self.config.rms_norm_eps);
        let normed = ops::rms_norm(x, pass.leaf(at.input_norm), eps)?;
        let weights = [
            (pass.leaf(at.q), precision(modes.q)),
            (pass.leaf(at.k), precision(modes.k)),
            (pass.leaf(at.v), precision(modes.v)),
        ];
        let qkv = pass.bit_linear(&normed, &weights)?;
        let (mut q, mut k) = (qkv[0].clone(), qkv[1].clone());
        if let Some((q_norm, k_norm)) = at.qk_norms {
            q = ops::rms_norm(&q, pass.leaf(q_norm), eps)?;
            k = ops::rms_norm(&k, pass.leaf(k_norm), eps)?;
        }
        let q = ops::rope(&q, &pass.rope, pass.seq)?;
        let k = ops::rope(&k, &pass.rope, pass.seq)?;
        let shape = AttentionShape {
            seq: pass.seq,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        };
        let mut o = ops::attention(shape, &q, &k, &qkv[2])?;
        if let Some(norm) = at.attn_sub_norm {
            o = ops::rms_norm(&o, pass.leaf(norm), eps)?;
        }
        let o = self.project(pass, &o, at.o, modes.o)?;
        Ok(ops::add_scaled(x, &o, config.residual_scale())?)
    }

    fn feed_forward(&self, pass: &mut Pass, i: usize, at: &LayerIndex, x: &Var) -> Result<Var> {
        let (config, modes, eps) = (&self.config, &self.config.layer_modes[i], self.config.rms_norm_eps);
        let normed = ops::rms_norm(x, pass.leaf(at.post_attention_norm), eps)?;
        let up = (pass.leaf(at.up), precision(modes.up));
        let mut hidden = match at.gate {
            Some(gate) => {
                let gate = (pass.leaf(gate), precision(modes.gate));
                let gu = pass.bit_linear(&normed, &[gate, up])?;
                let kind = if config.feed_forward == FeedForward::SwiGlu {
                    Gate::Silu
                } else {
                    Gate::Relu2
                };
                ops::gated(kind, &gu[0], &gu[1])?
            }
            None => ops::relu2(&pass.bit_linear(&normed, &[up])?[0])?,
        };
        if let Some(norm) = at.ffn_sub_norm {
            hidden = ops::rms_norm(&hidden, pass.leaf(norm), eps)?;
        }
        let down = self.project(pass, &hidden, at.down, modes.down)?;
        Ok(ops::add_scaled(x, &down, config.residual_scale())?)
    }

    /// A projection back to the residual stream, with dropout.
    fn project(&self, pass: &mut Pass, x: &Var, weight: usize, mode: LinearMode) -> Result<Var> {
        let y = pass.bit_linear(x, &[(pass.leaf(weight), precision(mode))])?;
        pass.dropout(y[0].clone())
    }
}
