//! One optimiser step: micro-batches, gradient norm, update.

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_engine::ops::cross_entropy::Likely;
use onebit_engine::ops::elementwise::{all_finite, axpy, scale};
use onebit_engine::ops::quantize::{absmean, ternary_statistics, ternary_trits};
use onebit_model::config::{LinearMode, TensorKind};
use onebit_model::network::{Dropout, ForwardMode, Network};

use super::Trainer;
use super::cuda::{CudaRun, StepResult};
use super::metrics::{LayerMetrics, StepMetrics};
use crate::Result;
use crate::optimizer::{Rates, clip_scale, global_norm};

/// What the micro-batches of a step gave.
pub(super) enum Accumulated {
    /// The losses of the micro-batches, each by its share of the step, and their sum's gradients.
    Gradients(Vec<f64>, Vec<Tensor>),
    /// The loss of the micro-batch of this index is not finite.
    BadLoss { index: u64 },
}

/// What of a step is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Loss,
    Gradient,
}

impl Bad {
    pub(super) fn name(self) -> &'static str {
        match self {
            Bad::Loss => "loss",
            Bad::Gradient => "gradient",
        }
    }
}

impl Trainer {
    /// Takes one optimiser step and returns what it measured; on a GPU, where the host runs ahead, what an earlier one did, if that is known by now. A step whose loss or
    /// gradient is not finite changes nothing, and says so.
    ///
    /// # Errors
    /// A tensor operation's, the GPU's, the data's.
    pub(super) fn step(&mut self) -> Result<Option<StepMetrics>> {
        if self.cuda.is_some() {
            return self.launch();
        }
        let step = self.step;
        self.step += 1;
        let accumulated = self.accumulate(step)?;
        let (loss, gradients) = match self.over_ranks(accumulated)? {
            Accumulated::Gradients(losses, gradients) => (losses.iter().sum::<f64>(), gradients),
            Accumulated::BadLoss { .. } => {
                return Ok(Some(self.step_metrics(
                    step,
                    f64::NAN,
                    f64::NAN,
                    Some(Bad::Loss),
                    Vec::new(),
                )));
            }
        };
        let norm = global_norm(&gradients)?;
        if !norm.is_finite() {
            return Ok(Some(self.step_metrics(
                step,
                loss,
                norm,
                Some(Bad::Gradient),
                Vec::new(),
            )));
        }
        let rates = self.rates(step);
        let grad_scale = clip_scale(norm, self.options.grad_clip_max_norm);
        let logged = self.is_logged(step);
        let before = if logged { self.trits()? } else { Vec::new() };
        self.optimizer.step(
            &self.options,
            self.network.parameters_mut(),
            &gradients,
            (rates, grad_scale),
            step,
        )?;
        self.optimizer
            .share_parameters(&self.world, self.network.parameters_mut())?;
        let layers = if logged {
            self.layer_metrics(&before)?
        } else {
            Vec::new()
        };
        Ok(Some(self.step_metrics(step, loss, norm, None, layers)))
    }

    /// Whether the metrics of step `step` (counted from 0) tell of the matrices.
    fn is_logged(&self, step: u64) -> bool {
        (step + 1).is_multiple_of(self.options.log_every) || step + 1 == self.total_steps
    }

    fn step_metrics(
        &self,
        step: u64,
        loss: f64,
        grad_norm: f64,
        bad: Option<Bad>,
        layers: Vec<LayerMetrics>,
    ) -> StepMetrics {
        let done = step + 1;
        let windows = self.first_window(done).max(1);
        StepMetrics {
            step: done,
            epoch: self.source.epoch(windows - 1),
            tokens: done * self.options.tokens_per_step(),
            phase: self.quant.phase(step),
            anneal: self.quant.anneal(step),
            precision: self.options.precision,
            loss,
            skipped: bad.map(Bad::name),
            lr: self.lr.at(step),
            grad_norm,
            layers,
        }
    }

    /// Number of the first micro-batch of step `step`, counted over the whole run.
    fn first_micro_batch(&self, step: u64) -> u64 {
        step * self.options.micro_batches_per_step() as u64 + self.guard.data_offset
    }

    /// Number of the first window of step `step`, counted over the whole run.
    pub(super) fn first_window(&self, step: u64) -> u64 {
        self.first_micro_batch(step) * self.options.batch_size as u64
    }

    /// Those of step `step` that this rank takes.
    fn micro_batches(&self, step: u64) -> impl Iterator<Item = u64> + use<> {
        let all = self.first_micro_batch(step)..self.first_micro_batch(step + 1);
        all.skip(self.world.rank()).step_by(self.world.size())
    }

