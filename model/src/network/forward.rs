//! The forward pass of training.
//!
//! Embedding and head are tables in a mode ([`ModelConfig::embedding_mode`](crate::config::ModelConfig::embedding_mode)) and go through the same phases as the
//! linears, straight through. The embedding looks up rows of the table as it is at the step's annealing value. The head multiplies by it what the runtime does:
//!
//! ```text
//! f16, int8         x
//! int4              x rounded to bytes, a step for each token and 32 columns
//! ternary, binary   x rounded to bytes, a scale for each token, as a linear's
//! ```
//! A tied table is quantised once a forward, and its gradient is the sum of both uses.

use onebit_autograd::{Tape, Var, ops};
use onebit_engine::Tensor;
use onebit_engine::ops::activation::Gate;
use onebit_engine::ops::attention::{AttentionDropout, AttentionShape};
use onebit_engine::ops::cross_entropy::{Likely, LossTerms, Losses, mean_softmax};
use onebit_engine::ops::matmul::{Arithmetic, Products};
use onebit_engine::ops::quantize::{Input, Precision};
use onebit_engine::ops::rope::RopeTable;

use super::dropout::{self, Dropout, attention_site, feed_forward_site};
use super::{LayerIndex, Network, NetworkError, Result};
use crate::config::{FeedForward, LinearMode};

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
}

