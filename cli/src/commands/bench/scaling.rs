//! `onebit bench scaling`: what training on N GPUs would hold, send and take. Nothing is run.

use onebit_model::config::presets;
use onebit_trainer::TrainOptions;
use onebit_trainer::options::Sharding;
use onebit_trainer::scaling::{Fabric, Plan, Rate, Run, Source, plan, rate_of};
use onebit_trainer::schedule::Phase;
use serde_json::{Value, json};

use super::Bench;
use crate::{CliError, Result, args, output};

/// Tokens of a sequence, where the context is as long.
const SEQUENCE: usize = 2048;
/// GiB of GPUs that there are.
const SIZES: [u64; 7] = [24, 40, 48, 80, 96, 141, 192];
/// Of a GPU's memory, what a program can have, and what kernels, recordings and NCCL take beside arrays.
const USABLE: f64 = 0.98;
const RESERVE: u64 = 1 << 30;

impl Bench {
    pub(super) fn scaling(&self) -> Result<()> {
        let name = self.shape.as_deref().unwrap_or("25m");
        let subject = presets::resolve(name)?;
        let (phase, options) = self.training()?;
        let soft = u64::from(phase == Phase::Warmup);
        let options = TrainOptions {
            batch_size: self.batch_size.unwrap_or(1),
            seq_len: self
                .seq_len
                .unwrap_or(SEQUENCE.min(subject.config.max_position_embeddings)),
            accumulation_steps: 1,
            quant_warmup_steps: soft,
            quant_anneal_steps: 0,
            ..options
        };
        if options.seq_len > subject.config.max_position_embeddings {
            return Err(CliError::Usage(format!(
                "--seq-len: {} is more than the model's context of {}",
                options.seq_len, subject.config.max_position_embeddings
            )));
        }
        let rate = match self.rate {
            Some(tokens_per_second) if tokens_per_second > 0.0 && tokens_per_second.is_finite() => Rate {
                tokens_per_second,
                source: Source::Given,
            },
            Some(other) => {
                return Err(CliError::Usage(format!(
                    "--rate: expected tokens a second, more than 0, found {other}"
                )));
            }
            None => rate_of(subject.preset, &subject.config, &options, phase),
        };
        let run = Run {
            config: &subject.config,
            options: &options,
            phase,
            rate,
        };
        let fabric = Fabric::h200(self.gpus_per_node.unwrap_or(8));
        let shard = self.shard.as_deref().map(|s| args::parse(s, "--shard")).transpose()?;
        let mut plans = Vec::new();
        for gpus in counts(self.gpus.as_deref().unwrap_or("1,2,8,64"))? {
            match shard {
                Some(shard) => plans.push(plan(&run, &fabric, gpus, shard)?),
                None => {
                    plans.push(plan(&run, &fabric, gpus, Sharding::None)?);
                    // What this model and optimiser cannot be divided by is not asked for.
                    let more = [Sharding::Optimizer, Sharding::Parameters];
                    plans.extend(more.iter().filter_map(|&shard| plan(&run, &fabric, gpus, shard).ok()));
                }
            }
        }
        if self.json {
            return plans.iter().try_for_each(|plan| output::json(&facts(plan)));
        }
        let gradients = if options.bf16_gradients() { "bf16" } else { "f32" };
        let recompute = if options.recompute { ", recomputed" } else { "" };
        output::line(&format!(
            "{name}, {} phase, {} x {} tokens a GPU, {}, {gradients} gradients{recompute}; one GPU: {:.0} tokens/s ({})",
            phase.name(),
            options.batch_size,
            options.seq_len,
            options.optimizer.name(),
            rate.tokens_per_second,
            rate.source.name(),
        ))?;
        output::text(&memory_table(&plans))?;
        output::text(&step_table(&plans, fabric.per_node))
    }
}

/// `1,2,8,64`.
fn counts(given: &str) -> Result<Vec<usize>> {
    let one = |text: &str| match text.trim().parse() {
        Ok(0) | Err(_) => Err(CliError::Usage(format!(
            "--gpus: expected numbers of GPUs such as 1,2,8,64, found {given:?}"
        ))),
        Ok(gpus) => Ok(gpus),
    };
    given.split(',').map(one).collect()
}

/// GiB of the smallest GPU that has room.
fn size(plan: &Plan) -> Option<u64> {
    let needed = (plan.memory.total() + RESERVE) as f64;
    SIZES.into_iter().find(|&gib| needed <= USABLE * (gib << 30) as f64)
}

fn facts(plan: &Plan) -> Value {
    json!({
        "gpus": plan.gpus,
        "shard": plan.shard,
        "memory_bytes": plan.memory,
        "total_bytes": plan.memory.total(),
        "gpu_gib": size(plan),
        "sent_bytes": plan.traffic,
        "step_seconds": plan.step,
        "tokens_per_second": plan.tokens_per_second,
        "efficiency": plan.efficiency,
        "rate": plan.rate,
        "simulated": true,
    })
}

fn memory_table(plans: &[Plan]) -> String {
    let gb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e9);
    let rows = plans.iter().map(|plan| {
        let m = &plan.memory;
        let uses = [
            m.weights,
            m.packed,
            m.gradients,
            m.optimizer,
            m.products,
            m.activations,
            m.total(),
        ];
        let mut row = vec![plan.gpus.to_string(), plan.shard.name().to_string()];
        row.extend(uses.map(gb));
        row.push(size(plan).map_or("none".into(), |gib| format!("{gib} GiB")));
        row
    });
    let head = "gpus shard weights packed gradients optimizer products activations total fits";
    format!("\nmemory of a GPU, GB\n{}", aligned(head, rows))
}

fn step_table(plans: &[Plan], per_node: usize) -> String {
    let ms = |seconds: f64| format!("{:.1}", 1e3 * seconds);
    let rows = plans.iter().map(|plan| {
        let s = &plan.step;
        let mut row = vec![plan.gpus.to_string(), plan.shard.name().to_string()];
        row.push(format!("{:.2}", plan.traffic.gradients / 1e9));
        row.push(format!("{:.2}", plan.traffic.weights / 1e9));
        row.extend([s.compute, s.reduce, s.update, s.gather, s.total].map(ms));
        row.push(format!("{:.0}", plan.tokens_per_second));
        row.push(format!("{:.3}", plan.efficiency));
        row
    });
    let head = "gpus shard gradients weights compute reduce update gather step tokens/s efficiency";
    format!(
        "\na step, simulated: GB that a GPU sends, ms; GPUs of a node: {per_node}\n{}",
        aligned(head, rows)
    )
}

/// Columns under the words of `head`: the second to the left, numbers to the right.
fn aligned(head: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.split(' ').map(String::from).collect::<Vec<_>>()];
    all.extend(rows);
    let widths: Vec<usize> = (0..all[0].len())
        .map(|i| all.iter().map(|row| row[i].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    all.iter().map(line).collect()
}
