//! The picture of runs: loss and perplexity, learning rate, and what became of the ternary matrices, all against the step, the phases shaded.

use plotters::prelude::*;

use super::layers::{flip_lines, mean_lines, zero_lines};
use super::svg::{
    Area, Painted, SIDE, common_phases, curve, free_corner, key, legend, letters, mesh, panel, picture, shade,
};
use super::theme::{COLORS, INK, PAPER, Theme};
use super::{Run, smoothed};
use crate::Result;

const WIDTH: u32 = 960;
/// Heights of the parts.
const LOSS: i32 = 430;
const RATE: i32 = 170;
const MATRICES: i32 = 260;

/// The picture of one run or several as SVG text.
pub(crate) fn draw(runs: &[Run], theme: Theme) -> Result<String> {
    let matrices = if runs.iter().any(|run| !run.layers.is_empty()) {
        MATRICES
    } else {
        0
    };
    let height = (LOSS + RATE + matrices) as u32;
    picture((WIDTH, height), theme, |root| paint(root, runs))
}

fn paint(root: &Area<'_>, runs: &[Run]) -> Painted {
    root.fill(&PAPER)?;
    let (upper, rest) = root.split_vertically(LOSS);
    let (middle, lower) = rest.split_vertically(RATE);
    let points = |curve: fn(&Run) -> &Vec<(f64, f64)>| runs.iter().flat_map(move |run| curve(run).iter().map(|p| p.0));
    // Of everything that is drawn, for what lies far beyond an axis has no place in the picture's whole numbers.
    let steps = points(|r| &r.loss)
        .chain(points(|r| &r.validation))
        .chain(points(|r| &r.lr))
        .chain(runs.iter().flat_map(|run| run.phases.iter().map(|phase| phase.2)))
        .chain(runs.iter().flat_map(|run| {
            run.layers
                .iter()
                .flat_map(|l| l.zero.iter().chain(&l.flip).map(|p| p.0))
        }))
        .fold(1.0, f64::max);
    paint_loss(&upper, runs, steps)?;
    paint_rate(&middle, runs, steps)?;
    let phases = common_phases(runs);
    if let [run] = runs
        && !run.layers.is_empty()
    {
        let (left, right) = lower.split_horizontally(50.percent_width());
        panel(&left, "zeros (of the weights)", steps, phases, zero_lines(run))?;
        panel(&right, "flips (of the weights, a step)", steps, phases, flip_lines(run))?;
    } else if runs.iter().any(|run| !run.layers.is_empty()) {
        let (left, right) = lower.split_horizontally(50.percent_width());
        let lines = mean_lines(runs, |layer| &layer.zero);
        panel(&left, "zeros (mean of the matrices)", steps, phases, lines)?;
        let lines = mean_lines(runs, |layer| &layer.flip);
        panel(&right, "flips a step (mean)", steps, phases, lines)?;
    }
    root.present()?;
    Ok(())
}

/// Loss, and perplexity on the axis at the right: the same lines, for it is its exponential.
fn paint_loss(area: &Area<'_>, runs: &[Run], steps: f64) -> Painted {
    let (low, high) = loss_range(runs);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_bottom(0)
        .x_label_area_size(28)
        .y_label_area_size(SIDE)
        .right_y_label_area_size(SIDE)
        .build_cartesian_2d(0.0..steps, low..high)?
        // Before anything is drawn: the room at the right is the second axis's.
        .set_secondary_coord(0.0..steps, low..high);
    let phases = common_phases(runs);
    shade(&mut chart, phases, (steps, low, high), true)?;
    mesh(&mut chart, "loss (nats a token)", None, steps)?;
    // Shades of several runs would lie over each other: where they differ, a line is where each phase begins.
    if phases.is_empty() {
        for (run, color) in runs.iter().zip(COLORS.iter().cycle()) {
            for (_, from, _) in run.phases.iter().skip(1) {
                let ends = [(*from, low), (*from, high)];
                chart.draw_series([PathElement::new(ends, color.mix(0.5).stroke_width(1))])?;
            }
        }
    }
    let single = runs.len() == 1;
    for (run, &color) in runs.iter().zip(COLORS.iter().cycle()) {
        let name = |what: &str| if single { what.to_string() } else { run.name.clone() };
        if single {
            chart.draw_series(LineSeries::new(run.loss.iter().copied(), color.mix(0.25)))?;
        }
        if !run.loss.is_empty() {
            let line = curve(&mut chart, smoothed(&run.loss), color, 2)?;
            line.label(name("training")).legend(key(color));
        }
        let dots = if single { COLORS[1] } else { color };
        chart.draw_series(LineSeries::new(run.validation.iter().copied(), dots.stroke_width(1)))?;
        let series = chart.draw_series(run.validation.iter().map(|&point| Circle::new(point, 3, dots.filled())))?;
        if !run.validation.is_empty() && (single || run.loss.is_empty()) {
            series
                .label(name("validation"))
                .legend(move |(x, y)| Circle::new((x + 11, y), 3, dots.filled()));
        }
    }
    let drawn: Vec<_> = { runs.iter() }
        .flat_map(|run| smoothed(&run.loss).into_iter().chain(run.validation.iter().copied()))
        .collect();
    legend(&mut chart, free_corner(drawn.iter(), (steps, low, high)))?;
    chart
        .configure_secondary_axes()
        .axis_style(INK)
        .y_desc("perplexity")
        .label_style(letters(13))
        .axis_desc_style(letters(14))
        .y_label_formatter(&|loss| perplexity(*loss))
        .y_labels(6)
        .draw()?;
    Ok(())
}

