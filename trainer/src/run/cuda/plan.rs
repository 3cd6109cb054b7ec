//! What a run on a GPU allocates, before it does.

use onebit_model::config::ModelConfig;
use onebit_model::network::cuda::{BatchShape, CudaNetwork, CudaTeachers, Layout, MicroBatches};

use crate::Result;
use crate::optimizer::cuda::CudaOptimizer;
use crate::options::{Sharding, TrainOptions};
use crate::run::MemoryEstimate;

/// The shape of a run's micro-batches.
pub(in crate::run) fn batch_shape(options: &TrainOptions) -> BatchShape {
    BatchShape {
        batch: options.batch_size,
        seq: options.seq_len,
        recompute: options.recompute,
        soft_phases: options.quant_warmup_steps + options.quant_anneal_steps > 0,
        bf16_gradients: options.bf16_gradients(),
    }
}

/// The micro-batches of a step.
pub(super) fn micro_batches(options: &TrainOptions) -> MicroBatches {
    MicroBatches {
        own: options.accumulation_steps,
        all: options.micro_batches_per_step(),
    }
}

/// Memory of training `config` with `options` and teachers of these configurations on a GPU: what will be allocated, to the byte.
///
/// # Errors
/// A model that the kernels have no form for.
pub fn cuda_memory_estimate(
    config: &ModelConfig,
    teachers: &[ModelConfig],
    options: &TrainOptions,
) -> Result<MemoryEstimate> {
    let divided = if options.shard == Sharding::Parameters {
        options.world
    } else {
        1
    };
    let memory = CudaNetwork::plan_divided(config, &batch_shape(options), micro_batches(options), divided)?;
    let specs = config.tensors();
    let layout = Layout::new(config, &specs)?;
    Ok(MemoryEstimate {
        weights: memory.weights,
        gradients: memory.gradients,
        optimizer: CudaOptimizer::plan(options, &specs, &layout),
        products: memory.products,
        activations: memory.activations,
        teachers: CudaTeachers::bytes_needed(teachers, &batch_shape(options))?,
        snapshot: 0,
    })
}
