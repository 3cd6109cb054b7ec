//! The optimiser of a model that trains on a GPU: the same groups and formulas, over the arenas that its parameters and gradients lie in.
//!
//! Muon's products are bf16 with f32 sums, as its authors run them; on the CPU they are f32.

mod moments;
mod muon;

use std::ops::Range;

use onebit_kernels_cuda::optimizer::{
    AdamW, EightBitMoments, GUARD_WORDS, Gradients, Guard, NORM_PARTIALS, STEP_WORDS, StepScalars, adamw, adamw8bit,
    global_norm, norm_of_sums, sum_of_squares,
};
use onebit_kernels_cuda::{Arena, DeviceArray, Gpu, Pinned, Staging};
use onebit_model::config::{TensorKind, TensorSpec};
use onebit_model::network::cuda::{ALIGNMENT, CudaNetwork, Layout};

use super::{Optimizer, Rates};
use crate::Result;
use crate::options::TrainOptions;
use crate::parallel::nccl::{CudaRanks, GradientSlice};
use crate::parallel::pieces::{Piece, Pieces};

pub(crate) use moments::CudaCopy;
use moments::{Moments, blocks, other_moments};
use muon::Muon;

/// Moments of every parameter on the GPU, and what a step needs beside.
#[derive(Debug)]
pub(crate) struct CudaOptimizer {
    constants: AdamW,
    max_norm: f32,
    muon: Muon,
    /// What is updated here.
    pieces: Pieces,
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
    /// Of each rank's squares, and behind them of those that all have.
    sums: DeviceArray<u64>,
    muon: muon::Arrays,
}

impl Arrays {
    fn take(
        arena: &mut Arena,
        options: &TrainOptions,
        specs: &[TensorSpec],
        layout: &Layout,
        (pieces, ranks): (&Pieces, usize),
    ) -> Self {
        let gradients = if options.bf16_gradients() { 2 } else { 1 };
        Arrays {
            moments: Moments::take(arena, options.optimizer, layout, pieces),
            decay: arena.take(layout.len / ALIGNMENT),
            scalars: arena.take(STEP_WORDS),
            guard: arena.take(GUARD_WORDS),
            partials: arena.take(gradients * NORM_PARTIALS),
            sums: arena.take(if ranks > 1 { ranks + 1 } else { 0 }),
            muon: muon::Arrays::take(arena, options.optimizer, specs),
        }
    }
}

impl CudaOptimizer {
    /// Bytes that it takes on the first rank, which has as much as any.
    pub fn plan(options: &TrainOptions, specs: &[TensorSpec], layout: &Layout) -> u64 {
        let mut arena = Arena::plan();
        let pieces = Pieces::new(layout, options.shard, (0, options.world));
        Arrays::take(&mut arena, options, specs, layout, (&pieces, options.world));
        arena.used() as u64
    }

