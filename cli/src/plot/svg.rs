//! What the pictures have in common: an area to paint on, axes, shaded phases, panels of many lines.

use plotters::chart::SeriesAnno;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::Run;
use super::theme::{GRID, INK, SHADES, Theme, themed};
use crate::{CliError, Result};

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Whether something could be drawn.
pub(super) type Painted = std::result::Result<(), Box<dyn std::error::Error>>;

pub(super) type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Room for the numbers at the left of a panel; at the right for as many, so that panels stand below each other.
pub(super) const SIDE: u32 = 64;

/// What `paint` paints, as SVG text.
pub(super) fn picture(size: (u32, u32), theme: Theme, paint: impl FnOnce(&Area<'_>) -> Painted) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        paint(&root)
            .map_err(|e| CliError::Failed(format!("cannot draw the plot: {e}; report this with the metrics file")))?;
    }
    Ok(themed(text, theme))
}

/// A grid with its numbers. The horizontal axis ends at `right`; up to ten it has whole numbers alone.
pub(super) fn mesh(chart: &mut Chart<'_, '_>, y: &str, x: Option<&str>, right: f64) -> Painted {
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .y_desc(y)
        .label_style(letters(13))
        .axis_desc_style(letters(14))
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .x_labels(right.clamp(1.0, 10.0) as usize + 1)
        .y_labels(6);
    if let Some(x) = x {
        mesh.x_desc(x);
    }
    mesh.draw()?;
    Ok(())
}

/// The names of what is drawn, in a corner.
pub(super) fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Painted {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(letters(14))
        .draw()?;
    Ok(())
}

/// Letters of that size.
pub(super) fn letters(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// What stands before a curve's name.
pub(super) fn key(color: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> + 'static {
    move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2))
}

/// The curve through `points`, which may get a name; a dot where there is only one.
pub(super) fn curve<'c, 'a, 'b: 'a>(
    chart: &'c mut Chart<'a, 'b>,
    points: Vec<(f64, f64)>,
    color: RGBColor,
    width: u32,
) -> std::result::Result<&'c mut SeriesAnno<'a, SVGBackend<'b>>, Box<dyn std::error::Error>> {
    Ok(match points[..] {
        [point] => chart.draw_series([Circle::new(point, 3, color.filled())])?,
        _ => chart.draw_series(LineSeries::new(points, color.stroke_width(width)))?,
    })
}

/// The corner at the right, or else at the left, that has the fewest of `points` in it, for names: they are in a plane of `steps` by what lies between `low` and `high`.
pub(super) fn free_corner<'p>(
    points: impl Iterator<Item = &'p (f64, f64)> + Clone,
    (steps, low, high): (f64, f64, f64),
) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    let taken = |(right, upper): (bool, bool)| {
        let is_in = |&&(x, y): &&(f64, f64)| {
            let (x, y) = (x / steps, (y - low) / (high - low));
            (if right { x > 0.7 } else { x < 0.3 }) && (if upper { y > 0.65 } else { y < 0.35 })
        };
        points.clone().filter(is_in).count()
    };
    let corners = [
        (UpperRight, (true, true)),
        (LowerRight, (true, false)),
        (LowerLeft, (false, false)),
        (UpperLeft, (false, true)),
    ];
    corners
        .into_iter()
        .min_by_key(|corner| taken(corner.1))
        .map_or(UpperRight, |corner| corner.0)
}

