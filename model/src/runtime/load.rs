//! Putting a model together from its tensors: float master weights are quantised on the way in, packed ones are taken as
//! they are.

use alloc::vec::Vec;

use onebit_kernels_cpu::Isa;

use super::RuntimeError;
use super::build::{self, LinearSite, TensorSource};
use super::floats::FloatMatrix;
use super::storage::FloatStorage;
use super::values::Values;
use super::weights::{Block, Linear, PackedModel};
use crate::config::{LinearKind, LinearMode, ModelConfig};

/// Asks for tensors by name and checks them.
struct Loader<F> {
    get: F,
    isa: Isa,
    storage: FloatStorage,
}

impl<F> Loader<F> {
    fn norm<E>(&mut self, name: &str, n: usize) -> Result<Values<f32>, E>
    where
        F: FnMut(&str) -> Result<TensorSource, E>,
        E: From<RuntimeError>,
    {
        let source = (self.get)(name)?;
        Ok(build::norm(name, n, source)?)
    }

    fn table<E>(&mut self, mode: LinearMode, name: &str, rows: usize, cols: usize) -> Result<FloatMatrix, E>
    where
        F: FnMut(&str) -> Result<TensorSource, E>,
        E: From<RuntimeError>,
    {
        let source = (self.get)(name)?;
        Ok(build::table(
            self.isa,
            (mode, self.storage),
            name,
            (rows, cols),
            source,
        )?)
    }

    fn block<E>(&mut self, config: &ModelConfig, layer: usize) -> Result<Block, E>
    where
        F: FnMut(&str) -> Result<TensorSource, E>,
        E: From<RuntimeError>,
    {
        let modes = config.layer_modes[layer];
        let linear = |this: &mut Self, kind: LinearKind| -> Result<Linear, E> {
            let name = alloc::format!("model.layers.{layer}.{}.weight", kind.module());
            let (rows, cols) = config.linear_size(kind);
            let source = (this.get)(&name)?;
            Ok(LinearSite {
                name,
                rows,
                cols,
                mode: modes.get(kind),
            }
            .build(this.isa, this.storage, source)?)
        };
        let norm = |this: &mut Self, suffix: &str, n: usize| -> Result<Values<f32>, E> {
            this.norm(&alloc::format!("model.layers.{layer}.{suffix}.weight"), n)
        };
        let optional = |this: &mut Self, wanted: bool, suffix: &str, n: usize| -> Result<Option<Values<f32>>, E> {
            if wanted {
                norm(this, suffix, n).map(Some)
            } else {
                Ok(None)
            }
        };
        Ok(Block {
            input_norm: norm(self, "input_layernorm", config.hidden_size)?,
            q: linear(self, LinearKind::Q)?,
            k: linear(self, LinearKind::K)?,
            v: linear(self, LinearKind::V)?,
            q_norm: optional(self, config.qk_norm, "self_attn.q_norm", config.head_dim)?,
            k_norm: optional(self, config.qk_norm, "self_attn.k_norm", config.head_dim)?,
            attn_sub_norm: optional(self, config.sub_norms, "self_attn.attn_sub_norm", config.query_size())?,
            o: linear(self, LinearKind::O)?,
            post_attention_norm: norm(self, "post_attention_layernorm", config.hidden_size)?,
            gate: if config.feed_forward.has_gate() {
                Some(linear(self, LinearKind::Gate)?)
            } else {
                None
            },
            up: linear(self, LinearKind::Up)?,
            ffn_sub_norm: optional(self, config.sub_norms, "mlp.ffn_sub_norm", config.intermediate_size)?,
            down: linear(self, LinearKind::Down)?,
        })
    }
}

impl PackedModel {
    /// Builds the model from the tensors that `get` gives by their Hugging Face names
    /// (`model.layers.0.self_attn.q_proj.weight`), each asked for once, in the order of the forward pass. A linear in a
    /// quantised mode that comes as float values is quantised here (ARCHITECTURE.md §2.1), so that no more than one matrix is
    /// in memory in both forms.
    ///
    /// # Errors
    /// Those of `get`; a [`RuntimeError`] if the configuration is not valid, a tensor does not fit it, or a value is NaN or infinite. Floats
    /// that lie in memory which others hold, such as a mapped file, are not read for that.
    pub fn from_parts<F, E>(config: ModelConfig, storage: FloatStorage, get: F) -> Result<Self, E>
    where
        F: FnMut(&str) -> Result<TensorSource, E>,
        E: From<RuntimeError>,
    {
        let mut model = Self::from_parts_as_they_are(config, storage, get)?;
        model.lay_out_for(Isa::best());
        Ok(model)
    }

    /// As [`from_parts`](Self::from_parts), with every ternary matrix left in the layout in which it came: nothing is copied of a model
    /// whose parts are views of a mapped file.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn from_parts_as_they_are<F, E>(config: ModelConfig, storage: FloatStorage, get: F) -> Result<Self, E>
    where
        F: FnMut(&str) -> Result<TensorSource, E>,
        E: From<RuntimeError>,
    {
        config.validate().map_err(RuntimeError::from)?;
        // Every path gives the same bits, so the fastest will do.
        let mut loader = Loader {
            get,
            isa: Isa::best(),
            storage,
        };
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let embedding = loader.table(config.embedding_mode, "model.embed_tokens.weight", vocab, hidden)?;
        let mut blocks = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            blocks.push(loader.block(&config, layer)?);
        }
        let norm = loader.norm("model.norm.weight", hidden)?;
        let head = match config.tie_word_embeddings {
            true => None,
            false => Some(loader.table(config.head_mode, "lm_head.weight", vocab, hidden)?),
        };
        Ok(Self {
            config,
            embedding,
            blocks,
            norm,
            head,
            sketch: None,
        })
    }
}
