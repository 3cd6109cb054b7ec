//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019), one pass over memory.
//!
//! ```text
//! g ← grad_scale·g
//! m ← β₁·m + (1 − β₁)·g          v ← β₂·v + (1 − β₂)·g²
//! p ← (1 − lr·weight_decay)·p − lr · (m / bias_correction1) / (√(v / bias_correction2) + eps)
//! ```
//! with `bias_correction = 1 − β^t` at step `t = 1, 2, …`. The decay does not pass through the moments. Cost: 16 bytes
//! read and 12 written a parameter, one division and one square root: bound by memory.

use crate::isa::Isa;
use crate::math::sqrt_f64;

#[cfg(test)]
mod tests;

/// The numbers of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the mean of gradients, in `[0, 1)`.
    pub beta1: f32,
    /// Decay of the mean of squared gradients, in `[0, 1)`.
    pub beta2: f32,
    /// Added to the root, against division by zero.
    pub eps: f32,
    /// Decoupled weight decay; 0 for parameters without decay.
    pub weight_decay: f32,
    /// `1 − beta1^t`.
    pub bias_correction1: f32,
    /// `1 − beta2^t`.
    pub bias_correction2: f32,
    /// Multiplies the gradient first: 1 / loss scale / accumulation steps, times the clipping factor.
    pub grad_scale: f32,
}

/// One AdamW step on parameters `p` with gradients `g` and moments `m` and `v`, all of one length.
///
/// # Panics
/// If the lengths differ.
pub fn adamw(isa: Isa, step: &AdamWStep, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    pass::adamw_pass(isa, &Factors::of(step), g, p, m, v);
}

/// A step's numbers, arranged so that a parameter takes one division and one square root.
pub(crate) struct Factors {
    pub keep: f32,
    pub step_size: f32,
    pub root_scale: f32,
    pub eps: f32,
    pub beta1: f32,
    pub rest1: f32,
    pub beta2: f32,
    pub rest2: f32,
    pub grad_scale: f32,
}

impl Factors {
    pub(crate) fn of(step: &AdamWStep) -> Self {
        Factors {
            keep: (1.0 - f64::from(step.lr) * f64::from(step.weight_decay)) as f32,
            step_size: step.lr / step.bias_correction1,
            root_scale: (1.0 / sqrt_f64(f64::from(step.bias_correction2))) as f32,
            eps: step.eps,
            beta1: step.beta1,
            rest1: 1.0 - step.beta1,
            beta2: step.beta2,
            rest2: 1.0 - step.beta2,
            grad_scale: step.grad_scale,
        }
    }
}

mod pass {
    use super::Factors;
    use crate::elementwise::pointwise;

    pointwise! {
        pub fn adamw_pass/adamw_body(s; f: &Factors; g; p, m, v) {
            let g = s.mul(g, s.splat(f.grad_scale));
            let m = s.fma(s.splat(f.beta1), m, s.mul(s.splat(f.rest1), g));
            let v = s.fma(s.splat(f.beta2), v, s.mul(s.splat(f.rest2), s.mul(g, g)));
            let denominator = s.fma(s.sqrt(v), s.splat(f.root_scale), s.splat(f.eps));
            let kept = s.mul(p, s.splat(f.keep));
            [s.fnma(s.splat(f.step_size), s.div(m, denominator), kept), m, v]
        }
    }
}
