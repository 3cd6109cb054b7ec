//! What the screen shows.

use std::collections::VecDeque;

use onebit_trainer::run::LayerMetrics;

use super::News;
use crate::args;
use crate::plot::Run;
use crate::watch::sampler::Said;

/// Points of a curve at most.
const POINTS: usize = 2000;
/// Notes that are kept.
const NOTES: usize = 50;

/// A curve that gets coarser as it gets longer.
#[derive(Debug)]
pub(super) struct Curve {
    pub points: Vec<(f64, f64)>,
    every: usize,
    seen: usize,
}

impl Curve {
    fn new(points: &[(f64, f64)]) -> Self {
        let mut curve = Self {
            points: Vec::new(),
            every: 1,
            seen: 0,
        };
        points.iter().for_each(|&point| curve.push(point));
        curve
    }

    fn push(&mut self, point: (f64, f64)) {
        if self.seen.is_multiple_of(self.every) {
            self.points.push(point);
        }
        self.seen += 1;
        if self.points.len() > POINTS {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
    }

    /// What lies behind a step comes again.
    fn cut(&mut self, step: f64) {
        self.points.retain(|point| point.0 <= step);
    }
}

/// A run as it stands.
#[derive(Debug)]
pub(in crate::watch) struct Dashboard {
    pub(super) title: String,
    pub(super) total: u64,
    pub(super) step: u64,
    pub(super) phase: &'static str,
    pub(super) loss: Curve,
    pub(super) validation: Curve,
    pub(super) lr: Curve,
    pub(super) tokens_per_second: Option<f64>,
    pub(super) share_of_peak: Option<f64>,
    pub(super) left: Option<String>,
    pub(super) layers: Vec<LayerMetrics>,
    pub(super) notes: VecDeque<String>,
    /// What the model said.
    pub(super) sample: Option<Said>,
    pub(super) is_stopping: bool,
}

impl Dashboard {
    /// A run of `total` steps that stands at `step`, with the curves of what it did before.
    pub(in crate::watch) fn new(title: String, step: u64, total: u64, before: &Run) -> Self {
        Self {
            title,
            total,
            step,
            phase: "",
            loss: Curve::new(&before.loss),
            validation: Curve::new(&before.validation),
            lr: Curve::new(&before.lr),
            tokens_per_second: None,
            share_of_peak: None,
            left: None,
            layers: Vec::new(),
            notes: VecDeque::new(),
            sample: None,
            is_stopping: false,
        }
    }

    /// Takes up what is new.
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Step {
                metrics: m,
                tokens_per_second,
                share_of_peak,
                left,
            } => {
                self.step = m.step;
                self.phase = m.phase.name();
                if m.loss.is_finite() {
                    self.loss.push((m.step as f64, m.loss));
                }
                self.lr.push((m.step as f64, f64::from(m.lr)));
                // What is not known right now is still what it was.
                self.tokens_per_second = tokens_per_second.or(self.tokens_per_second);
                self.share_of_peak = share_of_peak.or(self.share_of_peak);
                self.left = left;
                if !m.layers.is_empty() {
                    self.layers = m.layers;
                }
            }
            News::Validated(m) => self.validation.push((m.step as f64, m.val_loss)),
            News::Back(step) => {
                self.step = step;
                for curve in [&mut self.loss, &mut self.validation, &mut self.lr] {
                    curve.cut(step as f64);
                }
            }
            News::Sample(said) => {
                let text = args::one_line(&said.text);
                self.sample = Some(Said { text, ..said });
            }
            News::Note(_) | News::End => {}
        }
    }

    /// A line for the bottom.
    pub(super) fn note(&mut self, line: &str) {
        self.notes.push_back(args::one_line(line));
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_keeps_its_ends_and_its_order() {
        let mut curve = Curve::new(&[]);
        (0..100_000).for_each(|i| curve.push((f64::from(i), 1.0)));
        let points = &curve.points;
        assert!(points.len() <= POINTS && points.len() > POINTS / 3, "{}", points.len());
        assert_eq!(points[0].0, 0.0);
        assert!(points[points.len() - 1].0 > 99_000.0);
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        curve.cut(50_000.0);
        assert!(curve.points.iter().all(|point| point.0 <= 50_000.0) && !curve.points.is_empty());
    }
}