fn paint_rate(area: &Area<'_>, runs: &[Run], steps: f64) -> Painted {
    let top = runs.iter().flat_map(|run| &run.lr).map(|(_, y)| *y).fold(0.0, f64::max);
    // Below that an axis has no numbers to stand at its lines.
    let top = if top > 1e-30 { 1.08 * top } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_top(4)
        .margin_right(14 + SIDE)
        .x_label_area_size(40)
        .y_label_area_size(SIDE)
        .build_cartesian_2d(0.0..steps, 0.0..top)?;
    shade(&mut chart, common_phases(runs), (steps, 0.0, top), false)?;
    mesh(&mut chart, "learning rate", Some("step"), steps)?;
    for (run, &color) in runs.iter().zip(COLORS.iter().cycle()) {
        curve(&mut chart, run.lr.clone(), color, 2)?;
    }
    Ok(())
}

/// The perplexity of a loss, short enough for an axis.
fn perplexity(loss: f64) -> String {
    match loss.exp() {
        x if x < 10.0 => format!("{x:.2}"),
        x if x < 100.0 => format!("{x:.1}"),
        x if x < 1e5 => format!("{x:.0}"),
        x if x.is_finite() => format!("{x:.0e}"),
        _ => "huge".into(),
    }
}

/// From a little below the lowest loss to a little above the highest, single outliers of the training loss left aside.
fn loss_range(runs: &[Run]) -> (f64, f64) {
    let values = || {
        let curves =
            { runs.iter() }.flat_map(|run| smoothed(&run.loss).into_iter().chain(run.validation.iter().copied()));
        curves.map(|(_, y)| y)
    };
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let (low, high) = if low.is_finite() { (low, high) } else { (0.0, 1.0) };
    // Enough to be seen in the last digit of a large number.
    let room = (0.06 * (high - low)).max(0.01).max(1e-9 * high);
    ((low - room).max(0.0), high + room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::theme::tests::assert_known;

    fn run(name: &str, scale: f64) -> Run {
        let lines: String = (1..=40)
            .map(|i| {
                let phase = ["warmup", "anneal", "hard"][(i - 1) / 14];
                let loss = scale * (3.0 - 0.03 * i as f64);
                format!(
                    "{{\"step\":{i},\"phase\":\"{phase}\",\"loss\":{loss},\"lr\":0.01,\"layers\":[{{\"name\":\"0.a\",\"zero\":0.3,\"flip\":0.1}},{{\"name\":\"3.a\",\"zero\":0.5,\"flip\":0.2}}]}}\n{{\"step\":{i},\"val_loss\":{loss}}}\n"
                )
            })
            .collect();
        Run::parse(&lines, name.into()).unwrap()
    }

    #[test]
    fn a_run_of_one_step_is_seen() {
        let run = Run {
            name: "x".into(),
            loss: vec![(1.0, 4.0)],
            lr: vec![(1.0, 0.5)],
            ..Run::default()
        };
        let text = draw(&[run], Theme::Auto).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(!text.contains("zeros"), "nothing was measured");
        // Loss and learning rate.
        assert_eq!(text.matches("<circle").count(), 2, "{text}");
        // Both axes of steps begin at 0 and end at 1, and nothing is between.
        assert_eq!(text.matches("\n0\n").count(), 3, "{text}");
    }

    #[test]
    fn a_picture_has_every_curve_in_every_theme() {
        let one = draw(&[run("a", 1.0)], Theme::Light).unwrap();
        assert_known(&one);
        // The axis at the right is perplexity's alone.
        for axis in ["loss (nats a token)", "learning rate", "perplexity"] {
            assert_eq!(one.matches(axis).count(), 1, "{axis}");
        }
        let parts = [
            "perplexity",
            "learning rate",
            "zeros (of the weights)",
            "flips (of the weights, a step)",
        ];
        for part in [
            &parts[..],
            &[
                "warmup",
                "anneal",
                "hard",
                "training",
                "validation",
                "block 0",
                "block 3",
            ],
        ]
        .concat()
        {
            assert!(one.contains(part), "{part}");
        }
        let dark = draw(&[run("a", 1.0)], Theme::Dark).unwrap();
        assert!(!dark.contains("\"#FFFFFF\"") && !dark.contains("#3C3C3C"));
        let both = draw(&[run("a", 1.0)], Theme::Auto).unwrap();
        assert!(both.contains("prefers-color-scheme:dark"));
        let several = draw(&[run("first", 1.0), run("second", 1.1)], Theme::Light).unwrap();
        assert_known(&several);
        assert!(
            several.contains("first") && several.contains("second") && several.contains("zeros (mean of the matrices)")
        );
    }

    #[test]
    fn perplexities_are_short() {
        for (loss, text) in [(0.0, "1.00"), (3.0, "20.1"), (5.0, "148"), (14.0, "1e6"), (1e4, "huge")] {
            assert_eq!(perplexity(loss), text);
        }
    }
}
