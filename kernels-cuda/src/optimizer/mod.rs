//! The optimiser over arenas: all parameters, all gradients and each moment lie in one array, tensor after tensor, each beginning at a multiple of
//! [`BLOCK`] elements. What lies between tensors has zero gradients.
//!
//! A step is [`global_norm`], then [`adamw`] or [`adamw8bit`] (or, for the matrices that Muon has, the pieces of [`muon`] between its matrix products).
//! Nothing that changes from step to step is a launch parameter: the host writes [`StepScalars`] before it, and the norm, the clipping and whether all
//! is finite are the [`Guard`], which stays on the GPU. A step whose norm or loss is not finite changes no weight and no moment; after so many in a row no step does until
//! the host resets the guard: it may look as late as it likes, and finds the weights of before those steps.
//!
//! An update may be given a part of the arenas, in whole blocks: with Muon, AdamW has the part in which Muon's matrices are not; and where ranks divide the arenas, each has its slices.
//! [`adamw`] does to an element what it would in the whole; so does [`adamw8bit`], which is told the number of the first. The norm of divided gradients is
//! [`sum_of_squares`] on every rank and [`norm_of_sums`] of what all have found.
//!
//! Bytes a parameter: norm 4; AdamW 28; AdamW with 8-bit moments 16. With bf16 gradients 2 less each.

mod adamw;
mod adamw8bit;
pub mod muon;
mod norm;
#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Launch, Result, need};

pub use adamw::{AdamW, adamw, zero};
pub use adamw8bit::{EightBitMoments, adamw8bit};
pub use norm::{NORM_PARTIALS, global_norm, norm_of_sums, sum_of_squares};

/// Elements that share a flag of decay, and a scale of 8-bit moments; tensors begin at a multiple of it in their arena.
pub const BLOCK: usize = 256;

/// `u32` words of [`StepScalars`] in device memory.
pub const STEP_WORDS: usize = 8;

/// `u32` words of a [`Guard`] in device memory.
pub const GUARD_WORDS: usize = 4;

/// The numbers of a step, computed on the host as kernels-cpu does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScalars {
    /// Counts from 0.
    pub step: u32,
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay, for what is decayed.
    pub weight_decay: f32,
    /// `1 − beta1^(step + 1)`.
    pub bias_correction1: f32,
    /// `1 − beta2^(step + 1)`.
    pub bias_correction2: f32,
    /// Steps in a row that are not finite after which no step changes anything.
    pub limit: u32,
}

impl StepScalars {
    /// Those of step `step`, which counts from 0; the run stops at the first that is not finite.
    pub fn new(step: u32, lr: f32, weight_decay: f32, beta1: f32, beta2: f32) -> Self {
        let correction = |beta: f32| (1.0 - f64::from(beta).powf(f64::from(step) + 1.0)) as f32;
        StepScalars {
            step,
            lr,
            weight_decay,
            bias_correction1: correction(beta1),
            bias_correction2: correction(beta2),
            limit: 1,
        }
    }

    /// What the kernels read, as an array of `u32` `[STEP_WORDS]` has it.
    pub fn words(&self) -> [u32; STEP_WORDS] {
        let step_size = self.lr / self.bias_correction1;
        let root_scale = (1.0 / f64::from(self.bias_correction2).sqrt()) as f32;
        let keep = (1.0 - f64::from(self.lr) * f64::from(self.weight_decay)) as f32;
        let [lr, step_size, root_scale, keep] = [self.lr, step_size, root_scale, keep].map(f32::to_bits);
        [self.step, lr, step_size, root_scale, keep, self.limit, 0, 0]
    }
}

/// What [`global_norm`] has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// L2 norm of all gradients, before clipping.
    pub norm: f32,
    /// What the optimiser multiplies gradients by.
    pub scale: f32,
    /// Whether the step changes anything: its norm and losses are finite, and the limit has not been reached.
    pub applies: bool,
    /// Steps up to this one, one after the other, that did not.
    pub in_a_row: u32,
}

impl Guard {
    /// The words `[GUARD_WORDS]` of a guard that has seen nothing but `in_a_row` steps that were not finite: written before the first step, and to reset it.
    pub const fn words(in_a_row: u32) -> [u32; GUARD_WORDS] {
        [0, 0x3f80_0000, 1, in_a_row]
    }

    /// From its words in device memory.
    pub fn from_words([norm, scale, applies, in_a_row]: [u32; GUARD_WORDS]) -> Self {
        Guard {
            norm: f32::from_bits(norm),
            scale: f32::from_bits(scale),
            applies: applies != 0,
            in_a_row,
        }
    }
}

/// An arena of gradients.
#[derive(Clone, Copy, Debug)]
pub enum Gradients<'a> {
    /// In f32.
    F32(&'a DeviceArray<f32>),
    /// In bf16.
    Bf16(&'a DeviceArray<bf16>),
}

impl Gradients<'_> {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Gradients::F32(g) => g.len(),
            Gradients::Bf16(g) => g.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn address(&self) -> u64 {
        match self {
            Gradients::F32(g) => g.address(),
            Gradients::Bf16(g) => g.address(),
        }
    }

    fn argument<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        match self {
            Gradients::F32(g) => launch.array(g),
            Gradients::Bf16(g) => launch.array(g),
        }
    }
}

/// Checks that an arena is whole blocks, no more than a grid has threads for, at an address for 16-byte accesses.
fn check_arena(op: &'static str, len: usize, address: u64) -> Result<()> {
    if len.is_multiple_of(BLOCK) && len / BLOCK <= i32::MAX as usize && address.is_multiple_of(16) {
        Ok(())
    } else {
        Err(CudaError::shape(
            op,
            format!("a multiple of {BLOCK} elements at 16 bytes"),
            len,
        ))
    }
}

/// Checks the two arrays that every step has.
fn check_step(op: &'static str, scalars: &DeviceArray<u32>, guard: &DeviceArray<u32>) -> Result<()> {
    need(op, "scalars", STEP_WORDS, scalars.len())?;
    need(op, "guard", GUARD_WORDS, guard.len())
}
