//! Initial weights: `N(0, σ²)` with σ = `initializer_range`, norms 1.
//!
//! The two projections that write to the residual stream, `o_proj` and `down_proj`, are divided by `sqrt(2·layers)` (Radford et al. 2019), so
//! that the stream's variance does not grow with depth.

use onebit_engine::rng::Key;
use onebit_engine::{Device, Tensor};

use super::Result;
use crate::config::{ModelConfig, TensorKind, TensorSpec};

/// RNG purpose of initial weights; the tensor's index is the step.
const PURPOSE: u32 = 0x696e_6974;

pub(super) fn parameters(config: &ModelConfig, specs: &[TensorSpec], device: Device, seed: u64) -> Result<Vec<Tensor>> {
    let sigma = config.initializer_range;
    let residual = sigma / (2.0 * config.num_hidden_layers as f32).sqrt();
    specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let key = Key::new(seed, PURPOSE, i as u64);
            let writes_residual = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let sigma = if writes_residual { residual } else { sigma };
            let data = match spec.kind {
                TensorKind::Norm => vec![1.0; spec.len()],
                _ => (0..spec.len() as u64).map(|j| sigma * key.normal(j)).collect(),
            };
            Ok(Tensor::from_f32(device, spec.shape.as_slice(), data)?)
        })
        .collect()
}
