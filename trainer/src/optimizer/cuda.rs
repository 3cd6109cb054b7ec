//! The optimiser of a model that trains on a GPU: the same groups and formulas, over the arenas that its parameters and gradients lie in.
//!
//! Muon's products are bf16 with f32 sums, as its authors run them; on the CPU they are f32.

use std::ops::Range;

use half::bf16;
use onebit_kernels_cuda::gemm::{Layout as Product, Matrix, Output, Scales, gemm_bf16};
use onebit_kernels_cuda::optimizer::{
    AdamW, GUARD_WORDS, Gradients, Guard, NORM_PARTIALS, STEP_WORDS, StepScalars, adamw, global_norm, muon,
};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Pinned};
use onebit_model::config::{TensorKind, TensorSpec};
use onebit_model::network::cuda::{CudaNetwork, Layout};

use super::Optimizer;
use super::muon::{ITERATIONS, MOMENTUM, QUINTIC};
use crate::Result;
use crate::options::{OptimizerKind, TrainOptions};

/// A run of parameters that AdamW updates, and where their second moments begin.
#[derive(Clone, Debug)]
struct AdamRange {
    elements: Range<usize>,
    second: usize,
}

/// What is updated how.
#[derive(Clone, Debug)]
struct Groups {
    adam: Vec<AdamRange>,
    /// Index, rows and columns of each matrix.
    muon: Vec<(usize, usize, usize)>,
    /// Second moments.
    second: usize,
}

impl Groups {
    fn new(kind: OptimizerKind, specs: &[TensorSpec], layout: &Layout) -> Self {
        let is_muon = |spec: &TensorSpec| kind == OptimizerKind::Muon && matches!(spec.kind, TensorKind::Linear(_));
        let mut groups = Groups {
            adam: Vec::new(),
            muon: Vec::new(),
            second: 0,
        };
        for (index, spec) in specs.iter().enumerate() {
            let end = layout.offsets.get(index + 1).copied().unwrap_or(layout.len);
            let elements = layout.offsets[index]..end;
            if is_muon(spec) {
                groups.muon.push((index, spec.shape[0], spec.shape[1]));
                continue;
            }
            let len = elements.len();
            match groups.adam.last_mut() {
                Some(last) if last.elements.end == elements.start => last.elements.end = elements.end,
                _ => groups.adam.push(AdamRange {
                    elements,
                    second: groups.second,
                }),
            }
            groups.second += len;
        }
        groups
    }
}

/// Moments of every parameter on the GPU, and what a step needs beside.
#[derive(Debug)]
pub(crate) struct CudaOptimizer {
    constants: AdamW,
    max_norm: f32,
    groups: Groups,
    arrays: Arrays,
}

#[derive(Clone, Debug)]
struct Arrays {
    first: DeviceArray<f32>,
    second: DeviceArray<f32>,
    decay: DeviceArray<u8>,
    scalars: DeviceArray<u32>,
    guard: DeviceArray<u32>,
    partials: DeviceArray<u64>,
    /// Muon: two matrices of the largest's size, and two squares of the longest shorter side.
    matrices: [DeviceArray<bf16>; 2],
    squares: [DeviceArray<bf16>; 2],
}

impl Arrays {
    fn take(arena: &mut Arena, layout: &Layout, groups: &Groups) -> Self {
        let largest = groups.muon.iter().map(|&(_, r, c)| r * c).max().unwrap_or(0);
        let side = groups.muon.iter().map(|&(_, r, c)| r.min(c)).max().unwrap_or(0);
        Arrays {
            first: arena.take(layout.len),
            second: arena.take(groups.second),
            decay: arena.take(layout.len / onebit_model::network::cuda::ALIGNMENT),
            scalars: arena.take(STEP_WORDS),
            guard: arena.take(GUARD_WORDS),
            partials: arena.take(NORM_PARTIALS),
            matrices: [arena.take(largest), arena.take(largest)],
            squares: [arena.take(side * side), arena.take(side * side)],
        }
    }
}

impl CudaOptimizer {
    /// Bytes that it takes.
    pub fn plan(kind: OptimizerKind, specs: &[TensorSpec], layout: &Layout) -> u64 {
        let mut arena = Arena::plan();
        Arrays::take(&mut arena, layout, &Groups::new(kind, specs, layout));
        arena.used() as u64
    }

