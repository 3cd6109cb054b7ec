//! Validation: the loss on windows of the validation tokens, in order, without recording.

use onebit_autograd::Tape;
use onebit_engine::Tensor;
use onebit_model::network::{ForwardMode, Network};

use super::batch::windows_ids;
use super::metrics::ValidationMetrics;
use super::{Event, Trainer};
use crate::Result;
use crate::data::windows_in_order;

impl Trainer {
    /// Mean loss over the first `eval_windows` windows (0: all) of the validation tokens, at the annealing value of the last step, without
    /// dropout or smoothing; `None` without validation tokens. The sum is taken in f64.
    ///
    /// # Errors
    /// Reading the tokens, or an id outside the vocabulary.
    pub fn validate(&mut self) -> Result<Option<ValidationMetrics>> {
        let Some(tokens) = &self.validation else {
            return Ok(None);
        };
        let seq = self.options.seq_len;
        let mut windows = windows_in_order(tokens, seq, self.options.alignment())?;
        if self.options.eval_windows > 0 {
            windows.truncate(self.options.eval_windows);
        }
        let anneal = self.quant.anneal(self.step.saturating_sub(1));
        // Each rank takes its part of the batches; their sums are added in the order of one rank, so that it does not matter how many there are.
        let mut sums = Vec::new();
        let batches: Vec<_> = windows.chunks(self.options.batch_size).collect();
        let rounds = batches.len().div_ceil(self.world.size());
        for round in 0..rounds {
            // Where ranks divide the weights, a forward of one is a forward of all: one for which nothing is left does the last again, and does not count it.
            let number = round * self.world.size() + self.world.rank();
            let Some(some) = batches.get(number).or(batches.last()) else {
                break;
            };
            let (ids, targets) = windows_ids(tokens, some.iter().cloned(), seq)?;
            let nats: f64 = match &mut self.cuda {
                Some(cuda) => {
                    // The GPU's batches have one size: what is behind the windows is read and not counted.
                    let (n, whole) = (ids.len(), self.options.batch_size * seq);
                    let [mut ids, mut targets] = [ids, targets];
                    ids.resize(whole, 0);
                    targets.resize(whole, 0);
                    let losses = cuda.token_losses(&ids, &targets, anneal)?;
                    losses[..n].iter().map(|&nll| f64::from(nll)).sum::<f64>() / seq as f64
                }
                None => on_the_cpu(&self.network, (ids, targets), seq, anneal)? * some.len() as f64,
            };
            // As bits: a sum that is no number is one here too.
            if number < batches.len() {
                sums.push(nats.to_bits());
            }
        }
        let of_ranks = self.world.gather(&sums)?;
        let nats: f64 = (0..batches.len())
            .filter_map(|i| of_ranks.get(i % of_ranks.len())?.get(i / of_ranks.len()))
            .map(|bits| f64::from_bits(*bits))
            .sum();
        let val_loss = nats / windows.len() as f64;
        Ok(Some(ValidationMetrics {
            step: self.step,
            val_loss,
            val_ppl: val_loss.exp(),
        }))
    }

    /// Validates, and writes what came of it.
    pub(super) fn validate_now(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if let Some(validation) = self.validate()? {
            self.metrics.append(&validation)?;
            if self.good.step == self.step {
                self.good.metrics_bytes = self.metrics.bytes();
                let is_hard = self.quant.anneal(self.step.saturating_sub(1)) >= 1.0;
                self.good.val_loss = is_hard.then_some(validation.val_loss);
            }
            observe(Event::Validated(&validation));
        }
        Ok(())
    }
}

/// Mean loss of windows of `seq` tokens.
fn on_the_cpu(network: &Network, (ids, targets): (Vec<u32>, Vec<u32>), seq: usize, anneal: f32) -> Result<f64> {
    let (shape, device) = ([ids.len()], network.device());
    let (ids, targets) = (
        Tensor::from_u32(device, shape, ids)?,
        Tensor::from_u32(device, shape, targets)?,
    );
    let tape = Tape::new();
    let (_, losses) = tape.no_grad(|| {
        let leaves = network.leaves(&tape);
        network.loss(
            &leaves,
            (&ids, &targets),
            seq,
            ForwardMode::evaluation(anneal),
            Default::default(),
        )
    })?;
    Ok(losses.nll)
}
