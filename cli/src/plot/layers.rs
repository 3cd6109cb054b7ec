//! What became of the ternary matrices of a run: four panels over the step, a line for each matrix, from the first block (dark) to the last (light).

use plotters::prelude::*;

use super::read::Layer;
use super::svg::{Area, Painted, mesh, picture};
use super::{Run, smoothed};
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

/// Every so many points, and the last.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points
        .last()
        .filter(|_| !(points.len() - 1).is_multiple_of(every))
        .copied();
    points.into_iter().step_by(every).chain(last).collect()
}

/// The scale over that of the first line.
fn drift(layer: &Layer) -> Vec<(f64, f64)> {
    let first = layer.scale.first().map_or(1.0, |(_, y)| *y).max(f64::MIN_POSITIVE);
    layer.scale.iter().map(|&(x, y)| (x, y / first)).collect()
}

/// The picture of one run as SVG text; none where no matrix was measured.
pub(crate) fn draw_layers(run: &Run) -> Result<Option<String>> {
    if run.layers.is_empty() {
        return Ok(None);
    }
    picture(SIZE, |root| paint(root, run)).map(Some)
}

fn paint(root: &Area<'_>, run: &Run) -> Painted {
    root.fill(&WHITE)?;
    for (panel, (title, of)) in root.split_evenly((2, 2)).iter().zip(PANELS) {
        let curves: Vec<Vec<(f64, f64)>> = run.layers.iter().map(|layer| thinned(of(layer))).collect();
        let points = || curves.iter().flatten();
        let steps = points().map(|p| p.0).fold(1.0, f64::max);
        let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = points().map(|p| p.1).fold(0.0, f64::max);
        let room = (0.06 * (high - low)).max(1e-6);
        let mut chart = ChartBuilder::on(panel)
            .margin(14)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..steps, (low - room).max(0.0)..high + room)?;
        mesh(&mut chart, title, Some("step"))?;
        let blocks = run.layers.iter().map(Layer::block).max().unwrap_or(0).max(1);
        for (layer, curve) in run.layers.iter().zip(&curves) {
            let depth = layer.block() as f64 / blocks as f64;
            let color = color(depth);
            chart.draw_series(LineSeries::new(curve.iter().copied(), color.stroke_width(1)))?;
        }
    }
    root.present()?;
    Ok(())
}

/// From dark blue at depth 0 to light orange at 1: of different lightness, so that it can be told apart in grey.
fn color(depth: f64) -> RGBColor {
    let mix = |from: u8, to: u8| (f64::from(from) + depth * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(mix(20, 245), mix(45, 175), mix(110, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_thinned_to_their_ends() {
        for n in [1usize, 2, 149, 150, 151, 299, 300, 301, 10_000] {
            let all: Vec<(f64, f64)> = (0..n).map(|i| (i as f64, 1.0)).collect();
            let kept = thinned(all.clone());
            assert!(kept.len() <= POINTS + 1, "{n}: {}", kept.len());
            assert_eq!((kept.first(), kept.last()), (all.first(), all.last()), "{n}");
            assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0), "{n}");
        }
    }

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
        let svg = draw_layers(&run).unwrap().unwrap();
        assert_eq!(svg.matches("#142D6E").count(), 4, "{svg}");
        assert!(PANELS.iter().all(|(title, _)| svg.contains(title)));
        let none = Run::parse("{\"step\":1,\"loss\":3.0}\n", "a".into()).unwrap();
        assert!(draw_layers(&none).unwrap().is_none());
    }
}
