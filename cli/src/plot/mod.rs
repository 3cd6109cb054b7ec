//! Training curves: [`read`] of `metrics.jsonl`, a picture of the [`curves`], one of the ternary [`layers`], one of a search's [`front`], each in a [`theme`], and a small curve for the [`terminal`].

mod curves;
mod front;
mod layers;
mod read;
mod svg;
mod terminal;
mod theme;

pub(crate) use curves::draw;
pub(crate) use front::draw_front;
pub(crate) use layers::draw_layers;
pub(crate) use read::{Layer, Run};
pub(crate) use terminal::curve;
pub(crate) use theme::Theme;

/// A running mean over about a fortieth of the points, which shows the trend under the noise of single steps.
pub(crate) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 40.0).max(1.0);
    let (mut mean, mut weight) = (0.0, 0.0);
    points
        .iter()
        .map(|&(x, y)| {
            // Divided by the weights so far, so that the beginning is not drawn towards 0.
            mean = keep * mean + (1.0 - keep) * y;
            weight = keep * weight + (1.0 - keep);
            (x, mean / weight)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_a_constant_and_the_steps() {
        let flat: Vec<(f64, f64)> = (1..=400).map(|i| (f64::from(i), 2.5)).collect();
        for (a, b) in smoothed(&flat).iter().zip(&flat) {
            assert!(a.0 == b.0 && (a.1 - 2.5).abs() < 1e-12);
        }
        let few = [(1.0, 3.0), (2.0, 1.0)];
        assert_eq!(smoothed(&few), few);
    }
}
