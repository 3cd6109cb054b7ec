//! Validation: the loss on windows of the validation tokens, in order, without recording.

use onebit_autograd::Tape;
use onebit_model::network::ForwardMode;

use super::metrics::ValidationMetrics;
use super::{Trainer, make_batch};
use crate::Result;
use crate::data::windows_in_order;

impl Trainer {
    /// Mean loss over the first `eval_windows` windows (0: all) of the validation tokens, at the annealing value of the last step, without
    /// dropout or smoothing; `None` without validation tokens. The sum is taken in f64.
    ///
    /// # Errors
    /// Reading the tokens, or an id outside the vocabulary.
    pub fn validate(&self) -> Result<Option<ValidationMetrics>> {
        let Some(tokens) = &self.validation else {
            return Ok(None);
        };
        let seq = self.options.seq_len;
        let mut windows = windows_in_order(tokens, seq, self.options.alignment())?;
        if self.options.eval_windows > 0 {
            windows.truncate(self.options.eval_windows);
        }
        let anneal = self.quant.anneal(self.step.saturating_sub(1));
        let mut nats = 0.0;
        for some in windows.chunks(self.options.batch_size) {
            let batch = make_batch(&self.network, tokens, some.iter().cloned(), seq)?;
            let tape = Tape::new();
            let losses = tape.no_grad(|| {
                let leaves = self.network.leaves(&tape);
                self.network.loss(
                    &leaves,
                    (&batch.ids, &batch.targets),
                    seq,
                    ForwardMode::evaluation(anneal),
                    0.0,
                )
            })?;
            nats += losses.1.nll * some.len() as f64;
        }
        let val_loss = nats / windows.len() as f64;
        Ok(Some(ValidationMetrics {
            step: self.step,
            val_loss,
            val_ppl: val_loss.exp(),
        }))
    }
}
