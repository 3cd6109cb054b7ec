//! The learning rate: linear warm-up, then a decay from peak to minimum.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Shape of the decay after warm-up. `t` runs from 0 (end of warm-up) to 1 (end of the run).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrDecay {
    /// `(1 + cos πt) / 2` (Loshchilov & Hutter 2017).
    Cosine,
    /// `1 − t`.
    Linear,
    /// Warm-up, stable, decay: peak until `t = 0.8`, then linear (Hu et al. 2024).
    Wsd,
    /// BitNet b1.58's: linear towards the minimum, and at the half-way point a drop to two thirds of where it stands.
    TwoStage,
    /// Peak to the end.
    None,
}

impl FromStr for LrDecay {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "cosine" => Ok(Self::Cosine),
            "linear" => Ok(Self::Linear),
            "wsd" => Ok(Self::Wsd),
            "two-stage" => Ok(Self::TwoStage),
            "none" => Ok(Self::None),
            _ => Err(format!("expected cosine, linear, wsd, two-stage or none, found {s:?}")),
        }
    }
}

/// The learning rate as a function of the step.
#[derive(Clone, Copy, Debug)]
pub struct LrSchedule {
    /// Highest rate, reached at the end of warm-up.
    pub peak: f32,
    /// Rate at the end of the run.
    pub min: f32,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Shape of the decay.
    pub decay: LrDecay,
    /// Steps of the run.
    pub total_steps: u64,
}

impl LrSchedule {
    /// Rate of `step`, counted from 0.
    pub fn at(&self, step: u64) -> f32 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f32 / self.warmup_steps as f32;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let t = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let fraction = match self.decay {
            LrDecay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            LrDecay::Linear => 1.0 - t,
            LrDecay::Wsd => ((1.0 - t) / 0.2).min(1.0),
            LrDecay::TwoStage if t < 0.5 => 1.0 - t,
            LrDecay::TwoStage => (1.0 - t) * 2.0 / 3.0,
            LrDecay::None => return self.peak,
        };
        self.min + (self.peak - self.min) * fraction as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(decay: LrDecay) -> LrSchedule {
        LrSchedule {
            peak: 1.0,
            min: 0.1,
            warmup_steps: 10,
            decay,
            total_steps: 110,
        }
    }

    #[test]
    fn warm_up_is_linear_and_ends_at_the_peak() {
        for decay in [
            LrDecay::Cosine,
            LrDecay::Linear,
            LrDecay::Wsd,
            LrDecay::TwoStage,
            LrDecay::None,
        ] {
            let s = schedule(decay);
            assert!((s.at(0) - 0.1).abs() < 1e-6);
            assert!((s.at(4) - 0.5).abs() < 1e-6);
            assert_eq!(s.at(9), 1.0);
            assert_eq!(s.at(10), 1.0);
        }
    }

    #[test]
    fn decays_pass_their_landmarks() {
        let at = |decay, step| schedule(decay).at(step);
        assert!((at(LrDecay::Cosine, 60) - 0.55).abs() < 1e-6);
        assert!((at(LrDecay::Linear, 60) - 0.55).abs() < 1e-6);
        assert_eq!(at(LrDecay::Wsd, 89), 1.0);
        assert!((at(LrDecay::Wsd, 100) - 0.55).abs() < 1e-6);
        assert!((at(LrDecay::TwoStage, 59) - (0.1 + 0.9 * 0.51)).abs() < 1e-6);
        assert!((at(LrDecay::TwoStage, 60) - 0.4).abs() < 1e-6);
        assert_eq!(at(LrDecay::None, 109), 1.0);
        for decay in [LrDecay::Cosine, LrDecay::Linear, LrDecay::Wsd, LrDecay::TwoStage] {
            assert!((at(decay, 110) - 0.1).abs() < 1e-6);
            assert!((at(decay, 5000) - 0.1).abs() < 1e-6);
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for name in ["cosine", "linear", "wsd", "two-stage", "none"] {
            let decay: LrDecay = name.parse().unwrap();
            assert_eq!(serde_json::to_string(&decay).unwrap(), format!("\"{name}\""));
        }
        assert!("cos".parse::<LrDecay>().is_err());
    }
}
