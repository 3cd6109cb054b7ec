//! Optimisers over a network's parameters, by group.
//!
//! Norms, embedding and head are never decayed. With [`OptimizerKind::Muon`] the blocks' matrices are updated by Muon, all else by AdamW. With
//! [`OptimizerKind::AdamW8bit`] all moments are kept in 8 bits ([`onebit_engine::ops::adamw8bit`]), on the CPU as on a GPU, by the same formulas.

pub(crate) mod cuda;
mod muon;
mod sharded;
#[cfg(test)]
mod tests;

use onebit_engine::ops::adamw::{AdamWStep, adamw};
use onebit_engine::ops::adamw8bit::{BLOCK, Draw, EightBit, adamw8bit};
use onebit_engine::ops::elementwise::sum_squares;
use onebit_engine::{Device, Shape, Tensor};
use onebit_model::config::{TensorKind, TensorSpec};

use crate::Result;
use crate::checkpoint::{Stored, StoredMut, Values, ValuesMut};
use crate::options::{OptimizerKind, TrainOptions};

/// What the schedules say of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f32,
    /// Decoupled weight decay of the linear layers.
    pub weight_decay: f32,
}

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

/// Moments of one parameter.
#[derive(Clone, Debug)]
enum Moments {
    AdamW {
        first: Tensor,
        second: Tensor,
    },
    EightBit(EightBit),
    Muon(Tensor),
    /// Another rank has them.
    Elsewhere,
}

impl Moments {
    /// The bytes of all arrays.
    fn bytes_mut(&mut self) -> Result<Vec<&mut [u8]>> {
        Ok(match self {
            Moments::AdamW { first, second } => vec![
                bytemuck::cast_slice_mut(first.f32_mut()?),
                bytemuck::cast_slice_mut(second.f32_mut()?),
            ],
            Moments::EightBit(m) => vec![
                bytemuck::cast_slice_mut(&mut m.first),
                &mut m.second,
                bytemuck::cast_slice_mut(&mut m.first_scale),
                bytemuck::cast_slice_mut(&mut m.second_scale),
            ],
            Moments::Muon(momentum) => vec![bytemuck::cast_slice_mut(momentum.f32_mut()?)],
            Moments::Elsewhere => Vec::new(),
        })
    }
}

/// A parameter.
#[derive(Clone, Debug)]
struct Slot {
    group: Group,
    /// Whether its moments have 8 bits.
    eight_bit: bool,
    device: Device,
    shape: Shape,
    /// The number of its first element, for what is drawn. The blocks' matrices are counted by themselves, because a GPU has them behind all else.
    element: u32,
    /// Which rank has the moments, if they are divided.
    owner: Option<usize>,
}

impl Slot {
    /// Moments at the beginning of a run, on rank `rank`.
    fn begin(&self, rank: usize) -> Moments {
        match self.owner {
            Some(owner) if owner != rank => Moments::Elsewhere,
            _ => self.zeros(),
        }
    }

    fn zeros(&self) -> Moments {
        let zeros = || Tensor::zeros(self.device, self.shape.clone());
        match self.group {
            Group::Muon => Moments::Muon(zeros()),
            _ if self.eight_bit => Moments::EightBit(EightBit::zeros(self.shape.elements())),
            _ => Moments::AdamW {
                first: zeros(),
                second: zeros(),
            },
        }
    }
}

/// Moments of every parameter.
#[derive(Clone, Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    /// Which rank this is, where moments are divided among them.
    rank: usize,
    /// Of each parameter, or nothing as long as all are zero: a run on a GPU has them here only while it saves them.
    moments: Vec<Moments>,
}

impl Optimizer {
    /// Zero moments for `parameters`, described by `specs`. They take no memory until they are needed.
    pub fn new(kind: OptimizerKind, specs: &[TensorSpec], parameters: &[Tensor]) -> Self {
        let (mut of_matrices, mut of_others) = (0u32, 0u32);
        let slots = specs.iter().zip(parameters).map(|(spec, tensor)| {
            let next = match spec.kind {
                TensorKind::Linear(_) => &mut of_matrices,
                _ => &mut of_others,
            };
            let element = *next;
            *next = element.wrapping_add(tensor.len().next_multiple_of(BLOCK) as u32);
            Slot {
                group: match (spec.kind, kind) {
                    (TensorKind::Linear(_), OptimizerKind::Muon) => Group::Muon,
                    (TensorKind::Linear(_), _) => Group::Decayed,
                    _ => Group::Plain,
                },
                eight_bit: kind == OptimizerKind::AdamW8bit,
                device: tensor.device(),
                shape: tensor.shape().clone(),
                element,
                owner: None,
            }
        });
        Optimizer {
            slots: slots.collect(),
            rank: 0,
            moments: Vec::new(),
        }
    }

    /// The moments, made if there are none yet.
    fn moments_mut(&mut self) -> &mut [Moments] {
        if self.moments.is_empty() {
            self.moments = self.slots.iter().map(|slot| slot.begin(self.rank)).collect();
        }
        &mut self.moments
    }

