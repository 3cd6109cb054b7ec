//! Initial weights.
//!
//! [`Initialization::Normal`]: `N(0, σ²)` with σ = `initializer_range`, norms 1. The two projections that write to the residual stream,
//! `o_proj` and `down_proj`, are divided by `sqrt(2·layers)` (Radford et al. 2019), so that the stream's variance does not grow with depth.
//!
//! [`Initialization::Mimetic`]: the same, save in attention, where `W_q = W_k` and `W_o = W_vᵀ`, drawn from `N(0, 1/hidden_size)`. The
//! products `W_qᵀ·W_k` and `W_o·W_v` are then close to the identity: each head begins by looking for what resembles its own position and by
//! copying it. After Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers", without their interpolation with noise.

use onebit_engine::rng::Key;
use onebit_engine::{Device, Tensor};
use rayon::prelude::*;

use super::Result;
use crate::config::{ModelConfig, TensorKind, TensorSpec};

/// RNG purpose of initial weights; the tensor's index is the step.
const PURPOSE: u32 = 0x696e_6974;

/// Where training begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initialization {
    /// Independent normal weights.
    #[default]
    Normal,
    /// Attention that begins as matching and copying, which small models otherwise find late: for text in which names and things
    /// must be said again as they were.
    Mimetic,
}

impl std::str::FromStr for Initialization {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "normal" => Ok(Self::Normal),
            "mimetic" => Ok(Self::Mimetic),
            other => Err(format!("expected normal or mimetic, found {other:?}")),
        }
    }
}

pub(super) fn parameters(
    config: &ModelConfig,
    specs: &[TensorSpec],
    device: Device,
    seed: u64,
    initialization: Initialization,
) -> Result<Vec<Tensor>> {
    let sigma = config.initializer_range;
    let residual = sigma / (2.0 * config.num_hidden_layers as f32).sqrt();
    specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let normal = |tensor: usize, sigma: f32| {
                let key = Key::new(seed, PURPOSE, tensor as u64);
                (0..specs[tensor].len() as u64).map(move |j| sigma * key.normal(j))
            };
            let writes_residual = spec.name.ends_with("o_proj.weight") || spec.name.ends_with("down_proj.weight");
            let data = if spec.kind == TensorKind::Norm {
                vec![1.0; spec.len()]
            } else if let Some(data) = (initialization == Initialization::Mimetic)
                .then(|| mimetic(config, specs, i, normal))
                .flatten()
            {
                data
            } else {
                // Each number is a function of its index, so threads share the work.
                let (key, sigma) = (
                    Key::new(seed, PURPOSE, i as u64),
                    if writes_residual { residual } else { sigma },
                );
                (0..spec.len() as u64)
                    .into_par_iter()
                    .map(|j| sigma * key.normal(j))
                    .collect()
            };
            Ok(Tensor::from_f32(device, spec.shape.as_slice(), data)?)
        })
        .collect()
}

/// The weights of tensor `i` if it belongs to attention. `normal(tensor, σ)` draws those of any tensor; heads that share a key and value
/// head copy the same one.
fn mimetic<I: Iterator<Item = f32>>(
    config: &ModelConfig,
    specs: &[TensorSpec],
    i: usize,
    normal: impl Fn(usize, f32) -> I,
) -> Option<Vec<f32>> {
    let name = &specs[i].name;
    let hidden = config.hidden_size;
    let sigma = 1.0 / (hidden as f32).sqrt();
    let sibling = |role: &str| {
        let (block, _) = name.rsplit_once("self_attn.")?;
        let wanted = format!("{block}self_attn.{role}.weight");
        Some(normal(specs.iter().position(|s| s.name == wanted)?, sigma).collect::<Vec<f32>>())
    };
    let queries = config.num_attention_heads * config.head_dim;
    let group = config.num_attention_heads / config.num_key_value_heads;
    // The row of W_k and W_v that row `r` of W_q, or column `r` of W_o, goes with.
    let shared = |r: usize| r / config.head_dim / group * config.head_dim + r % config.head_dim;
    if name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight") {
        Some(normal(i, sigma).collect())
    } else if name.ends_with("q_proj.weight") {
        let k = sibling("k_proj")?;
        let row = |r: usize| &k[shared(r) * hidden..][..hidden];
        Some((0..queries).flat_map(|r| row(r).iter().copied()).collect())
    } else if name.ends_with("o_proj.weight") {
        let v = sibling("v_proj")?;
        let at = |row: usize, column: usize| v[shared(column) * hidden + row];
        Some(
            (0..hidden)
                .flat_map(|r| (0..queries).map(move |c| (r, c)))
                .map(|(r, c)| at(r, c))
                .collect(),
        )
    } else {
        None
    }
}
