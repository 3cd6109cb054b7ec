//! The three phases: warm-up in full precision, anneal from soft to hard, hard.

use serde::{Deserialize, Serialize};

/// Phase of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Full precision.
    Warmup,
    /// Between full precision and hard.
    Anneal,
    /// Ternary weights, int8 activations.
    Hard,
}

impl Phase {
    /// Lower-case name, as in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Warmup => "warmup",
            Phase::Anneal => "anneal",
            Phase::Hard => "hard",
        }
    }
}

/// The annealing value as a function of the step. The network's forward is continuous in it, and it moves by
/// `1/anneal_steps` a step, so no border between phases moves the loss by more than a step of that size does.
#[derive(Clone, Copy, Debug)]
pub struct QuantSchedule {
    /// Steps in full precision.
    pub warmup_steps: u64,
    /// Steps of the anneal phase.
    pub anneal_steps: u64,
}

impl QuantSchedule {
    /// Annealing value of `step`: 0 in warm-up, rising through the anneal phase, 1 when hard.
    pub fn anneal(&self, step: u64) -> f32 {
        let into = step.saturating_sub(self.warmup_steps);
        if step < self.warmup_steps {
            0.0
        } else if into >= self.anneal_steps {
            1.0
        } else {
            ((into + 1) as f64 / (self.anneal_steps + 1) as f64) as f32
        }
    }

    /// Phase of `step`.
    pub fn phase(&self, step: u64) -> Phase {
        match self.anneal(step) {
            a if a <= 0.0 => Phase::Warmup,
            a if a < 1.0 => Phase::Anneal,
            _ => Phase::Hard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_meet_without_a_gap() {
        let s = QuantSchedule {
            warmup_steps: 3,
            anneal_steps: 4,
        };
        let values: Vec<f32> = (0..9).map(|i| s.anneal(i)).collect();
        assert_eq!(values, [0.0, 0.0, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0]);
        assert_eq!(s.phase(2), Phase::Warmup);
        assert_eq!(s.phase(3), Phase::Anneal);
        assert_eq!(s.phase(7), Phase::Hard);
        let hard = QuantSchedule {
            warmup_steps: 0,
            anneal_steps: 0,
        };
        assert_eq!(hard.phase(0), Phase::Hard);
    }

    #[test]
    fn metrics_and_messages_call_a_phase_the_same() {
        for (phase, name) in [
            (Phase::Warmup, "warmup"),
            (Phase::Anneal, "anneal"),
            (Phase::Hard, "hard"),
        ] {
            assert_eq!(phase.name(), name);
            assert_eq!(serde_json::to_string(&phase).unwrap(), format!("\"{name}\""));
        }
    }
}