    /// The optimiser of `network`, with the moments of `host`.
    pub fn new(options: &TrainOptions, specs: &[TensorSpec], network: &CudaNetwork, host: &Optimizer) -> Result<Self> {
        let (gpu, layout) = (network.gpu(), network.layout());
        let groups = Groups::new(options.optimizer, specs, layout);
        let mut plan = Arena::plan();
        Arrays::take(&mut plan, layout, &groups);
        let arrays = Arrays::take(&mut Arena::new(gpu, plan.used())?, layout, &groups);
        gpu.write(
            &arrays.decay,
            &layout.decayed(specs, |kind| matches!(kind, TensorKind::Linear(_))),
        )?;
        gpu.write(&arrays.guard, &Guard::RESET)?;
        let this = CudaOptimizer {
            constants: AdamW {
                beta1: options.beta1,
                beta2: options.beta2,
                eps: options.adam_eps,
            },
            max_norm: options.grad_clip_max_norm,
            groups,
            arrays,
        };
        for (index, tensor) in host.first.iter().enumerate() {
            gpu.write(&this.arrays.first.slice(layout.range(index)), tensor.f32()?)?;
        }
        for (index, tensor) in host.second.iter().enumerate() {
            if let (Some(tensor), Some(range)) = (tensor, this.second_moment(layout, index)) {
                gpu.write(&this.arrays.second.slice(range), tensor.f32()?)?;
            }
        }
        Ok(this)
    }

    /// Where the second moment of parameter `index` lies.
    fn second_moment(&self, layout: &Layout, index: usize) -> Option<Range<usize>> {
        let wanted = layout.range(index);
        let range = self.groups.adam.iter().find(|r| r.elements.contains(&wanted.start))?;
        let start = range.second + wanted.start - range.elements.start;
        Some(start..start + wanted.len())
    }

    /// Copies the moments to `host`.
    pub fn download(&self, network: &CudaNetwork, host: &mut Optimizer) -> Result<()> {
        network.read_arena(&self.arrays.first, host.first.iter_mut())?;
        for (index, tensor) in host.second.iter_mut().enumerate() {
            if let (Some(tensor), Some(range)) = (tensor, self.second_moment(network.layout(), index)) {
                let values = network.gpu().download(&self.arrays.second.slice(range))?;
                tensor.f32_mut()?.copy_from_slice(&values);
            }
        }
        Ok(())
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
        let gradients = network.gradients();
        global_norm(
            gpu,
            Gradients::F32(gradients),
            network.losses(),
            self.max_norm,
            &a.scalars,
            &a.partials,
            &a.guard,
        )?;
        for AdamRange { elements, second } in &self.groups.adam {
            let block = onebit_model::network::cuda::ALIGNMENT;
            adamw(
                gpu,
                self.constants,
                &network.parameters().slice(elements.clone()),
                Gradients::F32(&gradients.slice(elements.clone())),
                (
                    &a.first.slice(elements.clone()),
                    &a.second.slice(*second..second + elements.len()),
                ),
                &a.decay.slice(elements.start / block..elements.end / block),
                &a.scalars,
                &a.guard,
            )?;
        }
        for &(index, rows, cols) in &self.groups.muon {
            self.muon(network, index, rows, cols)?;
        }
        Ok(())
    }

    /// As [`super::muon::step`], in bf16.
    fn muon(&self, network: &CudaNetwork, index: usize, rows: usize, cols: usize) -> Result<()> {
        let (gpu, a, range) = (network.gpu(), &self.arrays, network.layout().range(index));
        let (gradient, momentum) = (network.gradients().slice(range.clone()), a.first.slice(range.clone()));
        let [mut x, mut next] = [0, 1].map(|i| a.matrices[i].slice(..rows * cols));
        let side = rows.min(cols);
        let [gram, square] = [0, 1].map(|i| a.squares[i].slice(..side * side));
        let none = DeviceArray::clone(&a.first).slice(..0);
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
    pub fn scalars(options: &TrainOptions, step: u64, lr: f32) -> [u32; STEP_WORDS] {
        StepScalars::new(step as u32, lr, options.weight_decay, options.beta1, options.beta2).words()
    }
}
