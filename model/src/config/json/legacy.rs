//! The replaced system's keys.
//!
//! | its key | read as |
//! |---|---|
//! | `num_heads`, `num_layers`, `max_seq_len`, `layer_norm_eps` | `num_attention_heads`, `num_hidden_layers`, `max_position_embeddings`, `rms_norm_eps` |
//! | `use_ternary` | every linear ternary, or binary when false or absent, unless `layer_bit_map` says |
//! | `use_swiglu`, `use_relu2` | SwiGLU; plain ReLU² |
//! | `use_subln` | BitNet's sub-norms |
//! | `use_qk_norm`, `use_residual_scaling` | the same (true when absent) |
//! | `use_rope` | must be true: there is no network without positions |
//! | `layer_bit_map` | the same as under `"onebit"` |
//! | `use_dynamic_threshold`, `ste_scale_factor`, `latent_clamp_max`, `latent_clip_max_training`, `anneal_fraction`, `arenas_initial`, `arenas_anneal_steps` | ignored with a note: its training only |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fields::Fields;
use crate::config::{ConfigError, FeedForward, LinearMode};

/// Keys with an effect.
pub(super) const READ: &[&str] = &[
    "layer_bit_map",
    "layer_norm_eps",
    "max_seq_len",
    "num_heads",
    "num_layers",
    "use_qk_norm",
    "use_relu2",
    "use_residual_scaling",
    "use_rope",
    "use_subln",
    "use_swiglu",
    "use_ternary",
];

/// Keys of its training, ignored with a note.
pub(super) const TRAINING: &[&str] = &[
    "anneal_fraction",
    "arenas_anneal_steps",
    "arenas_initial",
    "latent_clamp_max",
    "latent_clip_max_training",
    "ste_scale_factor",
    "use_dynamic_threshold",
];

/// Whether the file is one of the replaced system's: its keys, and no `model_type`.
pub(super) fn is_legacy(root: &Fields<'_>) -> bool {
    !root.has("model_type") && READ.iter().chain(TRAINING).any(|key| root.has(key))
}

/// Adds the notes that a file with such keys calls for, and refuses `use_rope: false`.
pub(super) fn check(root: &Fields<'_>, legacy: bool, notes: &mut Vec<String>) -> Result<(), ConfigError> {
    for key in TRAINING {
        if root.get(key).is_some() {
            notes.push(format!(
                "`{key}` is ignored: the straight-through quantiser needs no such setting; remove the key"
            ));
        }
    }
    match root.bool("use_rope")? {
        Some(false) => {
            let expected = "true (without rotary embedding the network knows no positions)".into();
            return Err(ConfigError::Unsupported {
                key: "use_rope".into(),
                expected,
                found: "false".into(),
            });
        }
        None if legacy => notes.push("`use_rope` is absent: rotary embedding is used all the same".into()),
        _ => {}
    }
    if legacy && root.bool("use_subln")? != Some(true) {
        notes.push("`use_subln` is not true: RMSNorm without sub-norms, never LayerNorm".into());
    }
    Ok(())
}

/// The feed-forward that `use_swiglu` and `use_relu2` ask for.
pub(super) fn feed_forward(root: &Fields<'_>, legacy: bool) -> Result<Option<FeedForward>, ConfigError> {
    match (root.bool("use_swiglu")?, root.bool("use_relu2")?) {
        (Some(true), _) => Ok(Some(FeedForward::SwiGlu)),
        (_, Some(true)) => Ok(Some(FeedForward::Relu2)),
        _ if legacy => Err(ConfigError::Unsupported {
            key: "use_swiglu".into(),
            expected: "\"use_swiglu\": true or \"use_relu2\": true".into(),
            found: "a feed-forward of plain SiLU (neither is true)".into(),
        }),
        _ => Ok(None),
    }
}

/// The mode of every linear when no `layer_bit_map` stands in the file.
pub(super) fn mode(root: &Fields<'_>, notes: &mut Vec<String>) -> Result<LinearMode, ConfigError> {
    if root.bool("use_ternary")? == Some(true) {
        return Ok(LinearMode::Ternary);
    }
    if !root.has("layer_bit_map") {
        notes.push("`use_ternary` is not true: every linear is binary, as the file's own system has it".into());
    }
    Ok(LinearMode::Binary)
}