/// Short and exact enough for an axis.
pub(super) fn number(x: f64) -> String {
    if x != 0.0 && x.abs() < 0.001 {
        format!("{x:.1e}")
    } else {
        format!("{x:.5}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string()
    }
}

/// The phases that may be shaded behind `runs`: those of one run, or of several that have the same.
pub(super) fn common_phases(runs: &[Run]) -> &[(String, f64, f64)] {
    match runs {
        [first, others @ ..] if others.iter().all(|run| run.phases == first.phases) => &first.phases,
        _ => &[],
    }
}

/// Shades phases over the height of a chart, with their names where there is room.
pub(super) fn shade<'a, 'b: 'a>(
    chart: &mut Chart<'a, 'b>,
    phases: &[(String, f64, f64)],
    (steps, low, high): (f64, f64, f64),
    named: bool,
) -> Painted {
    for (i, (phase, from, to)) in phases.iter().enumerate() {
        let from = if i == 0 { 0.0 } else { *from };
        let to = phases.get(i + 1).map_or(*to, |next| next.1);
        let shade = match phase.as_str() {
            "anneal" => SHADES[1],
            "hard" => SHADES[2],
            _ => SHADES[0],
        };
        chart.draw_series([Rectangle::new([(from, low), (to, high)], shade.filled())])?;
        // A phase that is a sliver has no room for its name.
        if named && to - from > 0.06 * steps {
            let place = (from + 0.008 * steps, high - 0.025 * (high - low));
            chart.draw_series([Text::new(phase.clone(), place, letters(14))])?;
        }
    }
    Ok(())
}

/// A line of a panel.
pub(super) struct Line {
    pub points: Vec<(f64, f64)>,
    pub color: RGBColor,
    pub width: u32,
    /// Its name in the legend.
    pub name: Option<String>,
}

/// A panel of lines over `steps` steps, phases behind them.
pub(super) fn panel(
    area: &Area<'_>,
    title: &str,
    steps: f64,
    phases: &[(String, f64, f64)],
    lines: Vec<Line>,
) -> Painted {
    let points = || lines.iter().flat_map(|line| &line.points);
    let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.1).fold(0.0, f64::max);
    let low = if low.is_finite() { low } else { 0.0 };
    // Enough to be seen in the last digit of a large number.
    let room = (0.06 * (high - low)).max(1e-6).max(1e-4 * high);
    let (low, high) = ((low - room).max(0.0), high + room);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(SIDE)
        .build_cartesian_2d(0.0..steps, low..high)?;
    shade(&mut chart, phases, (steps, low, high), false)?;
    mesh(&mut chart, title, Some("step"), steps)?;
    let corner = free_corner(lines.iter().flat_map(|line| &line.points), (steps, low, high));
    let mut named = false;
    for line in lines {
        let series = curve(&mut chart, line.points, line.color, line.width)?;
        if let Some(name) = line.name {
            named = true;
            series.label(name).legend(key(line.color));
        }
    }
    if named {
        legend(&mut chart, corner)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (x, text) in [
            (0.0, "0"),
            (2.5, "2.5"),
            (0.006, "0.006"),
            (3e-4, "3.0e-4"),
            (10.0, "10"),
        ] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn names_stand_where_no_curve_is() {
        use SeriesLabelPosition::{LowerLeft, LowerRight, UpperRight};
        let at = |points: &[(f64, f64)]| free_corner(points.iter(), (10.0, 0.0, 1.0));
        let falls = [(1.0, 0.9), (5.0, 0.5), (9.0, 0.1)];
        let rises = [(1.0, 0.1), (5.0, 0.5), (9.0, 0.9)];
        assert!(matches!(at(&falls), UpperRight) && matches!(at(&rises), LowerRight));
        assert!(matches!(at(&[(9.0, 0.9), (9.0, 0.1), (1.0, 0.9)]), LowerLeft));
        assert!(matches!(at(&[]), UpperRight));
    }

    #[test]
    fn phases_are_shaded_where_all_runs_have_the_same() {
        let run = |end: f64| Run {
            phases: vec![("warmup".into(), 1.0, 2.0), ("hard".into(), 3.0, end)],
            ..Run::default()
        };
        assert_eq!(common_phases(&[run(9.0), run(9.0)]).len(), 2);
        assert_eq!(common_phases(&[run(9.0)]).len(), 2);
        assert!(common_phases(&[run(9.0), run(8.0)]).is_empty());
        assert!(common_phases(&[]).is_empty());
    }
}
