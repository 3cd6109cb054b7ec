//! The optimiser of a model that trains on a GPU: the same groups and formulas, over the arenas that its parameters and gradients lie in.
//!
//! Muon's products are bf16 with f32 sums, as its authors run them; on the CPU they are f32.

mod moments;
mod muon;

use std::ops::Range;

use onebit_kernels_cuda::optimizer::{
    AdamW, EightBitMoments, GUARD_WORDS, Gradients, Guard, NORM_PARTIALS, STEP_WORDS, StepScalars, adamw, adamw8bit,
    global_norm,
};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Pinned, Staging};
use onebit_model::config::{TensorKind, TensorSpec};
use onebit_model::network::cuda::{ALIGNMENT, CudaNetwork, Layout};

use super::{Optimizer, Rates};
use crate::Result;
use crate::options::TrainOptions;

pub(crate) use moments::CudaCopy;
use moments::{Moments, blocks, other_moments};
use muon::Muon;

/// Moments of every parameter on the GPU, and what a step needs beside.
#[derive(Debug)]
pub(crate) struct CudaOptimizer {
    constants: AdamW,
    max_norm: f32,
    muon: Muon,
    arrays: Arrays,
}

/// What the pieces of a step read and write beside weights and moments.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    scalars: &'a DeviceArray<u32>,
    guard: &'a DeviceArray<u32>,
    /// Scratch memory.
    partials: &'a DeviceArray<u64>,
}

#[derive(Clone, Debug)]
struct Arrays {
    moments: Moments,
    decay: DeviceArray<u8>,
    scalars: DeviceArray<u32>,
    guard: DeviceArray<u32>,
    partials: DeviceArray<u64>,
    muon: muon::Arrays,
}

impl Arrays {
    fn take(arena: &mut Arena, options: &TrainOptions, specs: &[TensorSpec], layout: &Layout) -> Self {
        let gradients = if options.bf16_gradients() { 2 } else { 1 };
        Arrays {
            moments: Moments::take(arena, options.optimizer, layout),
            decay: arena.take(layout.len / ALIGNMENT),
            scalars: arena.take(STEP_WORDS),
            guard: arena.take(GUARD_WORDS),
            partials: arena.take(gradients * NORM_PARTIALS),
            muon: muon::Arrays::take(arena, options.optimizer, specs),
        }
    }
}

impl CudaOptimizer {
    /// Bytes that it takes.
    pub fn plan(options: &TrainOptions, specs: &[TensorSpec], layout: &Layout) -> u64 {
        let mut arena = Arena::plan();
        Arrays::take(&mut arena, options, specs, layout);
        arena.used() as u64
    }

    /// The optimiser of `network`, with the moments of `host`, after `skipped_in_a_row` steps that changed nothing.
    pub fn new(
        options: &TrainOptions,
        specs: &[TensorSpec],
        network: &CudaNetwork,
        host: &Optimizer,
        skipped_in_a_row: u64,
    ) -> Result<Self> {
        let (gpu, layout) = (network.gpu(), network.layout());
        let mut plan = Arena::plan();
        Arrays::take(&mut plan, options, specs, layout);
        // Zeros, which moments are at the beginning.
        let arrays = Arrays::take(&mut Arena::new(gpu, plan.used())?, options, specs, layout);
        gpu.write(
            &arrays.decay,
            &layout.decayed(specs, |kind| matches!(kind, TensorKind::Linear(_))),
        )?;
        gpu.write(&arrays.guard, &Guard::words(skipped_in_a_row as u32))?;
        let this = CudaOptimizer {
            constants: AdamW {
                beta1: options.beta1,
                beta2: options.beta2,
                eps: options.adam_eps,
            },
            max_norm: options.grad_clip_max_norm,
            muon: Muon::new(gpu, options.optimizer, specs, layout, arrays.muon.clone())?,
            arrays,
        };
        this.arrays.moments.upload(gpu, layout, host)?;
        Ok(this)
    }

