//! Optimisers over a network's parameters, by group.
//!
//! Norms, embedding and head are never decayed. With [`OptimizerKind::Muon`] the blocks' matrices are updated by Muon, all else by AdamW.

pub(crate) mod cuda;
mod muon;
#[cfg(test)]
mod tests;

use onebit_engine::Tensor;
use onebit_engine::ops::adamw::{AdamWStep, adamw};
use onebit_engine::ops::elementwise::sum_squares;
use onebit_model::config::{TensorKind, TensorSpec};

use crate::Result;
use crate::options::{OptimizerKind, TrainOptions};

/// What is done to one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// AdamW with weight decay.
    Decayed,
    /// AdamW without: norms, embedding, head.
    Plain,
    /// Muon with weight decay.
    Muon,
}

/// Moments of every parameter.
#[derive(Clone, Debug)]
pub struct Optimizer {
    groups: Vec<Group>,
    first: Vec<Tensor>,
    /// Second moments; Muon has none.
    second: Vec<Option<Tensor>>,
}

impl Optimizer {
    /// Zero moments for `parameters`, described by `specs`.
    pub fn new(kind: OptimizerKind, specs: &[TensorSpec], parameters: &[Tensor]) -> Self {
        let zeros = |t: &Tensor| Tensor::zeros(t.device(), t.shape().clone());
        let groups: Vec<Group> = specs
            .iter()
            .map(|spec| match (spec.kind, kind) {
                (TensorKind::Linear(_), OptimizerKind::AdamW) => Group::Decayed,
                (TensorKind::Linear(_), OptimizerKind::Muon) => Group::Muon,
                _ => Group::Plain,
            })
            .collect();
        let second = groups
            .iter()
            .zip(parameters)
            .map(|(g, t)| (*g != Group::Muon).then(|| zeros(t)))
            .collect();
        Optimizer {
            groups,
            first: parameters.iter().map(zeros).collect(),
            second,
        }
    }

    /// One update of `parameters` from `gradients`, at rate `lr`; `step` counts from 0. Gradients are multiplied by `grad_scale` first.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn step(
        &mut self,
        options: &TrainOptions,
        parameters: &mut [Tensor],
        gradients: &[Tensor],
        (lr, grad_scale): (f32, f32),
        step: u64,
    ) -> Result<()> {
        let correction = |beta: f32| (1.0 - f64::from(beta).powf((step + 1) as f64)) as f32;
        let adam = AdamWStep {
            lr,
            beta1: options.beta1,
            beta2: options.beta2,
            eps: options.adam_eps,
            weight_decay: 0.0,
            bias_correction1: correction(options.beta1),
            bias_correction2: correction(options.beta2),
            grad_scale,
        };
        for (i, parameter) in parameters.iter_mut().enumerate() {
            let weight_decay = if self.groups[i] == Group::Plain {
                0.0
            } else {
                options.weight_decay
            };
            match &mut self.second[i] {
                Some(second) => adamw(
                    &AdamWStep { weight_decay, ..adam },
                    parameter,
                    &gradients[i],
                    &mut self.first[i],
                    second,
                )?,
                None => muon::step(
                    (lr, weight_decay, grad_scale),
                    parameter,
                    &gradients[i],
                    &mut self.first[i],
                )?,
            }
        }
        Ok(())
    }

    /// The moments with their names, for a checkpoint: `first.NAME` and `second.NAME`.
    pub fn state<'a>(&'a self, specs: &'a [TensorSpec]) -> impl Iterator<Item = (String, &'a Tensor)> {
        let first = specs
            .iter()
            .zip(&self.first)
            .map(|(s, t)| (format!("first.{}", s.name), t));
        let second = specs
            .iter()
            .zip(&self.second)
            .filter_map(|(s, t)| Some((format!("second.{}", s.name), t.as_ref()?)));
        first.chain(second)
    }

    /// The moments, to be filled from a checkpoint.
    pub fn state_mut<'a>(&'a mut self, specs: &'a [TensorSpec]) -> impl Iterator<Item = (String, &'a mut Tensor)> {
        let first = specs
            .iter()
            .zip(&mut self.first)
            .map(|(s, t)| (format!("first.{}", s.name), t));
        let second = specs
            .iter()
            .zip(&mut self.second)
            .filter_map(|(s, t)| Some((format!("second.{}", s.name), t.as_mut()?)));
        first.chain(second)
    }

    /// Bytes of the moments.
    pub fn bytes(&self) -> u64 {
        let elements = self.first.iter().chain(self.second.iter().flatten()).map(Tensor::len);
        4 * elements.sum::<usize>() as u64
    }
}

/// Global L2 norm of all gradients, summed in parameter order.
///
/// # Errors
/// None in practice: gradients are f32.
pub fn global_norm(gradients: &[Tensor]) -> Result<f64> {
    let mut total = 0.0;
    for g in gradients {
        total += sum_squares(g)?;
    }
    Ok(total.sqrt())
}

/// Factor that brings a global norm down to `max_norm`; 1 if it is below, or if `max_norm` is 0.
pub fn clip_scale(norm: f64, max_norm: f32) -> f32 {
    if max_norm > 0.0 && norm > f64::from(max_norm) {
        (f64::from(max_norm) / norm) as f32
    } else {
        1.0
    }
}