    /// Frees the moments, which a GPU has; they are zero from here on.
    pub(crate) fn release(&mut self) {
        self.moments = Vec::new();
    }

    /// The moments, which are zero here from now on.
    pub(crate) fn take(&mut self) -> Self {
        Optimizer {
            slots: self.slots.clone(),
            rank: self.rank,
            moments: std::mem::take(&mut self.moments),
        }
    }

    /// One update of `parameters` from `gradients`, of those whose moments are here; `step` counts from 0. Gradients are multiplied by `grad_scale` first.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn step(
        &mut self,
        options: &TrainOptions,
        parameters: &mut [Tensor],
        gradients: &[Tensor],
        (rates, grad_scale): (Rates, f32),
        step: u64,
    ) -> Result<()> {
        let correction = |beta: f32| (1.0 - f64::from(beta).powf((step + 1) as f64)) as f32;
        let adam = AdamWStep {
            lr: rates.lr,
            beta1: options.beta1,
            beta2: options.beta2,
            eps: options.adam_eps,
            weight_decay: 0.0,
            bias_correction1: correction(options.beta1),
            bias_correction2: correction(options.beta2),
            grad_scale,
        };
        self.moments_mut();
        let state = self.slots.iter().zip(&mut self.moments);
        for ((parameter, gradient), (slot, moments)) in parameters.iter_mut().zip(gradients).zip(state) {
            let weight_decay = if slot.group == Group::Plain {
                0.0
            } else {
                rates.weight_decay
            };
            let numbers = AdamWStep { weight_decay, ..adam };
            match moments {
                Moments::AdamW { first, second } => adamw(&numbers, parameter, gradient, first, second)?,
                Moments::EightBit(moments) => {
                    let draw = Draw {
                        step: step as u32,
                        element: slot.element,
                    };
                    adamw8bit(&numbers, draw, parameter, gradient, moments)?;
                }
                Moments::Muon(momentum) => {
                    muon::step((rates.lr, weight_decay, grad_scale), parameter, gradient, momentum)?;
                }
                Moments::Elsewhere => {}
            }
        }
        Ok(())
    }

    /// The moments that this rank has, for a checkpoint: `first.NAME` and `second.NAME`, in f32, or i8 and u8 with their scales `first_scale.NAME` and `second_scale.NAME`.
    ///
    /// # Errors
    /// None in practice: moments are what they were made.
    pub fn state(&mut self, specs: &[TensorSpec]) -> Result<Vec<Stored<'_>>> {
        self.moments_mut();
        let mut all = Vec::new();
        for (spec, moments) in specs.iter().zip(&self.moments) {
            let whole = || spec.shape.clone();
            let mut push = |what: &str, shape, values| {
                let name = format!("{what}.{}", spec.name);
                all.push(Stored { name, shape, values });
            };
            match moments {
                Moments::AdamW { first, second } => {
                    push("first", whole(), Values::F32(first.f32()?));
                    push("second", whole(), Values::F32(second.f32()?));
                }
                Moments::EightBit(m) => {
                    let blocks = || vec![m.first_scale.len()];
                    push("first", whole(), Values::I8(&m.first));
                    push("second", whole(), Values::U8(&m.second));
                    push("first_scale", blocks(), Values::F32(&m.first_scale));
                    push("second_scale", blocks(), Values::F32(&m.second_scale));
                }
                Moments::Muon(momentum) => push("first", whole(), Values::F32(momentum.f32()?)),
                Moments::Elsewhere => {}
            }
        }
        Ok(all)
    }

    /// The moments that this rank has, to be filled from a checkpoint.
    ///
    /// # Errors
    /// None in practice: moments are what they were made.
    pub fn state_mut(&mut self, specs: &[TensorSpec]) -> Result<Vec<StoredMut<'_>>> {
        let mut all = Vec::new();
        for (spec, moments) in specs.iter().zip(self.moments_mut()) {
            let whole = || spec.shape.clone();
            let mut push = |what: &str, shape, values| {
                let name = format!("{what}.{}", spec.name);
                all.push(StoredMut { name, shape, values });
            };
            match moments {
                Moments::AdamW { first, second } => {
                    push("first", whole(), ValuesMut::F32(first.f32_mut()?));
                    push("second", whole(), ValuesMut::F32(second.f32_mut()?));
                }
                Moments::EightBit(m) => {
                    let blocks = m.first_scale.len();
                    push("first", whole(), ValuesMut::I8(&mut m.first));
                    push("second", whole(), ValuesMut::U8(&mut m.second));
                    push("first_scale", vec![blocks], ValuesMut::F32(&mut m.first_scale));
                    push("second_scale", vec![blocks], ValuesMut::F32(&mut m.second_scale));
                }
                Moments::Muon(momentum) => push("first", whole(), ValuesMut::F32(momentum.f32_mut()?)),
                Moments::Elsewhere => {}
            }
        }
        Ok(all)
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
