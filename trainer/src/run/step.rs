//! One optimiser step: micro-batches, gradient norm, update.

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_engine::ops::elementwise::{all_finite, axpy, scale};
use onebit_engine::ops::quantize::{absmean, ternary_statistics, ternary_trits};
use onebit_model::config::{LinearMode, TensorKind};
use onebit_model::network::{Dropout, ForwardMode};

use super::metrics::{LayerMetrics, StepMetrics};
use super::{Batch, Trainer};
use crate::optimizer::{clip_scale, global_norm};
use crate::{Result, TrainError};

impl Trainer {
    /// Runs one optimiser step and returns what it measured.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss or a gradient is no finite number: the weights are then untouched.
    pub(super) fn step(&mut self) -> Result<StepMetrics> {
        let step = self.step;
        let anneal = self.quant.anneal(step);
        let (loss, gradients) = self.accumulate(step, anneal)?;
        let norm = global_norm(&gradients)?;
        if !norm.is_finite() {
            return Err(self.not_finite("gradient", self.bad_gradient(&gradients)?));
        }
        let lr = self.lr.at(step);
        let grad_scale = clip_scale(norm, self.options.grad_clip_max_norm);
        let last = step + 1 == self.total_steps;
        let logged = (step + 1).is_multiple_of(self.options.log_every) || last;
        let before = if logged { self.trits()? } else { Vec::new() };
        self.optimizer.step(
            &self.options,
            self.network.parameters_mut(),
            &gradients,
            (lr, grad_scale),
            step,
        )?;
        let layers = if logged {
            self.layer_metrics(&before)?
        } else {
            Vec::new()
        };
        self.step += 1;
        let windows = self.step * self.options.windows_per_step();
        Ok(StepMetrics {
            step: self.step,
            epoch: (windows - 1) / self.order.windows_per_epoch() + 1,
            tokens: self.step * self.options.tokens_per_step(),
            phase: self.quant.phase(step),
            anneal,
            precision: self.options.precision,
            loss,
            lr,
            grad_norm: norm,
            layers,
        })
    }

    /// Mean loss and mean gradients over the micro-batches; memory is that of one micro-batch and one set of gradients.
    fn accumulate(&self, step: u64, anneal: f32) -> Result<(f64, Vec<Tensor>)> {
        let micro_batches = self.options.accumulation_steps as u64;
        let mut total: Vec<Tensor> = Vec::new();
        let mut loss = 0.0;
        for micro in 0..micro_batches {
            let index = step * micro_batches + micro;
            let batch = self.batch(index)?;
            let dropout = (self.options.dropout > 0.0).then_some(Dropout {
                p: self.options.dropout,
                seed: self.options.seed,
                step: index,
            });
            let mode = ForwardMode {
                anneal,
                dropout,
                arithmetic: self.options.precision.arithmetic(self.network.device()),
            };
            let tape = Tape::new();
            let leaves = self.network.leaves(&tape);
            let (objective, losses) = self.network.loss(
                &leaves,
                (&batch.ids, &batch.targets),
                self.options.seq_len,
                mode,
                self.options.label_smoothing,
            )?;
            if !losses.smoothed.is_finite() {
                return Err(self.not_finite("loss", self.bad_layer(&batch, mode)?));
            }
            loss += losses.nll / micro_batches as f64;
            let mut gradients = tape.backward(&objective)?;
            let share = 1.0 / micro_batches as f32;
            for (i, leaf) in leaves.iter().enumerate() {
                let gradient = gradients
                    .take(leaf)
                    .unwrap_or_else(|| Tensor::zeros(leaf.tensor().device(), leaf.shape().clone()));
                match total.get_mut(i) {
                    Some(sum) => axpy(share, &gradient, sum)?,
                    None if micro_batches == 1 => total.push(gradient),
                    None => total.push(scale(share, &gradient)?),
                }
            }
        }
        Ok((loss, total))
    }

    /// The first part of the network whose output is not finite.
    fn bad_layer(&self, batch: &Batch, mode: ForwardMode) -> Result<String> {
        let tape = Tape::new();
        let mut first: Option<String> = None;
        tape.no_grad(|| {
            let leaves = self.network.leaves(&tape);
            self.network
                .forward_observed(&leaves, &batch.ids, self.options.seq_len, mode, &mut |name, value| {
                    if first.is_none() && !all_finite(value).unwrap_or(true) {
                        first = Some(name.to_string());
                    }
                })
        })?;
        Ok(first.unwrap_or_else(|| "the loss itself".into()))
    }

    /// The first parameter whose gradient is not finite.
    fn bad_gradient(&self, gradients: &[Tensor]) -> Result<String> {
        for (spec, gradient) in self.network.specs().iter().zip(gradients) {
            if !all_finite(gradient)? {
                return Ok(spec.name.clone());
            }
        }
        Ok("the global norm".into())
    }

    fn not_finite(&self, what: &'static str, place: String) -> TrainError {
        let checkpoint = match &self.last_checkpoint {
            Some(path) => path.display().to_string(),
            None => "none yet (see --save-every)".into(),
        };
        TrainError::NotFinite {
            step: self.step + 1,
            what,
            place,
            checkpoint,
        }
    }

    /// Trits of every ternary matrix.
    fn trits(&self) -> Result<Vec<Vec<i8>>> {
        self.ternary().map(|(_, t)| Ok(ternary_trits(t)?.0)).collect()
    }

    fn layer_metrics(&self, before: &[Vec<i8>]) -> Result<Vec<LayerMetrics>> {
        let mut layers = Vec::with_capacity(before.len());
        for ((name, weight), before) in self.ternary().zip(before) {
            let (trits, _) = ternary_trits(weight)?;
            let flipped = trits.iter().zip(before).filter(|(a, b)| a != b).count();
            let (zero, clip) = ternary_statistics(weight)?;
            let name = name
                .trim_start_matches("model.layers.")
                .trim_end_matches(".weight")
                .to_string();
            layers.push(LayerMetrics {
                name,
                zero,
                flip: flipped as f64 / trits.len() as f64,
                scale: absmean(weight)?,
                clip,
            });
        }
        Ok(layers)
    }

    fn ternary(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let all = self.network.specs().iter().zip(self.network.parameters());
        all.filter(|(s, _)| s.kind == TensorKind::Linear(LinearMode::Ternary))
            .map(|(s, t)| (s.name.as_str(), t))
    }
}