    /// Launches a step on the GPU.
    fn launch(&mut self) -> Result<Option<StepMetrics>> {
        let step = self.step;
        let Some(mut cuda) = self.cuda.take() else {
            return Ok(None);
        };
        let batches = self.micro_batches(step).map(|index| {
            let (ids, targets) = self.batch_ids(index)?;
            Ok((index, ids, targets))
        });
        let numbers = (step, self.rates(step), self.quant.anneal(step));
        let said = (self.is_logged(step), self.asked.here);
        let told = cuda.launch(&self.options, numbers, batches, said);
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
        Ok(told?.map(|t| {
            self.asked.anywhere |= t.stop;
            let bad = if t.loss.is_finite() { Bad::Gradient } else { Bad::Loss };
            self.step_metrics(t.step, t.loss, t.grad_norm, t.skipped.then_some(bad), t.layers)
        }))
    }

    /// Where step `step` meets a number that is not finite, with the weights as they are.
    pub(super) fn bad_place(&mut self, step: u64) -> Result<String> {
        let (place, index) = match self.cuda.take() {
            Some(mut cuda) => {
                let place = self.bad_place_on_gpu(&mut cuda, step);
                self.cuda = Some(cuda);
                (place?, None)
            }
            None => match self.accumulate(step)? {
                Accumulated::BadLoss { index } => (Some(self.bad_layer(index, step)?), Some(index)),
                Accumulated::Gradients(_, gradients) => (self.bad_gradient(&gradients)?, None),
            },
        };
        let place = self.first_place(place, index)?;
        Ok(place.unwrap_or_else(|| "the global norm".into()))
    }

    fn bad_place_on_gpu(&self, cuda: &mut CudaRun, step: u64) -> Result<Option<String>> {
        let mut first = None;
        for index in self.micro_batches(step) {
            let (ids, targets) = self.batch_ids(index)?;
            // All of them, although one would do: where ranks divide the weights, a forward of one is a forward of all.
            let place = cuda.not_finite_in((index, &ids, &targets), self.quant.anneal(step))?;
            first = first.or(place);
        }
        Ok(first)
    }

    /// What the teachers think of a micro-batch, if there are any.
    fn likely(&self, ids: &Tensor) -> Result<Option<Likely>> {
        if self.teachers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Likely {
            probabilities: Network::likely(&self.teachers, ids, self.options.seq_len)?,
            share: self.options.teacher_weight,
        }))
    }

    fn rates(&self, step: u64) -> Rates {
        Rates {
            lr: self.lr.at(step),
            weight_decay: self.options.weight_decay_at(step, self.total_steps),
        }
    }

    fn mode(&self, step: u64, index: u64) -> ForwardMode {
        let rates = self.options.dropout_rates();
        let dropout = rates.any().then_some(Dropout {
            rates,
            seed: self.options.seed,
            step: index,
        });
        ForwardMode {
            anneal: self.quant.anneal(step),
            dropout,
            arithmetic: self.options.precision.arithmetic(self.network.device()),
        }
    }

    /// Losses and gradients of this rank's micro-batches, by their share of the step; memory is that of one micro-batch and one set of gradients.
    fn accumulate(&self, step: u64) -> Result<Accumulated> {
        let micro_batches = self.options.micro_batches_per_step();
        let mut total: Vec<Tensor> = Vec::new();
        let mut shares = Vec::new();
        for index in self.micro_batches(step) {
            let batch = self.batch(index)?;
            let mode = self.mode(step, index);
            let likely = self.likely(&batch.ids)?;
            let tape = Tape::new();
            let leaves = self.network.leaves(&tape);
            let (objective, losses) = self.network.loss(
                &leaves,
                (&batch.ids, &batch.targets),
                self.options.seq_len,
                mode,
                (self.options.loss_terms(), likely),
            )?;
            #[cfg(test)]
            let losses = self.tamper(step, index, losses);
            if !losses.smoothed.is_finite() {
                return Ok(Accumulated::BadLoss { index });
            }
            shares.push(losses.nll / micro_batches as f64);
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
        Ok(Accumulated::Gradients(shares, total))
    }

    /// The first part of the network whose output on micro-batch `index` of step `step` is not finite.
    fn bad_layer(&self, index: u64, step: u64) -> Result<String> {
        let (batch, mode) = (self.batch(index)?, self.mode(step, index));
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
    fn bad_gradient(&self, gradients: &[Tensor]) -> Result<Option<String>> {
        for (spec, gradient) in self.network.specs().iter().zip(gradients) {
            if !all_finite(gradient)? {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
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
            let plus = trits.iter().filter(|trit| **trit > 0).count();
            let (zero, clip) = ternary_statistics(weight)?;
            layers.push(LayerMetrics {
                name: LayerMetrics::short_name(name),
                zero,
                plus: Some(plus as f64 / trits.len() as f64),
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
