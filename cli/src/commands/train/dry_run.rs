//! `onebit train --dry-run`: what a run would be and what memory it would take.

use onebit_model::config::ModelConfig;
use onebit_trainer::TrainOptions;
use serde_json::{Value, json};

use super::memory::Memory;
use crate::{Result, output};

/// Prints the run's sizes, for data of so many tokens and windows an epoch.
pub(super) fn print(
    config: &ModelConfig,
    options: &TrainOptions,
    memory: &Memory,
    (tokens, windows): (usize, u64),
    as_json: bool,
) -> Result<()> {
    let (available, fits) = (memory.available, memory.fits());
    let memory = &memory.estimate;
    let facts = json!({
        "parameters": config.parameter_count(),
        "tokens": tokens,
        "steps": options.total_steps(windows),
        "tokens_per_step": options.tokens_per_step(),
        "memory_bytes": {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "products": memory.products,
            "activations": memory.activations,
            "total": memory.total(),
        },
        "available_bytes": available,
        "fits": fits,
        "options": options,
    });
    show(&facts, as_json)
}

fn show(facts: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(facts);
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let size = |value: &Value| output::bytes(number(value));
    let memory = &facts["memory_bytes"];
    let mut rows = vec![
        ("parameters", number(&facts["parameters"]).to_string()),
        ("data", format!("{} tokens", facts["tokens"])),
        (
            "steps",
            format!("{} of {} tokens", facts["steps"], facts["tokens_per_step"]),
        ),
        ("weights", size(&memory["weights"])),
        ("gradients", size(&memory["gradients"])),
        ("optimizer", size(&memory["optimizer"])),
        ("products", size(&memory["products"])),
        ("activations", size(&memory["activations"])),
        ("memory", format!("{} in all", size(&memory["total"]))),
        (
            "available",
            if facts["available_bytes"].is_null() {
                "unknown".into()
            } else {
                size(&facts["available_bytes"])
            },
        ),
        (
            "fits",
            if facts["fits"] == true {
                "yes".into()
            } else {
                "no".to_string()
            },
        ),
    ];
    if let Value::Object(options) = &facts["options"] {
        // The options are f32: their own digits, 0.95 and not 0.949999988.
        let shown = |value: &Value| match value.as_f64() {
            Some(x) if value.is_f64() => (x as f32).to_string(),
            _ => value.to_string(),
        };
        rows.extend(options.iter().map(|(key, value)| (key.as_str(), shown(value))));
    }
    output::table(&rows)
}