impl Pass<'_> {
    /// Word and input dropout.
    fn drop_embedded(&self, x: Var, ids: &Tensor) -> Result<Var> {
        let Some(d) = self.mode.dropout else { return Ok(x) };
        let x = self.drop_rows(
            x,
            d,
            d.rates.word,
            dropout::WORDS,
            ids.u32()?.iter().map(|&id| u64::from(id)),
        )?;
        let key = d.key(dropout::ELEMENTS.wrapping_add(dropout::EMBEDDING_SITE));
        Ok(ops::dropout(&x, d.rates.input, key)?)
    }

    /// Dropout of the probabilities of the attention of `block`.
    fn attention_dropout(&self, block: usize) -> Option<AttentionDropout> {
        let d = self.mode.dropout.filter(|d| d.rates.attention > 0.0)?;
        Some(AttentionDropout {
            p: d.rates.attention,
            key: d.key(dropout::PROBABILITIES.wrapping_add(attention_site(block))),
            sequence: 0,
        })
    }

    /// Hidden dropout and stochastic depth, of the branch of `block` that ends at `site`.
    fn drop_branch(&self, x: Var, site: u32, (block, blocks): (usize, usize)) -> Result<Var> {
        let Some(d) = self.mode.dropout else { return Ok(x) };
        let (tokens, seq) = (x.shape().rows(), self.seq);
        let sequences = (0..tokens).map(|token| (token / seq) as u64);
        let x = self.drop_rows(
            x,
            d,
            d.rates.depth_of(block, blocks),
            dropout::BRANCHES.wrapping_add(site),
            sequences,
        )?;
        Ok(ops::dropout(
            &x,
            d.rates.hidden,
            d.key(dropout::ELEMENTS.wrapping_add(site)),
        )?)
    }

    /// Output dropout.
    fn drop_output(&self, x: Var) -> Result<Var> {
        let Some(d) = self.mode.dropout else { return Ok(x) };
        Ok(ops::dropout(&x, d.rates.output, d.key(dropout::OUTPUT))?)
    }

    fn drop_rows(&self, x: Var, d: Dropout, p: f32, purpose: u32, numbers: impl Iterator<Item = u64>) -> Result<Var> {
        if p <= 0.0 {
            return Ok(x);
        }
        Ok(ops::scale_rows(&x, d.factors(p, purpose, numbers))?)
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

/// What a head in this mode reads of its input.
fn head_input(mode: LinearMode) -> Input {
    match mode {
        LinearMode::F16 | LinearMode::Int8 => Input::Float,
        LinearMode::Int4 => Input::Groups,
        LinearMode::Ternary | LinearMode::Binary => Input::Tokens,
    }
}

impl Network {
    /// A leaf of `tape` for each parameter, in their order.
    pub fn leaves(&self, tape: &Tape) -> Vec<Var> {
        self.parameters.iter().map(|t| tape.leaf(t.clone())).collect()
    }

    /// Logits `[batch·seq, vocab]` of `ids` `[batch·seq]`, sequences of `seq` tokens; capped where the model caps them.
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
        let pass = Pass {
            leaves,
            mode,
            seq,
            rope,
        };
        let (config, anneal) = (&self.config, mode.anneal);
        let table = ops::table(pass.leaf(self.embedding), precision(config.embedding_mode), anneal)?;
        let embedded = ops::embedding(&table.values, ids)?;
        let mut x = pass.drop_embedded(embedded, ids)?;
        observe("model.embed_tokens", x.tensor());
        for (i, layer) in self.layers.iter().enumerate() {
            x = self.attention(&pass, i, layer, &x)?;
            observe(&format!("model.layers.{i}.self_attn"), x.tensor());
            x = self.feed_forward(&pass, i, layer, &x)?;
            observe(&format!("model.layers.{i}.mlp"), x.tensor());
        }
        let x = ops::rms_norm(&x, pass.leaf(self.final_norm), self.config.rms_norm_eps)?;
        let x = pass.drop_output(x)?;
        let table = match self.head == self.embedding {
            true => table,
            false => ops::table(pass.leaf(self.head), precision(config.head_mode), anneal)?,
        };
        let logits = ops::head(&x, &table, head_input(config.head_mode), anneal, mode.products())?;
        // As the head gives them: a cap would hide what is infinite.
        observe("lm_head", logits.tensor());
        match self.config.final_logit_softcapping {
            Some(cap) => Ok(ops::softcap(&logits, cap)?),
            None => Ok(logits),
        }
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
        (terms, likely): (LossTerms, Option<Likely>),
    ) -> Result<(Var, Losses)> {
        let logits = self.forward(leaves, ids, seq, mode)?;
        Ok(ops::cross_entropy(&logits, targets, terms, likely)?)
    }

    /// What `teachers` think comes after each of `ids`, `[batch·seq]`: the mean of their probabilities `[batch·seq, vocab]`, as they are when they are used.
    ///
    /// # Errors
    /// As [`Network::forward`], or vocabularies that differ.
    pub fn likely(teachers: &[Network], ids: &Tensor, seq: usize) -> Result<Tensor> {
        let logits = teachers.iter().map(|teacher| {
            let tape = Tape::new();
            let logits = tape.no_grad(|| {
                let leaves = teacher.leaves(&tape);
                teacher.forward(&leaves, ids, seq, ForwardMode::evaluation(1.0))
            })?;
            Ok(logits.tensor().clone())
        });
        Ok(mean_softmax(&logits.collect::<Result<Vec<_>>>()?)?)
    }

    fn attention(&self, pass: &Pass<'_>, i: usize, at: &LayerIndex, x: &Var) -> Result<Var> {
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
        let mut o = ops::attention(shape, pass.attention_dropout(i), &q, &k, &qkv[2])?;
        if let Some(norm) = at.attn_sub_norm {
            o = ops::rms_norm(&o, pass.leaf(norm), eps)?;
        }
        let o = self.project(pass, &o, (at.o, modes.o), (i, attention_site(i)))?;
        Ok(ops::add_scaled(x, &o, config.residual_scale())?)
    }

    fn feed_forward(&self, pass: &Pass<'_>, i: usize, at: &LayerIndex, x: &Var) -> Result<Var> {
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
        let down = self.project(pass, &hidden, (at.down, modes.down), (i, feed_forward_site(i)))?;
        Ok(ops::add_scaled(x, &down, config.residual_scale())?)
    }

    /// A projection back to the residual stream, with the dropout of its place.
    fn project(
        &self,
        pass: &Pass<'_>,
        x: &Var,
        (weight, mode): (usize, LinearMode),
        (block, site): (usize, u32),
    ) -> Result<Var> {
        let y = pass.bit_linear(x, &[(pass.leaf(weight), precision(mode))])?;
        pass.drop_branch(y[0].clone(), site, (block, self.layers.len()))
    }
}
