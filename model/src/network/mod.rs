//! The trainable network: f32 master weights, and a forward on the autograd tape.
//!
//! The block is the one that [`config`](crate::config) draws. Each linear goes through the bit-linear operation at the annealing value of the
//! step (0 full precision, 1 hard), so the same code is the warm-up, the anneal and the hard phase. q, k and v share one
//! quantised input, and so do gate and up.

pub mod cuda;
mod dropout;
mod error;
mod forward;
mod init;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use onebit_engine::{Device, Tensor};

use crate::config::{ModelConfig, TensorSpec};
use crate::files::NamedTensor;
use crate::runtime::{FloatStorage, FloatValues, PackedModel, RuntimeError, TensorSource};
pub use dropout::{Dropout, DropoutRates};
pub use error::NetworkError;
pub use forward::ForwardMode;
pub use init::Initialization;
pub use start::check_source;

/// Result of a network operation.
pub type Result<T> = std::result::Result<T, NetworkError>;

/// Where a block's parameters stand in [`Network::parameters`].
#[derive(Clone, Debug)]
struct LayerIndex {
    input_norm: usize,
    q: usize,
    k: usize,
    v: usize,
    qk_norms: Option<(usize, usize)>,
    attn_sub_norm: Option<usize>,
    o: usize,
    post_attention_norm: usize,
    gate: Option<usize>,
    up: usize,
    ffn_sub_norm: Option<usize>,
    down: usize,
}

/// A model in training.
#[derive(Clone, Debug)]
pub struct Network {
    config: ModelConfig,
    device: Device,
    specs: Vec<TensorSpec>,
    parameters: Vec<Tensor>,
    layers: Vec<LayerIndex>,
    embedding: usize,
    final_norm: usize,
    head: usize,
}

impl Network {
    /// A freshly initialised model; the same `seed` gives the same bytes.
    ///
    /// # Errors
    /// A configuration that does not validate.
    pub fn new(config: ModelConfig, device: Device, seed: u64) -> Result<Self> {
        Self::initialized(config, device, seed, Initialization::Normal)
    }

    /// [`Network::new`] with a choice of where it begins.
    ///
    /// # Errors
    /// A configuration that does not validate.
    pub fn initialized(config: ModelConfig, device: Device, seed: u64, initialization: Initialization) -> Result<Self> {
        config.validate()?;
        let specs = config.tensors();
        let parameters = init::parameters(&config, &specs, device, seed, initialization)?;
        Self::assemble(config, device, specs, parameters)
    }

    /// A model of given master weights, f32 values by tensor name.
    ///
    /// # Errors
    /// A configuration that does not validate, a tensor missing or of the wrong length.
    pub fn from_master(config: ModelConfig, device: Device, mut tensors: BTreeMap<String, Vec<f32>>) -> Result<Self> {
        config.validate()?;
        let specs = config.tensors();
        let mut parameters = Vec::with_capacity(specs.len());
        for spec in &specs {
            let data = tensors.remove(&spec.name).ok_or_else(|| NetworkError::MissingTensor {
                name: spec.name.clone(),
            })?;
            parameters.push(Tensor::from_f32(device, spec.shape.as_slice(), data)?);
        }
        if let Some(name) = tensors.into_keys().next() {
            return Err(NetworkError::UnknownTensor { name });
        }
        Self::assemble(config, device, specs, parameters)
    }

    fn assemble(config: ModelConfig, device: Device, specs: Vec<TensorSpec>, parameters: Vec<Tensor>) -> Result<Self> {
        let find = |name: &str| specs.iter().position(|s| s.name == name);
        let need = |name: &str| find(name).ok_or_else(|| NetworkError::MissingTensor { name: name.into() });
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let full = |suffix: &str| format!("model.layers.{layer}.{suffix}.weight");
            let one = |suffix: &str| need(&full(suffix));
            layers.push(LayerIndex {
                input_norm: one("input_layernorm")?,
                q: one("self_attn.q_proj")?,
                k: one("self_attn.k_proj")?,
                v: one("self_attn.v_proj")?,
                qk_norms: find(&full("self_attn.q_norm")).zip(find(&full("self_attn.k_norm"))),
                attn_sub_norm: find(&full("self_attn.attn_sub_norm")),
                o: one("self_attn.o_proj")?,
                post_attention_norm: one("post_attention_layernorm")?,
                gate: find(&full("mlp.gate_proj")),
                up: one("mlp.up_proj")?,
                ffn_sub_norm: find(&full("mlp.ffn_sub_norm")),
                down: one("mlp.down_proj")?,
            });
        }
        let embedding = need("model.embed_tokens.weight")?;
        let final_norm = need("model.norm.weight")?;
        let head = if config.tie_word_embeddings {
            embedding
        } else {
            need("lm_head.weight")?
        };
        Ok(Network {
            config,
            device,
            specs,
            parameters,
            layers,
            embedding,
            final_norm,
            head,
        })
    }

    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Name, shape and use of each parameter, in the order of [`Network::parameters`].
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The master weights.
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// The master weights, for an optimiser to change in place.
    pub fn parameters_mut(&mut self) -> &mut [Tensor] {
        &mut self.parameters
    }

    /// The master weights with their names, for a writer.
    ///
    /// # Errors
    /// None in practice: parameters are f32.
    pub fn named_tensors(&self) -> Result<Vec<NamedTensor<'_>>> {
        self.specs
            .iter()
            .zip(&self.parameters)
            .map(|(spec, t)| {
                Ok(NamedTensor {
                    name: &spec.name,
                    shape: &spec.shape,
                    data: t.f32()?,
                })
            })
            .collect()
    }

    /// The packed form that inference runs: quantised linears in kernel layout, embedding and head in f32.
    ///
    /// # Errors
    /// [`RuntimeError`] for a configuration that the runtime refuses.
    pub fn pack(&self) -> std::result::Result<PackedModel, RuntimeError> {
        let source = |name: &str| {
            let at = self.specs.iter().position(|s| s.name == name);
            let values = at.and_then(|i| self.parameters[i].f32().ok()).unwrap_or_default();
            Ok::<_, RuntimeError>(TensorSource::Float(FloatValues::F32(values.to_vec().into())))
        };
        PackedModel::from_parts(self.config.clone(), FloatStorage::Stored, source)
    }
}
