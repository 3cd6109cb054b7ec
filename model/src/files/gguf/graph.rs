//! The networks that ggml's programs run for an architecture's name, and which of our models each of them is.
//!
//! What a file's `general.architecture` means is fixed in the program that runs it, activation and all; a model written under another name
//! would load and talk nonsense. So each graph says here what it computes, and a model that it does not compute is refused.
//!
//! | graph | run by | feed-forward | sub-norms | head | rotary pairs |
//! |---|---|---|---|---|---|
//! | `bitnet` | llama.cpp, bitnet.cpp, ik_llama.cpp | SwiGLU | yes | tied | half-split |
//! | `bitnet-b1.58`, `bitnet-25` | bitnet.cpp, ik_llama.cpp | `relu(g)²·u` | yes | tied | half-split |
//! | `llama` | all | SwiGLU | no | either | adjacent: rows of q and k are reordered |

use super::error::GgufError;
use crate::config::{FeedForward, ModelConfig};

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// `bitnet`: SwiGLU and sub-norms.
    Bitnet,
    /// `bitnet-b1.58`: gated ReLU² and sub-norms, BitNet b1.58 2B4T.
    BitnetB158,
    /// `bitnet-25`: an older name of the same.
    Bitnet25,
    /// `llama`: SwiGLU, no sub-norms; Llama3-8B-1.58, Falcon3-1.58bit.
    Llama,
}

impl Graph {
    /// Every graph.
    pub const ALL: [Self; 4] = [Self::Bitnet, Self::BitnetB158, Self::Bitnet25, Self::Llama];

    /// The value of `general.architecture`, and the prefix of its keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitnet => "bitnet",
            Self::BitnetB158 => "bitnet-b1.58",
            Self::Bitnet25 => "bitnet-25",
            Self::Llama => "llama",
        }
    }

    /// The graph of this name.
    ///
    /// # Errors
    /// [`GgufError::Architecture`], with the known ones.
    pub fn by_name(name: &str) -> Result<Self, GgufError> {
        Self::ALL
            .into_iter()
            .find(|graph| graph.name() == name)
            .ok_or_else(|| GgufError::Architecture {
                found: name.to_string(),
                supported: Self::ALL.map(Self::name).join(", "),
            })
    }

    /// The feed-forward that the graph computes.
    pub const fn feed_forward(self) -> FeedForward {
        match self {
            Self::Bitnet | Self::Llama => FeedForward::SwiGlu,
            Self::BitnetB158 | Self::Bitnet25 => FeedForward::Relu2Gated,
        }
    }

    /// Whether it has norms before `o_proj` and `down_proj`.
    pub const fn sub_norms(self) -> bool {
        !matches!(self, Self::Llama)
    }

    /// Whether its rotary embedding turns adjacent values, so that the rows of q and k lie in another order than ours.
    pub const fn interleaves(self) -> bool {
        matches!(self, Self::Llama)
    }

    /// Whether the product of a linear is multiplied by an f32 tensor `….scale`, if there is one.
    pub const fn has_scale_tensors(self) -> bool {
        matches!(self, Self::Bitnet)
    }

    /// Whether the head may have a tensor of its own.
    pub const fn allows_head(self) -> bool {
        matches!(self, Self::Llama)
    }

    /// Whether `num_attention_heads · head_dim` may differ from `hidden_size`.
    pub const fn allows_head_dim(self) -> bool {
        matches!(self, Self::Llama)
    }

    /// The graph that computes this model.
    ///
    /// # Errors
    /// [`GgufError::Inexpressible`] with the reason if there is none.
    pub fn of(config: &ModelConfig) -> Result<Self, GgufError> {
        let graph = match (config.sub_norms, config.feed_forward) {
            (true, FeedForward::Relu2Gated) => Self::BitnetB158,
            (true, _) => Self::Bitnet,
            (false, _) => Self::Llama,
        };
        graph.check(config)?;
        Ok(graph)
    }

    /// Checks that the graph computes this model.
    ///
    /// # Errors
    /// [`GgufError::Inexpressible`] with the reason.
    pub fn check(self, config: &ModelConfig) -> Result<(), GgufError> {
        let refuse = |reason: String| {
            Err(GgufError::Inexpressible {
                graph: self.name().to_string(),
                reason,
            })
        };
        if config.feed_forward != self.feed_forward() {
            let other = match (config.feed_forward, config.sub_norms) {
                (FeedForward::Relu2Gated, true) => {
                    "; bitnet-b1.58 computes this model, which bitnet.cpp and ik_llama.cpp run"
                }
                (FeedForward::SwiGlu, true) => "; bitnet computes this model",
                (FeedForward::SwiGlu, false) => "; llama computes this model",
                _ => "; no graph of llama.cpp or bitnet.cpp computes this model",
            };
            return refuse(format!(
                "its feed-forward is {}, and the model was trained with {}, so it would talk plausible nonsense{other}",
                self.feed_forward().name(),
                config.feed_forward.name()
            ));
        }
        if config.sub_norms != self.sub_norms() {
            return refuse(match config.sub_norms {
                true => "it has no sub-norms and the model has; bitnet or bitnet-b1.58 has".to_string(),
                false => "it has sub-norms and the model has none; llama has none".to_string(),
            });
        }
        if config.qk_norm {
            return refuse("it has no norms of queries and keys, and the model has (qk_norm)".to_string());
        }
        if config.residual_scaling {
            return refuse("it adds branches as they are, and the model scales them (residual_scaling)".to_string());
        }
        // llama.cpp has a key for it, which its graphs of Gemma read and none of these.
        if config.final_logit_softcapping.is_some() {
            return refuse(
                "it leaves logits as they are, and the model caps them (final_logit_softcapping)".to_string(),
            );
        }
        if !config.tie_word_embeddings && !self.allows_head() {
            return refuse(
                "its head is the embedding, and the model's head is a tensor of its own; train it with tie_word_embeddings".to_string(),
            );
        }
        if config.query_size() != config.hidden_size && !self.allows_head_dim() {
            return refuse(format!(
                "its heads together are as wide as the model, and {} heads of {} are not {}",
                config.num_attention_heads, config.head_dim, config.hidden_size
            ));
        }
        Ok(())
    }
}
