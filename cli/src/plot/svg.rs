//! The picture: loss over learning rate, both against the step, the phases shaded.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Run, smoothed};
use crate::{CliError, Result};

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Whether something could be drawn.
pub(super) type Painted = std::result::Result<(), Box<dyn std::error::Error>>;

const SIZE: (u32, u32) = (960, 600);
/// Height of the upper part.
const SPLIT: i32 = 430;
/// Runs in turn; distinguishable with the usual colour-vision deficiencies (Okabe & Ito 2008).
pub(super) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const GRID: RGBColor = RGBColor(225, 225, 225);
const INK: RGBColor = RGBColor(60, 60, 60);

/// The picture of one run or several as SVG text.
pub(crate) fn draw(runs: &[Run]) -> Result<String> {
    picture(SIZE, |root| paint(root, runs))
}

/// What `paint` paints, as SVG text.
pub(super) fn picture(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Painted) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        paint(&root)
            .map_err(|e| CliError::Failed(format!("cannot draw the plot: {e}; report this with the metrics file")))?;
    }
    Ok(text)
}

fn paint(root: &Area<'_>, runs: &[Run]) -> Painted {
    root.fill(&WHITE)?;
    let (upper, lower) = root.split_vertically(SPLIT);
    let all = |curve: fn(&Run) -> &Vec<(f64, f64)>| runs.iter().flat_map(move |run| curve(run).iter().copied());
    // Of everything that is drawn, for what lies far beyond an axis has no place in the picture's whole numbers.
    let steps = all(|r| &r.loss)
        .chain(all(|r| &r.validation))
        .chain(all(|r| &r.lr))
        .map(|(x, _)| x)
        .chain(runs.iter().flat_map(|run| run.phases.iter().map(|phase| phase.2)))
        .fold(1.0, f64::max);
    let (low, high) = loss_range(runs);

    let mut chart = ChartBuilder::on(&upper)
        .margin(14)
        .margin_bottom(0)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..steps, low..high)?;
    // Phases of several runs would lie over each other: only one run's are shaded.
    if let [run] = runs {
        for (i, (phase, from, to)) in run.phases.iter().enumerate() {
            let from = if i == 0 { 0.0 } else { *from };
            let to = run.phases.get(i + 1).map_or(*to, |next| next.1);
            let shade = match phase.as_str() {
                "anneal" => RGBColor(253, 243, 224),
                "hard" => RGBColor(226, 240, 247),
                _ => RGBColor(245, 245, 245),
            };
            chart.draw_series([Rectangle::new([(from, low), (to, high)], shade.filled())])?;
            // A phase that is a sliver has no room for its name.
            if to - from > 0.06 * steps {
                let place = (from + 0.008 * steps, high - 0.025 * (high - low));
                chart.draw_series([Text::new(
                    phase.clone(),
                    place,
                    ("sans-serif", 14).into_font().color(&INK),
                )])?;
            }
        }
    }
    mesh(&mut chart, "loss (nats a token)", None)?;
    for (i, run) in runs.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        if runs.len() == 1 {
            chart.draw_series(LineSeries::new(run.loss.iter().copied(), color.mix(0.25)))?;
        }
        let label = if runs.len() == 1 {
            "training".to_string()
        } else {
            run.name.clone()
        };
        if !run.loss.is_empty() {
            let line = chart.draw_series(LineSeries::new(smoothed(&run.loss), color.stroke_width(2)))?;
            line.label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
        }
        let dots = if runs.len() == 1 { COLORS[1] } else { color };
        chart.draw_series(LineSeries::new(run.validation.iter().copied(), dots.stroke_width(1)))?;
        let series = chart.draw_series(run.validation.iter().map(|&point| Circle::new(point, 3, dots.filled())))?;
        if !run.validation.is_empty() && (runs.len() == 1 || run.loss.is_empty()) {
            let label = if runs.len() == 1 {
                "validation".to_string()
            } else {
                run.name.clone()
            };
            series
                .label(label)
                .legend(move |(x, y)| Circle::new((x + 11, y), 3, dots.filled()));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(("sans-serif", 14).into_font().color(&INK))
        .draw()?;

    let top = all(|r| &r.lr).map(|(_, y)| y).fold(0.0, f64::max);
    // Below that an axis has no numbers to stand at its lines.
    let top = if top > 1e-30 { 1.08 * top } else { 1.0 };
    let mut chart = ChartBuilder::on(&lower)
        .margin(14)
        .margin_top(4)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..steps, 0.0..top)?;
    mesh(&mut chart, "learning rate", Some("step"))?;
    for (i, run) in runs.iter().enumerate() {
        chart.draw_series(LineSeries::new(
            run.lr.iter().copied(),
            COLORS[i % COLORS.len()].stroke_width(2),
        ))?;
    }
    root.present()?;
    Ok(())
}

pub(super) type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

pub(super) fn mesh(chart: &mut Chart<'_, '_>, y: &str, x: Option<&str>) -> Painted {
    let small = ("sans-serif", 13).into_font().color(&INK);
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .y_desc(y)
        .label_style(small.clone())
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| number(*y))
        .y_labels(6);
    if let Some(x) = x {
        mesh.x_desc(x);
    }
    mesh.draw()?;
    Ok(())
}

/// Short and exact enough for an axis.
fn number(x: f64) -> String {
    if x != 0.0 && x.abs() < 0.01 {
        format!("{x:.1e}")
    } else {
        format!("{:.3}", x)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string()
    }
}

/// From a little below the lowest loss to a little above the highest, single outliers of the training loss left aside.
fn loss_range(runs: &[Run]) -> (f64, f64) {
    let mut values: Vec<f64> = runs
        .iter()
        .flat_map(|run| smoothed(&run.loss).into_iter().chain(run.validation.iter().copied()))
        .map(|(_, y)| y)
        .collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = match (values.first(), values.last()) {
        (Some(low), Some(high)) => (*low, *high),
        _ => (0.0, 1.0),
    };
    // Enough to be seen in the last digit of a large number.
    let room = (0.06 * (high - low)).max(0.01).max(1e-9 * high);
    ((low - room).max(0.0), high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        for (x, text) in [(0.0, "0"), (2.5, "2.5"), (0.006, "6.0e-3"), (10.0, "10")] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn a_run_of_one_step_can_be_drawn() {
        let run = Run {
            name: "x".into(),
            loss: vec![(1.0, 4.0)],
            ..Run::default()
        };
        let text = draw(&[run]).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
    }
}
