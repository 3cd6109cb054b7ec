//! The matrices of a model that have a mode: what a `layer_bit_map` says, one by one.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::shapes::{EMBEDDING, HEAD};
use super::{LinearKind, LinearMode, ModelConfig};

/// A matrix that has a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatrixSite {
    /// The embedding; the head too, if it is tied.
    Embedding,
    /// A linear of a block.
    Linear {
        /// The block.
        layer: usize,
        /// Which of its linears.
        kind: LinearKind,
    },
    /// A head of its own.
    Head,
}

impl ModelConfig {
    /// The matrices that have a mode, in the order of the forward pass. A tied head is the embedding's.
    pub fn sites(&self) -> Vec<MatrixSite> {
        let mut all = Vec::with_capacity(2 + 7 * self.num_hidden_layers);
        all.push(MatrixSite::Embedding);
        for layer in 0..self.num_hidden_layers {
            let kinds = LinearKind::ALL.into_iter().filter(|&kind| self.has_linear(kind));
            all.extend(kinds.map(|kind| MatrixSite::Linear { layer, kind }));
        }
        if !self.tie_word_embeddings {
            all.push(MatrixSite::Head);
        }
        all
    }

    /// The mode of one.
    ///
    /// # Panics
    /// As [`linears`](Self::linears), for a layer that is not there.
    pub fn mode_at(&self, site: MatrixSite) -> LinearMode {
        match site {
            MatrixSite::Embedding => self.embedding_mode,
            MatrixSite::Linear { layer, kind } => self.layer_modes[layer].get(kind),
            MatrixSite::Head => self.head_mode,
        }
    }

    /// Gives one a mode; with the embedding a head that is tied to it.
    ///
    /// # Panics
    /// As [`mode_at`](Self::mode_at).
    pub fn set_mode_at(&mut self, site: MatrixSite, mode: LinearMode) {
        match site {
            MatrixSite::Embedding => {
                self.embedding_mode = mode;
                if self.tie_word_embeddings {
                    self.head_mode = mode;
                }
            }
            MatrixSite::Linear { layer, kind } => self.layer_modes[layer].set(kind, mode),
            MatrixSite::Head => self.head_mode = mode,
        }
    }

    /// The Hugging Face name of its weight, and its rows and columns.
    pub fn matrix_at(&self, site: MatrixSite) -> (String, usize, usize) {
        match site {
            MatrixSite::Embedding => (EMBEDDING.to_string(), self.vocab_size, self.hidden_size),
            MatrixSite::Linear { layer, kind } => {
                let (rows, cols) = self.linear_size(kind);
                let name = alloc::format!("model.layers.{layer}.{}.weight", kind.module());
                (name, rows, cols)
            }
            MatrixSite::Head => (HEAD.to_string(), self.vocab_size, self.hidden_size),
        }
    }
}
