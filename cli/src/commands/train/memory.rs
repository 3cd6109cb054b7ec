//! What memory a run takes, and whether it is there.

use onebit_model::config::ModelConfig;
use onebit_trainer::TrainOptions;
use onebit_trainer::options::{OptimizerKind, Precision};
use onebit_trainer::run::{MemoryEstimate, cuda_memory_estimate, memory_estimate};

use crate::device::Placement;
use crate::{CliError, Result, device, output};

/// The model in training, and its teachers.
pub(crate) type Models<'a> = (&'a ModelConfig, &'a [ModelConfig]);

/// The memory of a run, and what is free where it will run.
pub(crate) struct Memory {
    pub estimate: MemoryEstimate,
    pub available: Option<u64>,
}

impl Memory {
    /// That of training a model, with teachers, with `options` at `place`.
    pub fn new(models: Models<'_>, options: &TrainOptions, place: &Placement) -> Result<Self> {
        Ok(Memory {
            estimate: estimate(models, options, place)?,
            available: match &place.gpu {
                Some(gpu) => Some(gpu.free_memory()?.saturating_sub(RESERVE)),
                None => device::available_memory(),
            },
        })
    }

    /// Whether it is there, as far as that is known.
    pub fn fits(&self) -> bool {
        self.available.is_none_or(|free| self.estimate.total() <= free)
    }

    /// Refuses a run that does not fit, and says what would.
    pub fn refuse_if_too_large(&self, models: Models<'_>, options: &TrainOptions, place: &Placement) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        let free = self.available.unwrap_or(0);
        let fits = |options: &TrainOptions| estimate(models, options, place).is_ok_and(|e| e.total() <= free);
        let smaller = |options: TrainOptions| {
            let halves = std::iter::successors(Some(options.batch_size), |&batch| (batch > 1).then_some(batch / 2));
            let mut tried = halves.map(|batch_size| TrainOptions {
                batch_size,
                ..options.clone()
            });
            tried.find(|options| fits(options)).map(|options| options.batch_size)
        };
        let with_batch = |batch: usize, more: &str| {
            if batch == options.batch_size {
                more.trim_start_matches(" and ").to_string()
            } else {
                format!("--batch-size {batch}{more}")
            }
        };
        let mut advice = Vec::new();
        if let Some(batch) = smaller(options.clone()) {
            advice.push(with_batch(batch, ""));
        }
        let recomputed = TrainOptions {
            recompute: true,
            ..options.clone()
        };
        if place.gpu.is_some()
            && !options.recompute
            && let Some(batch) = smaller(recomputed.clone())
        {
            advice.push(with_batch(batch, " and --recompute"));
        }
        let least = TrainOptions {
            optimizer: OptimizerKind::AdamW8bit,
            gradients: Precision::Bf16,
            accumulation_steps: 1,
            ..recomputed
        };
        if place.gpu.is_some()
            && advice.is_empty()
            && let Some(batch) = smaller(least)
        {
            let mut more = " and --recompute --optimizer adamw8bit --gradients bf16".to_string();
            if options.accumulation_steps > 1 {
                more += " --accumulation-steps 1";
            }
            advice.push(with_batch(batch, &more));
        }
        let advice = match advice.is_empty() {
            true => "no batch of these sequences fits: lower --seq-len, or choose a smaller model".to_string(),
            false => format!("this would fit: {}", advice.join("; or ")),
        };
        Err(CliError::Failed(format!(
            "the run needs {} of memory and {} is available; {advice}",
            output::bytes(self.estimate.total()),
            output::bytes(free)
        )))
    }

    /// Says on stderr what the run will take of a GPU.
    pub fn tell(&self) {
        let e = &self.estimate;
        output::note(&format!(
            "memory: {} of {} free (weights {}, gradients {}, optimizer {}, their products {}, activations {}, teachers {})",
            output::bytes(e.total()),
            output::bytes(self.available.unwrap_or(0)),
            output::bytes(e.weights),
            output::bytes(e.gradients),
            output::bytes(e.optimizer),
            output::bytes(e.products),
            output::bytes(e.activations),
            output::bytes(e.teachers),
        ));
    }
}

/// What kernels and recordings take beside arrays, and what the next program may want.
const RESERVE: u64 = 512 << 20;

fn estimate((config, teachers): Models<'_>, options: &TrainOptions, place: &Placement) -> Result<MemoryEstimate> {
    match &place.gpu {
        Some(_) => Ok(cuda_memory_estimate(config, teachers, options)?),
        None => Ok(memory_estimate(config, teachers, options)),
    }
}
