//! What became of the ternary matrices of a run: four panels over the step, a line for each matrix, from the first block (dark) to the last (light).

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::read::Layer;
use super::svg::{Area, Line, Painted, common_phases, panel, picture};
use super::theme::{COLORS, PAPER, Theme, depth_color};
use super::{Run, smoothed, thinned};
use crate::Result;

const SIZE: (u32, u32) = (960, 680);

/// What a panel shows of a matrix.
type Of = fn(&Layer) -> Vec<(f64, f64)>;

/// Title, and what is drawn.
const PANELS: [(&str, Of); 4] = [
    ("zeros (of the weights)", |layer| layer.zero.clone()),
    ("flips (of the weights, a step)", |layer| smoothed(&layer.flip)),
    ("drift of the scale (of the first)", drift),
    ("beyond the clamp (of the weights)", |layer| layer.clip.clone()),
];

/// Points of a line at most, about: there are many lines.
const POINTS: usize = 150;

/// No more points than that.
fn few(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    thinned(points.len(), POINTS).map(|i| points[i]).collect()
}

/// The scale over that of the first line.
fn drift(layer: &Layer) -> Vec<(f64, f64)> {
    let first = layer.scale.first().map_or(1.0, |(_, y)| *y).max(f64::MIN_POSITIVE);
    layer.scale.iter().map(|&(x, y)| (x, y / first)).collect()
}

/// A line for each matrix; the first block and the last are named.
fn lines(run: &Run, of: Of) -> Vec<Line> {
    let last = run.layers.iter().map(Layer::block).max().unwrap_or(0);
    let mut named = Vec::new();
    let line = |layer: &Layer| {
        let block = layer.block();
        let is_new = (block == 0 || block == last) && !named.contains(&block);
        if is_new {
            named.push(block);
        }
        Line {
            points: few(&of(layer)),
            color: depth_color(block as f64 / last.max(1) as f64),
            width: 1,
            name: is_new.then(|| format!("block {block}")),
        }
    };
    run.layers.iter().map(line).collect()
}

/// The zeros of each matrix.
pub(super) fn zero_lines(run: &Run) -> Vec<Line> {
    lines(run, PANELS[0].1)
}

/// The flips of each matrix.
pub(super) fn flip_lines(run: &Run) -> Vec<Line> {
    lines(run, PANELS[1].1)
}

/// The mean over the matrices of each run, a line a run.
pub(super) fn mean_lines(runs: &[Run], of: fn(&Layer) -> &Vec<(f64, f64)>) -> Vec<Line> {
    let line = |(run, &color): (&Run, &RGBColor)| {
        // Steps are not negative, so their bits are in their order.
        let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for &(step, y) in run.layers.iter().flat_map(of) {
            let sum = sums.entry(step.to_bits()).or_default();
            *sum = (sum.0 + y, sum.1 + 1.0);
        }
        let means: Vec<_> = { sums.iter() }
            .map(|(&step, (sum, count))| (f64::from_bits(step), sum / count))
            .collect();
        Line {
            points: few(&smoothed(&means)),
            color,
            width: 2,
            name: None,
        }
    };
    runs.iter().zip(COLORS.iter().cycle()).map(line).collect()
}

/// The picture of one run as SVG text; none where no matrix was measured.
pub(crate) fn draw_layers(run: &Run, theme: Theme) -> Result<Option<String>> {
    if run.layers.is_empty() {
        return Ok(None);
    }
    picture(SIZE, theme, |root| paint(root, run)).map(Some)
}

fn paint(root: &Area<'_>, run: &Run) -> Painted {
    root.fill(&PAPER)?;
    for (area, (title, of)) in root.split_evenly((2, 2)).iter().zip(PANELS) {
        let lines = lines(run, of);
        let points = lines.iter().flat_map(|line| &line.points);
        let steps = points.map(|p| p.0).fold(1.0, f64::max);
        let phases: Vec<_> = { common_phases(std::slice::from_ref(run)).iter() }
            .filter(|phase| phase.1 < steps)
            .map(|(name, from, to)| (name.clone(), *from, to.min(steps)))
            .collect();
        panel(area, title, steps, &phases, lines)?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::theme::tests::assert_known;

    #[test]
    fn each_matrix_is_a_line_in_each_panel() {
        let line = |step: u32, scale: f64| {
            let matrix = |block: u32| {
                format!(
                    "{{\"name\":\"{block}.mlp.up_proj\",\"zero\":0.4,\"flip\":0.01,\"scale\":{scale},\"clip\":0.2}}"
                )
            };
            format!(
                "{{\"step\":{step},\"phase\":\"hard\",\"loss\":3.0,\"lr\":0.1,\"layers\":[{},{}]}}\n",
                matrix(0),
                matrix(11)
            )
        };
        let run = Run::parse(&(line(1, 0.5) + &line(2, 0.6)), "a".into()).unwrap();
        assert_eq!(run.layers.iter().map(Layer::block).collect::<Vec<_>>(), [0, 11]);
        assert_eq!(drift(&run.layers[0]), [(1.0, 1.0), (2.0, 1.2)]);
        let svg = draw_layers(&run, Theme::Light).unwrap().unwrap();
        // A line, and its key.
        assert_eq!(svg.matches("#142D6E").count(), 8, "{svg}");
        assert_known(&svg);
        assert!(PANELS.iter().all(|(title, _)| svg.contains(title)));
        let none = Run::parse("{\"step\":1,\"loss\":3.0}\n", "a".into()).unwrap();
        assert!(draw_layers(&none, Theme::Light).unwrap().is_none());
    }
}
