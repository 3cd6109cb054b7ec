//! One optimiser step: micro-batches, gradient norm, update.

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_engine::ops::elementwise::{all_finite, axpy, scale};
use onebit_engine::ops::quantize::{absmean, ternary_statistics, ternary_trits};
use onebit_model::config::{LinearMode, TensorKind};
use onebit_model::network::{Dropout, ForwardMode};

use super::cuda::StepResult;
use super::metrics::{LayerMetrics, StepMetrics};
use super::{Batch, Trainer};
use crate::optimizer::{clip_scale, global_norm};
use crate::{Result, TrainError};

impl Trainer {
    /// Takes one optimiser step and returns what it measured; on a GPU, where the host runs ahead, what an earlier one did, if that is known by now.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss or a gradient is no finite number: the weights are then untouched.
    pub(super) fn step(&mut self) -> Result<Option<StepMetrics>> {
        if self.cuda.is_some() {
            return self.launch();
        }
        let step = self.step;
        let anneal = self.quant.anneal(step);
        let (loss, gradients) = self.accumulate(step, anneal)?;
        let norm = global_norm(&gradients)?;
        if !norm.is_finite() {
            return Err(self.not_finite("gradient", self.bad_gradient(&gradients)?));
        }
        let lr = self.lr.at(step);
        let grad_scale = clip_scale(norm, self.options.grad_clip_max_norm);
        let logged = self.is_logged(step);
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
        Ok(Some(self.step_metrics(step, loss, norm, layers)))
    }

    /// Whether the metrics of step `step` (counted from 0) tell of the matrices.
    fn is_logged(&self, step: u64) -> bool {
        (step + 1).is_multiple_of(self.options.log_every) || step + 1 == self.total_steps
    }

    fn step_metrics(&self, step: u64, loss: f64, grad_norm: f64, layers: Vec<LayerMetrics>) -> StepMetrics {
        let done = step + 1;
        let windows = done * self.options.windows_per_step();
        StepMetrics {
            step: done,
            epoch: (windows - 1) / self.order.windows_per_epoch() + 1,
            tokens: done * self.options.tokens_per_step(),
            phase: self.quant.phase(step),
            anneal: self.quant.anneal(step),
            precision: self.options.precision,
            loss,
            lr: self.lr.at(step),
            grad_norm,
            layers,
        }
    }

    /// Launches a step on the GPU.
    fn launch(&mut self) -> Result<Option<StepMetrics>> {
        let step = self.step;
        let Some(mut cuda) = self.cuda.take() else {
            return Ok(None);
        };
        let micro_batches = self.options.accumulation_steps as u64;
        let batches = (step * micro_batches..(step + 1) * micro_batches).map(|index| {
            let (ids, targets) = self.batch_ids(index)?;
            Ok((index, ids, targets))
        });
        let numbers = (step, self.lr.at(step), self.quant.anneal(step));
        let told = cuda.launch(&self.options, numbers, batches, self.is_logged(step));
        self.cuda = Some(cuda);
        self.step += 1;
        self.told(told)
    }

    /// What the oldest step that is still under way on the GPU measured, if there is one.
    pub(super) fn collect(&mut self) -> Result<Option<StepMetrics>> {
        let told = match &mut self.cuda {
            Some(cuda) => cuda.collect(),
            None => return Ok(None),
        };
        self.told(told)
    }

    fn told(&mut self, told: Result<Option<StepResult>>) -> Result<Option<StepMetrics>> {
        match told {
            Ok(told) => Ok(told.map(|t| self.step_metrics(t.step, t.loss, t.grad_norm, t.layers))),
            Err(TrainError::StoppedOnGpu { step, loss_is_finite }) => {
                // Nothing was changed from that step on.
                self.step = step;
                let place = self.bad_place(step)?;
                let what = if loss_is_finite { "gradient" } else { "loss" };
                Err(self.not_finite(what, place))
            }
            Err(error) => Err(error),
        }
    }

    /// Where on the GPU step `step` meets a number that is not finite.
    fn bad_place(&mut self, step: u64) -> Result<String> {
        let micro_batches = self.options.accumulation_steps as u64;
        let Some(mut cuda) = self.cuda.take() else {
            return Ok(String::new());
        };
        let mut place = None;
        for index in step * micro_batches..(step + 1) * micro_batches {
            let (ids, targets) = self.batch_ids(index)?;
            place = cuda.not_finite_in((index, &ids, &targets), self.quant.anneal(step))?;
            if place.is_some() {
                break;
            }
        }
        self.cuda = Some(cuda);
        Ok(place.unwrap_or_else(|| "the global norm".into()))
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
            layers.push(LayerMetrics {
                name: LayerMetrics::short_name(name),
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
