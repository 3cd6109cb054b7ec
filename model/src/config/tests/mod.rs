mod names;
mod random;
mod reading;
mod shapes;

use super::*;

/// A small valid configuration to vary.
fn small() -> ModelConfig {
    presets_config("quickstart")
}

fn presets_config(name: &str) -> ModelConfig {
    super::presets::by_name(name).unwrap().config
}
