//! `onebit train --dry-run`: what a run would be, what it would take, and how long.

use onebit_engine::Isa;
use onebit_model::config::ModelConfig;
use onebit_trainer::TrainOptions;
use onebit_trainer::options::Precision;
use serde_json::{Value, json};

use super::disk::Disk;
use super::memory::{Memory, Models};
use crate::commands::bench::report::block_weights;
use crate::device::Placement;
use crate::{Result, limits, output};

/// Sizes of a run.
pub(super) struct Plan {
    /// Tokens of the training data, unless it is a stream.
    pub tokens: Option<usize>,
    /// Windows of an epoch.
    pub windows: u64,
    /// Tokens of the validation data.
    pub validation: Option<usize>,
    /// Of the tokenizer.
    pub vocab_size: usize,
    /// How long it would take, about.
    pub seconds: f64,
    /// Steps of each teacher that is trained first.
    pub teacher_steps: u64,
    /// How many are.
    pub trained_teachers: usize,
}

/// Operations of training as shares of what the device was seen to do just now: the rates that `onebit bench train` measures are about these.
const OF_A_CPU: [f64; 2] = [0.8, 1.25];
const OF_A_GPU: f64 = 0.45;

/// How long a run would take, about: its operations, with what its teachers say to each step, and those of the teachers where they are trained first, over a
/// rate measured now.
pub(super) fn seconds(
    (config, teachers): Models<'_>,
    options: &TrainOptions,
    teacher_steps: u64,
    place: &Placement,
    windows: u64,
) -> Result<f64> {
    let weights = |config: &ModelConfig| block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    let training = if options.recompute { 8.0 } else { 6.0 };
    let told: f64 = teachers.iter().map(|teacher| 2.0 * weights(teacher)).sum();
    // Where some are trained first, all are.
    let own: f64 = teachers.iter().map(|own| training * weights(own)).sum::<f64>() * teacher_steps as f64;
    let steps = options.total_steps(windows) as f64 * (training * weights(config) + told);
    let rate = match &place.gpu {
        Some(gpu) => OF_A_GPU * limits::cuda::product_rate(gpu)?,
        None => {
            let share = OF_A_CPU[usize::from(options.precision == Precision::Bf16)];
            share * limits::fma_peak(Isa::best(), place.threads)
        }
    };
    Ok((steps + own) * options.tokens_per_step() as f64 / rate)
}

/// Prints it.
pub(super) fn print(
    config: &ModelConfig,
    options: &TrainOptions,
    (memory, disk): (&Memory, Option<&Disk>),
    plan: &Plan,
    as_json: bool,
) -> Result<()> {
    let (available, fits) = (memory.available, memory.fits());
    let memory = &memory.estimate;
    let facts = json!({
        "parameters": config.parameter_count(),
        "tokens": plan.tokens,
        "validation_tokens": plan.validation,
        "vocab_size": plan.vocab_size,
        "tokens_per_epoch": plan.windows * options.seq_len as u64,
        "steps": options.total_steps(plan.windows),
        "teacher_steps": plan.teacher_steps,
        "trained_teachers": plan.trained_teachers,
        "tokens_per_step": options.tokens_per_step(),
        "seconds": plan.seconds,
        "memory_bytes": {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "products": memory.products,
            "activations": memory.activations,
            "teachers": memory.teachers,
            "snapshot": memory.snapshot,
            "total": memory.total(),
        },
        "available_bytes": available,
        "fits": fits,
        "disk_bytes": disk.map(|disk| json!({
            "checkpoint": disk.checkpoint,
            "total": disk.needed,
            "free": disk.free,
            "fits": disk.fits(),
        })),
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
        (
            "data",
            match facts["tokens"].as_u64() {
                Some(tokens) => format!(
                    "{tokens} tokens, {} in the windows of an epoch",
                    facts["tokens_per_epoch"]
                ),
                None => "a stream of shards".into(),
            },
        ),
        (
            "steps",
            match number(&facts["teacher_steps"]) {
                0 => format!("{} of {} tokens", facts["steps"], facts["tokens_per_step"]),
                first => format!(
                    "{} of {} tokens, after {first} of each of {} teachers",
                    facts["steps"], facts["tokens_per_step"], facts["trained_teachers"]
                ),
            },
        ),
        (
            "time",
            format!(
                "about {}",
                output::seconds(facts["seconds"].as_f64().unwrap_or_default())
            ),
        ),
        ("weights", size(&memory["weights"])),
        ("gradients", size(&memory["gradients"])),
        ("optimizer", size(&memory["optimizer"])),
        ("products", size(&memory["products"])),
        ("activations", size(&memory["activations"])),
        ("teachers", size(&memory["teachers"])),
        ("snapshot", size(&memory["snapshot"])),
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
    if let Some(validation) = facts["validation_tokens"].as_u64() {
        rows.insert(2, ("validation", format!("{validation} tokens")));
    }
    let disk = &facts["disk_bytes"];
    if !disk.is_null() {
        let short = if disk["fits"] == true { "" } else { ": too little" };
        let free = disk["free"].as_u64().map_or("an unknown number".into(), output::bytes);
        rows.push((
            "disk",
            format!(
                "{} for checkpoints of {}, {free} free{short}",
                size(&disk["total"]),
                size(&disk["checkpoint"])
            ),
        ));
    }
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
