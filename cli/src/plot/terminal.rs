//! A small loss curve in characters.

use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};

use super::{Run, smoothed};

/// Dots of the drawing area; a character holds 2 × 4 of them.
const WIDTH: u32 = 120;
const HEIGHT: u32 = 40;

/// The training loss of a run (its validation loss if there is no other), smoothed, for a terminal; empty for fewer than two points.
pub(crate) fn curve(run: &Run) -> String {
    let points = if run.loss.len() > 1 {
        smoothed(&run.loss)
    } else {
        run.validation.clone()
    };
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    // As they are drawn: large steps may differ by too little.
    if last.0 as f32 <= first.0 as f32 {
        return String::new();
    }
    let line: Vec<(f32, f32)> = points.iter().map(|&(x, y)| (x as f32, y as f32)).collect();
    let low = line.iter().map(|p| p.1).fold(f32::INFINITY, f32::min);
    let high = line.iter().map(|p| p.1).fold(f32::NEG_INFINITY, f32::max);
    let room = (0.02 * (high - low)).max(1e-3).max(1e-5 * high);
    let shape = Shape::Lines(&line);
    let mut chart = Chart::new_with_y_range(WIDTH, HEIGHT, first.0 as f32, last.0 as f32, low - room, high + room);
    let chart = chart
        .lineplot(&shape)
        .x_label_format(LabelFormat::Value)
        .y_label_format(LabelFormat::Value);
    chart.figures();
    let body = chart.frame();
    let rows = (HEIGHT / 4) as usize;
    let mut text = String::from("  loss\n");
    // The frame ends with an empty row.
    for (i, row) in body.lines().take(rows).enumerate() {
        let label = match i {
            0 => format!("{high:.3}"),
            i if i + 1 == rows => format!("{low:.3}"),
            _ => String::new(),
        };
        text.push_str(&format!("{label:>9} │{}\n", row.trim_end()));
    }
    let width = (WIDTH / 2) as usize;
    let (from, to) = (format!("{:.0}", first.0), format!("{:.0}", last.0));
    let gap = width.saturating_sub(from.len());
    text.push_str(&format!(
        "{:10}└{}\n{:11}{from}{to:>gap$}  step\n",
        "",
        "─".repeat(width),
        ""
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_falls_from_left_to_right() {
        let loss = (1..=200).map(|i| (f64::from(i), 5.0 - 0.02 * f64::from(i))).collect();
        let text = curve(&Run { loss, ..Run::default() });
        println!("{text}");
        let rows: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('│')?.1)).collect();
        assert_eq!(rows.len(), (HEIGHT / 4) as usize);
        let marked = |row: &str| row.chars().position(|c| c != ' ' && c != '\u{2800}');
        let (top, bottom) = (marked(rows[0]).unwrap(), marked(rows[rows.len() - 1]).unwrap());
        assert!(top + 30 < bottom, "{top} {bottom}");
    }

    #[test]
    fn one_point_is_no_curve() {
        assert_eq!(
            curve(&Run {
                loss: vec![(1.0, 2.0)],
                ..Run::default()
            }),
            ""
        );
    }
}
