//! What a weight matrix is in a phase.
//!
//! ```text
//! a ≤ 0, full   W itself, no copy
//! 0 < a < 1     ternary: (1−a)·W + a·γ·S(W/γ), the staircase of `onebit_kernels_cpu::quantize`; others (1−a)·W + a·hard
//! a ≥ 1         hard: the numbers of the precision times their scale, as inference has them, rounded to f32 once; ternary also packed
//! ```
//! Cost: a pass over the weights, 8 bytes each; int4 tries nine steps for each group and is bound by arithmetic.

use std::sync::Arc;

use onebit_kernels_cpu::{quantize as kernel, t2};
use rayon::prelude::*;

use super::super::elementwise::{axpy, scale};
use super::{Precision, absmean, groups, trits_of};
use crate::buffer::Buffer;
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// A weight matrix as the forward and the backward of one step see it. A clone shares its memory.
#[derive(Clone, Debug)]
pub struct EffectiveWeight {
    /// The values used, `[rows, cols]` f32.
    pub dense: Tensor,
    /// In the hard ternary phase, the packed form that the integer product reads, and its scale γ.
    packed: Option<(Arc<Buffer<u8>>, f32)>,
}

impl EffectiveWeight {
    /// The weight `w` `[rows, cols]` at annealing value `anneal`: 0 is full precision, 1 is hard, between the two the soft
    /// form, which meets both ends.
    ///
    /// # Errors
    /// Elements that are not f32.
    pub fn new(w: &Tensor, precision: Precision, anneal: f32) -> Result<Self> {
        if precision == Precision::Full || anneal <= 0.0 {
            return Ok(EffectiveWeight {
                dense: w.clone(),
                packed: None,
            });
        }
        if precision == Precision::Ternary {
            return if anneal < 1.0 {
                Self::soft_ternary(w, anneal)
            } else {
                Self::hard_ternary(w)
            };
        }
        let hard = match precision {
            Precision::Binary => binary(w)?,
            Precision::Int8 => row_integers(w)?,
            _ => groups::integers(w)?,
        };
        if anneal >= 1.0 {
            return Ok(EffectiveWeight {
                dense: hard,
                packed: None,
            });
        }
        let mut dense = scale(1.0 - anneal, w)?;
        axpy(anneal, &hard, &mut dense)?;
        Ok(EffectiveWeight { dense, packed: None })
    }

    fn soft_ternary(w: &Tensor, anneal: f32) -> Result<Self> {
        let gamma = absmean(w)?;
        let isa = w.device().isa();
        let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
        let data = w.f32()?;
        over_rows(dense.f32_mut()?, 1, |i, out| {
            kernel::soft_ternary(isa, &data[i..i + out.len()], gamma, anneal, out)
        });
        Ok(EffectiveWeight { dense, packed: None })
    }

    fn hard_ternary(w: &Tensor) -> Result<Self> {
        let (rows, cols) = (w.shape().rows(), w.shape().last());
        let (trits, gamma) = trits_of(w)?;
        let mut packed = Buffer::<u8>::for_overwrite(t2::bytes(rows, cols));
        let group = t2::group_bytes(cols).max(1);
        packed.par_chunks_mut(group).enumerate().for_each(|(g, bytes)| {
            let these = 4.min(rows - 4 * g);
            t2::pack(&trits[4 * g * cols..(4 * g + these) * cols], these, cols, bytes);
        });
        let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
        over_rows(dense.f32_mut()?, 1, |i, out| {
            for (d, &t) in out.iter_mut().zip(&trits[i..]) {
                *d = f32::from(t) * gamma;
            }
        });
        Ok(EffectiveWeight {
            dense,
            packed: Some((Arc::new(packed), gamma)),
        })
    }

    /// The packed ternary form and γ, in the hard ternary phase.
    pub fn packed(&self) -> Option<(&[u8], f32)> {
        self.packed.as_ref().map(|(bytes, gamma)| (&***bytes, *gamma))
    }
}

/// `±γ`.
fn binary(w: &Tensor) -> Result<Tensor> {
    let gamma = absmean(w)?;
    let isa = w.device().isa();
    let data = w.f32()?;
    let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
    over_rows(dense.f32_mut()?, 1, |i, out| {
        let mut signs = vec![0i8; out.len()];
        kernel::binary_i8(isa, &data[i..i + out.len()], &mut signs);
        for (d, &s) in out.iter_mut().zip(&signs) {
            *d = f32::from(s) * gamma;
        }
    });
    Ok(dense)
}

/// int8: `q · step`, a step for each row.
fn row_integers(w: &Tensor) -> Result<Tensor> {
    let cols = w.shape().last();
    let isa = w.device().isa();
    let data = w.f32()?;
    let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
    over_rows(dense.f32_mut()?, cols, |first, out| {
        let (mut integers, mut step) = (vec![0i8; cols], [0.0]);
        for (r, out) in out.chunks_exact_mut(cols).enumerate() {
            let row = &data[(first + r) * cols..][..cols];
            kernel::int8_rowwise(isa, row, cols, &mut integers, &mut step);
            for (d, &q) in out.iter_mut().zip(&integers) {
                *d = f32::from(q) * step[0];
            }
        }
    });
    Ok(dense)
}
