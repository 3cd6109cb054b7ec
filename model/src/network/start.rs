//! Training that begins from a model in a file, whatever holds it and whatever is packed in it.
//!
//! The configuration that is given says what becomes of each tensor (its *map*); of the source only the numbers count:
//!
//! ```text
//! f32, f16, bf16           as they are
//! integers with steps      q · step
//! trits with γ             t · γ; where the map has the tensor ternary too, t · γ / (share of t ≠ 0), whose mean magnitude is γ
//! ```
//! So a ternary tensor that stays ternary has the trits and (to f32's rounding) the γ of its source: the mean of `|t · γ|` alone would be less than γ.
//! A source must be the same model in all but its map: sizes, options of the block, tied or not.

use std::collections::BTreeMap;

use onebit_engine::Device;

use super::{Network, NetworkError, Result};
use crate::config::{LinearMode, ModelConfig, TensorSpec, WeightStorage};
use crate::files::ModelSource;
use crate::runtime::TensorSource;

impl Network {
    /// A model of `config` with the weights of `source`.
    ///
    /// # Errors
    /// [`NetworkError::OtherModel`] if the source is another model than `config` but for the modes of its tensors, the source's error for a tensor that stands for
    /// nothing, a configuration that does not validate.
    pub fn from_source(mut config: ModelConfig, device: Device, source: &dyn ModelSource) -> Result<Self> {
        // What is trained are floats, in whatever form they were read.
        config.storage = WeightStorage::Master;
        config.validate()?;
        check_source(&config, source.config())?;
        let mut tensors = BTreeMap::new();
        for spec in config.tensors() {
            let values = master(&spec, spec.mode(&config), source.tensor(&spec.name)?)?;
            tensors.insert(spec.name, values);
        }
        Self::from_master(config, device, tensors)
    }

    /// The same weights under another map.
    ///
    /// # Errors
    /// [`NetworkError::OtherModel`] if `config` is another model in more than the modes of its tensors, or does not validate.
    pub fn with_map(&self, mut config: ModelConfig) -> Result<Self> {
        config.storage = WeightStorage::Master;
        config.validate()?;
        check_source(&config, &self.config)?;
        let specs = config.tensors();
        Self::assemble(config, self.device, specs, self.parameters.clone())
    }
}

/// Refuses a source that is another model than `config` in more than its map.
///
/// # Errors
/// [`NetworkError::OtherModel`], with the first field that differs.
pub fn check_source(config: &ModelConfig, source: &ModelConfig) -> Result<()> {
    macro_rules! same {
        ($($field:ident),*) => {$(
            if config.$field != source.$field {
                return Err(NetworkError::OtherModel {
                    field: stringify!($field),
                    expected: format!("{:?}", config.$field),
                    found: format!("{:?}", source.$field),
                });
            }
        )*};
    }
    same!(
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        rms_norm_eps,
        rope_theta,
        feed_forward,
        tie_word_embeddings,
        sub_norms,
        qk_norm,
        residual_scaling,
        final_logit_softcapping
    );
    Ok(())
}

/// The f32 values of a tensor that training in `mode` begins with.
fn master(spec: &TensorSpec, mode: LinearMode, tensor: TensorSource) -> Result<Vec<f32>> {
    let tensor = match (tensor, spec.shape.as_slice()) {
        (packed @ (TensorSource::Trits { .. } | TensorSource::Packed { .. }), &[rows, cols]) => {
            // Those of a binary tensor are trits too, without zeros.
            let (trits, scale) = packed.into_trits(&spec.name, rows, cols, LinearMode::Ternary)?;
            let set = trits.iter().filter(|&&t| t != 0).count();
            let scale = match mode {
                LinearMode::Ternary if set > 0 => (f64::from(scale) * trits.len() as f64 / set as f64) as f32,
                _ => scale,
            };
            return Ok(trits.into_iter().map(|t| f32::from(t) * scale).collect());
        }
        (other, _) => other,
    };
    let floats = tensor.into_floats().map_err(|other| NetworkError::Form {
        name: spec.name.clone(),
        found: other.form(),
    })?;
    Ok(floats.into_f32())
}
