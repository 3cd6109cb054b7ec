mod names;
mod random;
mod reading;
mod shapes;

use super::*;

/// A small valid configuration to vary; its sizes do not follow the preset's when that is tuned.
fn small() -> ModelConfig {
    let mut config = ModelConfig {
        vocab_size: 512,
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 128,
        qk_norm: false,
        ..presets_config("quickstart")
    };
    config.set_all_modes(LinearMode::Ternary);
    config
}

fn presets_config(name: &str) -> ModelConfig {
    super::presets::by_name(name).unwrap().config
}
