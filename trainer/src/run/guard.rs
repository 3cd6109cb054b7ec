//! What is done about a step that went wrong.
//!
//! A loss or gradient that is **not finite** changes nothing: the step is skipped and counted, and after a few in a row the run stops, with the layer named and a
//! checkpoint of the last good state. A loss that is finite and far too high, for some steps in a row, is a **spike**: with `--spike-guard` the run then goes back to
//! its newest checkpoint and on from there with other data, as PaLM's authors did by hand (Chowdhery et al. 2022, section 5.1).

use serde::{Deserialize, Serialize};

use crate::schedule::Phase;

/// Steps that make a mean.
const WINDOW: f64 = 50.0;
/// Steps before which nothing is called a spike.
const WARM: u64 = 50;
/// High losses in a row that are a spike.
const PATIENCE: u64 = 3;
/// Rollbacks to one checkpoint after which the run gives up.
pub(super) const MOST_ROLLBACKS: u64 = 3;

/// What the guards of a run remember, as a checkpoint has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardState {
    /// Steps that were skipped.
    pub skipped: u64,
    /// The last so many steps were.
    pub skipped_in_a_row: u64,
    /// How often the run went back to a checkpoint.
    pub rollbacks: u64,
    /// Micro-batches that rollbacks left out: the data is so much further on than the steps.
    pub data_offset: u64,
    /// Losses so far.
    pub losses: LossTrend,
}

/// Exponential mean and variance of the losses of one phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossTrend {
    phase: Option<Phase>,
    mean: f64,
    variance: f64,
    seen: u64,
    high: u64,
}

impl LossTrend {
    /// Takes in the loss of a step; whether it completes a spike, losses more than `deviations` standard deviations above the mean.
    pub(super) fn is_spike(&mut self, phase: Phase, loss: f64, deviations: f64) -> bool {
        if self.phase != Some(phase) {
            // Another phase has other losses.
            *self = LossTrend {
                phase: Some(phase),
                mean: loss,
                ..LossTrend::default()
            };
        }
        if self.seen >= WARM && loss > self.mean + deviations * self.variance.sqrt() {
            self.high += 1;
            return self.high >= PATIENCE;
        }
        self.high = 0;
        self.seen += 1;
        let rate = 1.0 / WINDOW.min(self.seen as f64);
        let above = loss - self.mean;
        self.mean += rate * above;
        self.variance = (1.0 - rate) * (self.variance + rate * above * above);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise of one standard deviation of about 0.1.
    fn noisy(i: u64, mean: f64) -> f64 {
        mean + 0.17 * ((i * 7919 % 101) as f64 / 50.0 - 1.0)
    }

    #[test]
    fn three_high_losses_in_a_row_are_a_spike_and_noise_is_none() {
        let mut trend = LossTrend::default();
        for i in 0..500 {
            assert!(!trend.is_spike(Phase::Hard, noisy(i, 3.0), 6.0), "{i}");
        }
        assert!(
            (trend.mean - 3.0).abs() < 0.05 && (trend.variance.sqrt() - 0.1).abs() < 0.03,
            "{trend:?}"
        );
        for i in 0..20 {
            // One and two are none.
            assert!(!trend.is_spike(Phase::Hard, 5.0, 6.0));
            assert!(!trend.is_spike(Phase::Hard, 5.0, 6.0));
            assert!(!trend.is_spike(Phase::Hard, noisy(i, 3.0), 6.0));
        }
        assert_eq!(
            [5.0; 3].map(|loss| trend.is_spike(Phase::Hard, loss, 6.0)),
            [false, false, true]
        );
    }

    #[test]
    fn falling_losses_and_another_phase_are_no_spike() {
        let mut trend = LossTrend::default();
        for i in 0..400 {
            assert!(!trend.is_spike(Phase::Warmup, noisy(i, 8.0 - i as f64 / 100.0), 6.0));
        }
        for i in 0..60 {
            assert!(!trend.is_spike(Phase::Anneal, noisy(i, 6.0), 6.0));
        }
        // Nothing is known of a phase before there have been some steps.
        let mut fresh = LossTrend::default();
        for i in 0..WARM {
            assert!(!fresh.is_spike(Phase::Hard, if i % 2 == 0 { 1.0 } else { 100.0 }, 3.0));
        }
    }
}
