//! The optimiser of a model that trains on a GPU: the same groups and formulas, over the arenas that its parameters and gradients lie in.
//!
//! Muon's products are bf16 with f32 sums, as its authors run them; on the CPU they are f32.

mod moments;

use std::ops::Range;

use half::bf16;
use onebit_kernels_cuda::gemm::{Layout as Product, Matrix, Output, Scales, gemm_bf16};
use onebit_kernels_cuda::optimizer::{
    AdamW, EightBitMoments, GUARD_WORDS, Gradients, Guard, NORM_PARTIALS, STEP_WORDS, StepScalars, adamw, adamw8bit,
    global_norm, muon,
};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Pinned, Staging};
use onebit_model::config::{TensorKind, TensorSpec};
use onebit_model::network::cuda::{ALIGNMENT, CudaNetwork, Layout};

use super::muon::{ITERATIONS, MOMENTUM, QUINTIC};
use super::{Optimizer, Rates};
use crate::Result;
use crate::options::{OptimizerKind, TrainOptions};

pub(crate) use moments::CudaCopy;
use moments::{Moments, blocks, other_moments};

/// Moments of every parameter on the GPU, and what a step needs beside.
#[derive(Debug)]
pub(crate) struct CudaOptimizer {
    constants: AdamW,
    max_norm: f32,
    /// What Muon has: index, rows and columns of each matrix.
    muon: Vec<(usize, usize, usize)>,
    arrays: Arrays,
}

#[derive(Clone, Debug)]
struct Arrays {
    moments: Moments,
    decay: DeviceArray<u8>,
    scalars: DeviceArray<u32>,
    guard: DeviceArray<u32>,
    partials: DeviceArray<u64>,
    /// Muon: two matrices of the largest's size, and two squares of the longest shorter side.
    matrices: [DeviceArray<bf16>; 2],
    squares: [DeviceArray<bf16>; 2],
}

/// Index, rows and columns of each matrix that Muon has.
fn muon_matrices(kind: OptimizerKind, specs: &[TensorSpec]) -> Vec<(usize, usize, usize)> {
    let is_muon = |spec: &TensorSpec| kind == OptimizerKind::Muon && matches!(spec.kind, TensorKind::Linear(_));
    let all = specs.iter().enumerate().filter(|(_, spec)| is_muon(spec));
    all.map(|(index, spec)| (index, spec.shape[0], spec.shape[1])).collect()
}

impl Arrays {
    fn take(arena: &mut Arena, options: &TrainOptions, specs: &[TensorSpec], layout: &Layout) -> Self {
        let muon = muon_matrices(options.optimizer, specs);
        let largest = muon.iter().map(|&(_, r, c)| r * c).max().unwrap_or(0);
        let side = muon.iter().map(|&(_, r, c)| r.min(c)).max().unwrap_or(0);
        let gradients = if options.bf16_gradients() { 2 } else { 1 };
        Arrays {
            moments: Moments::take(arena, options.optimizer, layout),
            decay: arena.take(layout.len / ALIGNMENT),
            scalars: arena.take(STEP_WORDS),
            guard: arena.take(GUARD_WORDS),
            partials: arena.take(gradients * NORM_PARTIALS),
            matrices: [arena.take(largest), arena.take(largest)],
            squares: [arena.take(side * side), arena.take(side * side)],
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
            muon: muon_matrices(options.optimizer, specs),
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
        for &(index, rows, cols) in &self.muon {
            self.muon(network, index, rows, cols)?;
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

    /// As [`super::muon::step`], in bf16.
    fn muon(&self, network: &CudaNetwork, index: usize, rows: usize, cols: usize) -> Result<()> {
        let (gpu, a, range) = (network.gpu(), &self.arrays, network.layout().range(index));
        let Moments::Wide { first, .. } = &a.moments else {
            return Err(other_moments());
        };
        let (gradient, momentum) = (network.gradients().slice(range.clone()), first.slice(range.clone()));
        let [mut x, mut next] = [0, 1].map(|i| a.matrices[i].slice(..rows * cols));
        let side = rows.min(cols);
        let [gram, square] = [0, 1].map(|i| a.squares[i].slice(..side * side));
        let none = first.slice(..0);
        muon::momentum(gpu, &gradient, &momentum, MOMENTUM, &a.guard, &a.partials)?;
        muon::normalize(gpu, &gradient, &momentum, MOMENTUM, &a.guard, &a.partials, &x)?;
        let product = |layout,
                       size,
                       a: (&DeviceArray<bf16>, usize),
                       b: (&DeviceArray<bf16>, usize),
                       out: (&DeviceArray<bf16>, usize)| {
            let matrix = |(array, stride)| Matrix { array, stride };
            gemm_bf16(
                gpu,
                layout,
                size,
                matrix(a),
                matrix(b),
                Output::Bf16(matrix(out)),
                Scales::NONE,
                &none,
            )
        };
        let (c1, c2, c3) = QUINTIC;
        let wide = rows <= cols;
        for _ in 0..ITERATIONS {
            let (layout, long) = if wide { (Product::NT, cols) } else { (Product::TN, rows) };
            product(layout, (side, side, long), (&x, cols), (&x, cols), (&gram, side))?;
            product(
                Product::NN,
                (side, side, side),
                (&gram, side),
                (&gram, side),
                (&square, side),
            )?;
            muon::combine(gpu, (c2, &gram), (c3, &square), &square)?;
            if wide {
                product(
                    Product::NN,
                    (rows, cols, side),
                    (&square, side),
                    (&x, cols),
                    (&next, cols),
                )?;
            } else {
                product(
                    Product::NN,
                    (rows, cols, side),
                    (&x, cols),
                    (&square, side),
                    (&next, cols),
                )?;
            }
            muon::combine(gpu, (c1, &x), (1.0, &next), &next)?;
            std::mem::swap(&mut x, &mut next);
        }
        let size = 0.2 * (rows.max(cols) as f32).sqrt();
        let parameter = network.parameters().slice(range);
        Ok(muon::update(gpu, &parameter, &x, size, &a.scalars, &a.guard)?)
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