    /// The optimiser of `network` on rank `rank`, with the moments of `host`, after `skipped_in_a_row` steps that changed nothing.
    pub fn new(
        options: &TrainOptions,
        specs: &[TensorSpec],
        network: &CudaNetwork,
        host: &Optimizer,
        (rank, skipped_in_a_row): (usize, u64),
    ) -> Result<Self> {
        let (gpu, layout) = (network.gpu(), network.layout());
        let pieces = Pieces::new(layout, options.shard, (rank, options.world));
        let mut plan = Arena::plan();
        Arrays::take(&mut plan, options, specs, layout, (&pieces, options.world));
        // Zeros, which moments are at the beginning.
        let mut arena = Arena::new(gpu, plan.used())?;
        let arrays = Arrays::take(&mut arena, options, specs, layout, (&pieces, options.world));
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
            pieces,
            arrays,
        };
        this.arrays.moments.upload(gpu, layout, &this.pieces, host)?;
        Ok(this)
    }

    /// Copies the moments to `host`. Where ranks divide them, all call it, and the first of them gets them.
    pub fn download(
        &self,
        network: &CudaNetwork,
        ranks: Option<&CudaRanks>,
        staging: &mut Staging,
        host: &mut Optimizer,
    ) -> Result<()> {
        let (gpu, layout) = (network.gpu(), network.layout());
        let Some(ranks) = ranks.filter(|ranks| ranks.divides_moments()) else {
            return self.arrays.moments.download(layout, staging, host);
        };
        for bucket in &ranks.deal().buckets {
            let gathered = self.arrays.moments.gathered(gpu, ranks, bucket, &self.pieces)?;
            if ranks.is_first() {
                gathered.download_bucket(layout, bucket.elements.clone(), staging, host)?;
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

    /// Launches a step: the norm of all gradients, then the update, unless a number was not finite. Of several ranks, sums of gradients and losses are there or under way.
    pub fn step(&self, network: &CudaNetwork, ranks: Option<&CudaRanks>) -> Result<()> {
        let a = &self.arrays;
        match ranks {
            Some(ranks) => self.norm_over_ranks(network, ranks)?,
            None => self.norm(network)?,
        }
        let matrices = network.layout().matrices;
        let is_muons = |piece: &Piece| !self.muon.is_empty() && piece.elements.start >= matrices;
        for piece in self.pieces.all.iter().filter(|piece| !is_muons(piece)) {
            self.adamw(network, piece)?;
        }
        if let Some(ranks) = ranks.filter(|ranks| ranks.divides_moments()) {
            ranks.gather_weights(network)?;
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

    /// Launches the norm of gradients that are all here.
    fn norm(&self, network: &CudaNetwork) -> Result<()> {
        let a = &self.arrays;
        let mut gradients = vec![Gradients::F32(network.gradients())];
        gradients.extend(network.matrix_gradients().map(Gradients::Bf16));
        Ok(global_norm(
            network.gpu(),
            &gradients,
            network.losses(),
            self.max_norm,
            &a.scalars,
            &a.partials,
            &a.guard,
        )?)
    }

    /// Launches the norm of gradients whose sums are divided among ranks.
    fn norm_over_ranks(&self, network: &CudaNetwork, ranks: &CudaRanks) -> Result<()> {
        let (gpu, a, losses, deal) = (network.gpu(), &self.arrays, network.losses(), ranks.deal());
        ranks.losses(network)?;
        let slices_of = |ranges: &mut dyn Iterator<Item = Range<usize>>| -> Vec<GradientSlice> {
            ranges.map(|range| GradientSlice::of(network, &range)).collect()
        };
        let partials = a.partials.slice(..NORM_PARTIALS);
        let squares = |slices: &[GradientSlice], at: usize| {
            let slices: Vec<_> = slices.iter().map(GradientSlice::as_gradients).collect();
            sum_of_squares(gpu, &slices, losses, &partials, &a.sums.slice(at..at + 1))
        };
        squares(&slices_of(&mut deal.parts()), deal.rank)?;
        // Every rank has these, and counts them once.
        squares(&slices_of(&mut deal.tails()), deal.size)?;
        ranks.gather(&a.sums.slice(..deal.size))?;
        Ok(norm_of_sums(gpu, &a.sums, losses, self.max_norm, &a.scalars, &a.guard)?)
    }

    /// AdamW on a piece of the arenas. What is drawn counts elements from the first of all that is no matrix of a block, or from the first of these, as on the CPU.
    fn adamw(&self, network: &CudaNetwork, piece: &Piece) -> Result<()> {
        let (gpu, a) = (network.gpu(), &self.arrays);
        let (elements, at) = (piece.elements.clone(), piece.at..piece.at + piece.elements.len());
        let parameters = network.master(&elements)?;
        let gradients = GradientSlice::of(network, &elements);
        let gradients = gradients.as_gradients();
        let decay = a.decay.slice(blocks(&elements));
        match &a.moments {
            Moments::Wide { first, second } => {
                let moments = (&first.slice(at.clone()), &second.slice(at));
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
                    first_scale: &first_scale.slice(blocks(&at)),
                    second_scale: &second_scale.slice(blocks(&at)),
                    first: &first.slice(at.clone()),
                    second: &second.slice(at),
                    element: match elements.start.checked_sub(network.layout().matrices) {
                        Some(of_matrices) => of_matrices,
                        None => elements.start,
                    },
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