    /// Copies the moments to `host`.
    pub fn download(&self, network: &CudaNetwork, staging: &mut Staging, host: &mut Optimizer) -> Result<()> {
        self.arrays.moments.download(network.layout(), staging, host)
    }

    /// Starts copying the numbers of a step, which [`StepScalars::words`] gives, to the GPU.
    pub fn send(&self, gpu: &Gpu, scalars: &Pinned<u32>) -> Result<()> {
        Ok(gpu.write_pinned(&self.arrays.scalars, scalars)?)
    }

    /// Starts copying what the last step found to the host: the words of a [`Guard`].
    pub fn read(&self, gpu: &Gpu, guard: &mut Pinned<u32>) -> Result<()> {
        Ok(gpu.read_pinned(&self.arrays.guard, guard)?)
    }

    /// Launches a step: the norm of all gradients, then the update, unless a number was not finite.
    pub fn step(&self, network: &CudaNetwork) -> Result<()> {
        let (gpu, a) = (network.gpu(), &self.arrays);
        let wide = network.gradients();
        let mut gradients = vec![Gradients::F32(wide)];
        gradients.extend(network.matrix_gradients().map(Gradients::Bf16));
        global_norm(
            gpu,
            &gradients,
            network.losses(),
            self.max_norm,
            &a.scalars,
            &a.partials,
            &a.guard,
        )?;
        let (matrices, len) = (network.layout().matrices, network.layout().len);
        self.adamw(network, 0..matrices, Gradients::F32(&wide.slice(..matrices)))?;
        if self.muon.is_empty() {
            match network.matrix_gradients() {
                Some(narrow) => self.adamw(network, matrices..len, Gradients::Bf16(narrow))?,
                None => self.adamw(network, matrices..len, Gradients::F32(&wide.slice(matrices..)))?,
            }
        }
        if !self.muon.is_empty() {
            let Moments::Wide { first, .. } = &a.moments else {
                return Err(other_moments());
            };
            let step = Step {
                scalars: &a.scalars,
                guard: &a.guard,
                partials: &a.partials,
            };
            self.muon.step(network, first, &step)?;
        }
        Ok(())
    }

    /// AdamW on a part of the arenas: all that is no matrix of a block, or these. What is drawn counts elements from the part's first, as on the CPU.
    fn adamw(&self, network: &CudaNetwork, elements: Range<usize>, gradients: Gradients) -> Result<()> {
        let (gpu, a) = (network.gpu(), &self.arrays);
        let parameters = network.parameters().slice(elements.clone());
        let decay = a.decay.slice(blocks(&elements));
        match &a.moments {
            Moments::Wide { first, second } => {
                let moments = (&first.slice(elements.clone()), &second.slice(elements));
                adamw(
                    gpu,
                    self.constants,
                    &parameters,
                    gradients,
                    moments,
                    &decay,
                    &a.scalars,
                    &a.guard,
                )?;
            }
            Moments::Eight {
                first,
                second,
                first_scale,
                second_scale,
            } => {
                let moments = EightBitMoments {
                    first_scale: &first_scale.slice(blocks(&elements)),
                    second_scale: &second_scale.slice(blocks(&elements)),
                    first: &first.slice(elements.clone()),
                    second: &second.slice(elements),
                    element: 0,
                };
                adamw8bit(
                    gpu,
                    self.constants,
                    &parameters,
                    gradients,
                    moments,
                    &decay,
                    &a.scalars,
                    &a.guard,
                )?;
            }
        }
        Ok(())
    }

    /// The numbers of step `step`, which counts from 0.
    pub fn scalars(options: &TrainOptions, step: u64, rates: Rates) -> [u32; STEP_WORDS] {
        let scalars = StepScalars {
            limit: options.max_skipped.min(u64::from(u32::MAX)) as u32,
            ..StepScalars::new(step as u32, rates.lr, rates.weight_decay, options.beta1, options.beta2)
        };
        scalars.words()
    }
}
