//! Perplexity over bytes: the front of a bit-width search, and what it is compared with.

use plotters::prelude::*;

use super::svg::{Area, Painted, key, legend, mesh, picture};
use super::theme::{COLORS, PAPER, Theme};
use crate::Result;

const SIZE: (u32, u32) = (960, 560);
/// Perplexities above so many times the least are beyond the picture: a model that says nothing has thousands.
const MOST: f64 = 1.6;

/// The picture: the front and a random one as steps, uniform models by name, and the map that was chosen; points are (megabytes, perplexity).
pub(crate) fn draw_front(
    front: &[(f64, f64)],
    random: &[(f64, f64)],
    uniform: &[(&str, f64, f64)],
    chosen: Option<(f64, f64)>,
) -> Result<String> {
    picture(SIZE, Theme::Auto, |root| paint(root, front, random, uniform, chosen))
}

/// A front between its points: no map between two of them is better than the smaller.
fn steps(points: &[(f64, f64)], right: f64) -> Vec<(f64, f64)> {
    let mut line = Vec::new();
    for (at, &(x, y)) in points.iter().enumerate() {
        line.push((x, y));
        line.push((points.get(at + 1).map_or(right, |next| next.0), y));
    }
    line
}

fn paint(
    root: &Area<'_>,
    front: &[(f64, f64)],
    random: &[(f64, f64)],
    uniform: &[(&str, f64, f64)],
    chosen: Option<(f64, f64)>,
) -> Painted {
    root.fill(&PAPER)?;
    let least = front.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let least = if least.is_finite() { least } else { 1.0 };
    let seen = |y: f64| y <= MOST * least;
    let xs = { front.iter().map(|p| p.0) }.chain(uniform.iter().filter(|u| seen(u.2)).map(|u| u.1));
    let right = 1.04 * xs.fold(0.0, f64::max).max(1e-6);
    let ys = { front.iter().chain(random).map(|p| p.1) }.chain(uniform.iter().map(|u| u.2));
    let high = ys.filter(|y| seen(*y)).fold(least, f64::max);
    let room = (0.06 * (high - least)).max(0.005 * least);
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .x_label_area_size(42)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, (least - room)..(high + room))?;
    mesh(&mut chart, "perplexity", Some("megabytes of the file"), f64::INFINITY)?;
    let inside = |points: &[(f64, f64)]| -> Vec<(f64, f64)> { points.iter().copied().filter(|p| seen(p.1)).collect() };
    for (points, color, label) in [(random, COLORS[6], "random maps"), (front, COLORS[0], "front")] {
        let points = inside(points);
        if points.is_empty() {
            continue;
        }
        let line = chart.draw_series(LineSeries::new(steps(&points, right), color.stroke_width(2)))?;
        line.label(label).legend(key(color));
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
    }
    let color = COLORS[1];
    for &(name, x, y) in uniform.iter().filter(|uniform| seen(uniform.2)) {
        chart.draw_series([Cross::new((x, y), 5, color.stroke_width(2))])?;
        let style = ("sans-serif", 13).into_font().color(&color);
        let place = (x + 0.008 * right, y + 0.2 * room);
        chart.draw_series([Text::new(format!("all {name}"), place, style)])?;
    }
    if let Some(point) = chosen.filter(|point| seen(point.1)) {
        let color = COLORS[2];
        let drawn = chart.draw_series([Circle::new(point, 7, color.stroke_width(3))])?;
        drawn
            .label("chosen")
            .legend(move |(x, y)| Circle::new((x + 11, y), 5, color.stroke_width(2)));
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::theme::tests::assert_known;

    #[test]
    fn a_front_is_drawn_with_what_it_is_compared_with() {
        let front = [(3.0, 70.0), (6.0, 66.0), (12.0, 65.0)];
        let text = draw_front(
            &front,
            &[(5.0, 80.0)],
            &[("int8", 24.0, 65.0), ("binary", 2.0, 9e9)],
            Some(front[1]),
        )
        .unwrap();
        assert!(text.starts_with("<svg") && text.contains("all int8") && text.contains("random maps"));
        assert_known(text.split("</style>").nth(1).unwrap());
        assert!(!text.contains("all binary"), "it lies beyond the picture");
        // Nothing at all, and a single point.
        draw_front(&[], &[], &[], None).unwrap();
        draw_front(&front[..1], &[], &[], None).unwrap();
    }

    #[test]
    fn steps_go_right_before_they_go_down() {
        assert_eq!(
            steps(&[(1.0, 5.0), (2.0, 4.0)], 3.0),
            [(1.0, 5.0), (2.0, 5.0), (2.0, 4.0), (3.0, 4.0)]
        );
    }
}
