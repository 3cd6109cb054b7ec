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

/// Points of a smoothed curve at most, about: more than a picture is wide.
const POINTS: usize = 2000;

/// The mean over about a twentieth of the points, around each, which shows the trend under the noise of single steps. It is not behind where a curve falls fast.
/// Of a long curve it has so many points as a picture can show, and the last.
pub(crate) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / 40;
    let mean = |i: usize| {
        // As many before as behind, but at the end, where there are none behind and curves are flat.
        let before = half.min(i);
        let around = &points[i - before..points.len().min(i + before + 1)];
        let sum: f64 = around.iter().map(|point| point.1).sum();
        (points[i].0, sum / around.len() as f64)
    };
    thinned(points.len(), POINTS).map(mean).collect()
}

/// Indices of `len` points of which about `most` are drawn: every so many, and the last.
pub(crate) fn thinned(len: usize, most: usize) -> impl Iterator<Item = usize> {
    let every = len.div_ceil(most).max(1);
    let last = len.checked_sub(1).filter(|last| !last.is_multiple_of(every));
    (0..len).step_by(every).chain(last)
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
        assert_eq!(smoothed(&[]), []);
    }

    #[test]
    fn smoothing_follows_a_fall_and_takes_away_noise() {
        // A fall whose mean behind each point would stand far above it.
        let fall = |i: u32| (-f64::from(i) / 50.0).exp();
        let noise = |i: u32| if i.is_multiple_of(2) { 0.1 } else { -0.1 };
        let points: Vec<_> = (0..1200).map(|i| (f64::from(i), fall(i) + noise(i))).collect();
        for (i, point) in smoothed(&points).iter().enumerate().skip(30) {
            assert!((point.1 - fall(i as u32)).abs() < 0.05, "{i}: {}", point.1);
        }
        let long: Vec<_> = (0..30_001).map(|i| (f64::from(i), 1.0)).collect();
        let shown = smoothed(&long);
        assert!(shown.len() <= POINTS + 1 && shown.last() == long.last());
    }

    #[test]
    fn long_curves_are_thinned_to_their_ends() {
        for len in [0usize, 1, 2, 149, 150, 151, 299, 300, 301, 10_000] {
            let kept: Vec<usize> = thinned(len, 150).collect();
            assert!(kept.len() <= 151, "{len}: {}", kept.len());
            assert_eq!(kept.first().copied(), (len > 0).then_some(0), "{len}");
            assert_eq!(kept.last().copied(), len.checked_sub(1), "{len}");
            assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "{len}");
        }
    }
}
