//! Stories of the built-in grammar: what `onebit quickstart` trains.

use super::{Preset, Shape, TrainingDefaults, bitnet, preset};
use crate::config::ModelConfig;

pub(super) fn quickstart() -> Preset {
    let summary = "stories of the built-in grammar in three minutes on two CPU cores";
    let mut preset = preset("quickstart", summary, teller(128, 2, [16, 16]));
    preset.training = training(preset.training, 16, 3e-2).steps(1_260);
    preset
}

/// The same stories with a model for which they hold nothing new.
pub(super) fn stories_3m() -> Preset {
    let summary = "stories of the built-in grammar with 3 M parameters (onebit quickstart --config stories-3m)";
    let mut preset = preset("stories-3m", summary, teller(256, 3, [32, 32]));
    preset.training = training(preset.training, 64, 1.5e-2).steps(3_000);
    preset
}

/// The same stories in a microcontroller: a quarter of the keys and values, which are what takes its memory.
pub(super) fn stories_mcu() -> Preset {
    let summary = "stories of the built-in grammar for a microcontroller, 0.4 M parameters (onebit quickstart --config stories-mcu)";
    let mut preset = preset("stories-mcu", summary, teller(128, 2, [16, 4]));
    preset.training = training(preset.training, 16, 3e-2).steps(2_520);
    preset
}

/// A story keeps nine things the same and a head learns to copy one or two of them: many heads of 16, wider in all than the stream. What
/// they look for is what a word is, not where it stands: slow rotations.
fn teller(hidden: usize, layers: usize, [heads, kv_heads]: [usize; 2]) -> ModelConfig {
    let shape = Shape {
        hidden,
        layers,
        heads,
        kv_heads,
        ffn: 2 * hidden,
        vocab: 1024,
        seq: 160,
    };
    ModelConfig {
        head_dim: 16,
        rope_theta: 1e6,
        qk_norm: true,
        ..bitnet(shape)
    }
}

fn training(usual: TrainingDefaults, batch_size: usize, lr: f64) -> TrainingDefaults {
    TrainingDefaults {
        batch_size,
        seq_len: 112,
        lr,
        init: "mimetic",
        ..usual
    }
    .muon()
}
