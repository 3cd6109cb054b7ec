//! The picture of a [`Dashboard`], in the terminal's own colours, so that it is readable on light and dark.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, Gauge, GraphType, LegendPosition, Paragraph, Wrap};

use super::dashboard::Dashboard;
use crate::plot::smoothed;

/// Cells of a matrix's name.
const NAME: usize = 22;
/// Narrower than this there is no room for matrices beside the curves.
const NARROW: u16 = 84;

const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, d: &Dashboard) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(8),
        Constraint::Length(if d.sample.is_some() { 4 } else { 0 }),
        Constraint::Length(5),
        Constraint::Length(1),
    ];
    let [head, gauge, middle, sample, notes, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(d, usize::from(head.width))), head);
    let done = d.step as f64 / d.total.max(1) as f64;
    frame.render_widget(
        Gauge::default()
            .gauge_style(Style::new().fg(Color::Blue))
            .use_unicode(true)
            .ratio(done.clamp(0.0, 1.0)),
        gauge,
    );
    let has_matrices = !d.layers.is_empty() && middle.width >= NARROW;
    let columns = [Constraint::Fill(3), Constraint::Fill(if has_matrices { 2 } else { 0 })];
    let [curves, matrices] = Layout::horizontal(columns).areas(middle);
    let [upper, lower] = Layout::vertical([Constraint::Fill(3), Constraint::Fill(1)]).areas(curves);
    losses(frame, d, upper);
    let rate = [(Color::Magenta, GraphType::Line, "", d.lr.points.as_slice())];
    chart(frame, lower, "learning rate", d, &rate);
    if has_matrices {
        frame.render_widget(
            Paragraph::new(bars(d, matrices)).block(Block::bordered().title(" −1 / 0 / +1 ")),
            matrices,
        );
    }
    if let Some(said) = &d.sample {
        let block =
            Block::new()
                .borders(Borders::TOP)
                .title(format!(" the model of step {}, {} ", said.step, said.form()));
        frame.render_widget(
            Paragraph::new(said.text.as_str())
                .wrap(Wrap { trim: true })
                .block(block),
            sample,
        );
    }
    let room = usize::from(notes.height.saturating_sub(1));
    let last = d.notes.iter().skip(d.notes.len().saturating_sub(room));
    let lines: Vec<Line<'_>> = last.map(|note| Line::styled(note.as_str(), DIM)).collect();
    let block = Block::new().borders(Borders::TOP).title(" notes ");
    frame.render_widget(Paragraph::new(lines).block(block), notes);
    let foot_line = match d.is_stopping {
        true => Line::styled("ending: a checkpoint is written; --resume goes on", BOLD),
        false => Line::styled("q: end with a checkpoint", DIM),
    };
    frame.render_widget(Paragraph::new(foot_line), foot);
}

/// Step, phase, loss, time left, speed, learning rate: as many of them as there is room for.
fn heading(d: &Dashboard, width: usize) -> Line<'_> {
    let mut parts = vec![
        Span::styled(d.title.as_str(), BOLD),
        Span::raw(format!("  step {}/{}  ", d.step, d.total)),
        Span::styled(
            d.phase,
            Style::new().fg(phase_color(d.phase)).add_modifier(Modifier::BOLD),
        ),
    ];
    let more = [
        d.loss.points.last().map(|point| format!("  loss {:.4}", point.1)),
        d.left.as_ref().map(|left| format!("  {left} left")),
        d.tokens_per_second.map(|rate| format!("  {rate:.0} tok/s")),
        d.share_of_peak.map(|share| format!("  {:.0}% of peak", 100.0 * share)),
        // A panel of its own has it.
        d.lr.points.last().map(|point| format!("  lr {:.2e}", point.1)),
    ];
    let mut room = width.saturating_sub(parts.iter().map(Span::width).sum());
    for span in more.into_iter().flatten().map(Span::raw) {
        match room.checked_sub(span.width()) {
            Some(rest) => room = rest,
            None => break,
        }
        parts.push(span);
    }
    Line::from(parts)
}

fn phase_color(phase: &str) -> Color {
    match phase {
        "anneal" => Color::Yellow,
        "hard" => Color::Cyan,
        _ => Color::Reset,
    }
}

fn losses(frame: &mut Frame<'_>, d: &Dashboard, area: Rect) {
    let smooth = smoothed(&d.loss.points);
    let curves = [
        (Color::Blue, GraphType::Line, "training", smooth.as_slice()),
        (
            Color::Yellow,
            GraphType::Scatter,
            "validation",
            d.validation.points.as_slice(),
        ),
    ];
    chart(frame, area, "loss", d, &curves);
}

/// Curves over the steps of the run.
fn chart(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    d: &Dashboard,
    curves: &[(Color, GraphType, &str, &[(f64, f64)])],
) {
    let values = || curves.iter().flat_map(|curve| curve.3).map(|point| point.1);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let (low, high) = if low.is_finite() { (low, high) } else { (0.0, 1.0) };
    let room = (0.05 * (high - low)).max(1e-9 + 1e-6 * high);
    let (low, high) = ((low - room).max(0.0), high + room);
    let right = (d.step.max(1)) as f64;
    let number = |x: f64| {
        if x != 0.0 && x < 0.01 {
            format!("{x:.1e}")
        } else {
            format!("{x:.3}")
        }
    };
    let data = curves
        .iter()
        .filter(|curve| !curve.3.is_empty())
        .map(|&(color, kind, name, points)| {
            let marker = if matches!(kind, GraphType::Scatter) {
                Marker::Dot
            } else {
                Marker::Braille
            };
            let data = Dataset::default().marker(marker).graph_type(kind).data(points);
            let data = data.style(Style::new().fg(color));
            if name.is_empty() { data } else { data.name(name) }
        });
    let chart = Chart::new(data.collect())
        .block(Block::bordered().title(format!(" {title} ")))
        .legend_position(Some(LegendPosition::TopRight))
        .hidden_legend_constraints((Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)))
        .x_axis(
            Axis::default()
                .bounds([0.0, right])
                .labels(["0".to_string(), format!("{right:.0}")])
                .style(DIM),
        )
        .y_axis(
            Axis::default()
                .bounds([low, high])
                .labels([number(low), number(high)])
                .style(DIM),
        );
    frame.render_widget(chart, area);
}

/// A bar for each matrix, or for as many as there is room for, from the first to the last.
fn bars(d: &Dashboard, area: Rect) -> Vec<Line<'_>> {
    let rows = usize::from(area.height.saturating_sub(2)).min(d.layers.len());
    let width = usize::from(area.width.saturating_sub(2))
        .saturating_sub(NAME + 6)
        .max(4);
    let bar = |i: usize| {
        let layer = &d.layers[i * (d.layers.len() - 1) / (rows - 1).max(1)];
        let cells = |share: f64| (share.clamp(0.0, 1.0) * width as f64).round() as usize;
        let zero = cells(layer.zero).min(width);
        // Where the ones were not counted, those of either sign stand on one side.
        let plus = layer.plus.map_or(0, cells).min(width - zero);
        let minus = width - zero - plus;
        let name: String = layer.name.chars().take(NAME - 1).collect();
        let minus_color = if layer.plus.is_some() {
            Color::Blue
        } else {
            Color::Green
        };
        Line::from(vec![
            Span::raw(format!("{name:NAME$}")),
            Span::styled("█".repeat(minus), Style::new().fg(minus_color)),
            Span::styled("░".repeat(zero), DIM),
            Span::styled("█".repeat(plus), Style::new().fg(Color::Red)),
            Span::styled(format!(" {:>3.0}%", 100.0 * layer.zero), DIM),
        ])
    };
    (0..rows).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use onebit_trainer::run::LayerMetrics;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::plot::Run;
    use crate::watch::sampler::Said;
    use crate::watch::tui::News;

    fn dashboard() -> Dashboard {
        let loss: Vec<(f64, f64)> = (1..=90).map(|i| (f64::from(i), 6.0 - 0.04 * f64::from(i))).collect();
        let lr = loss.iter().map(|point| (point.0, 0.001)).collect();
        let before = Run {
            validation: vec![(45.0, 4.5), (90.0, 3.0)],
            loss,
            lr,
            ..Run::default()
        };
        let mut d = Dashboard::new("run".into(), 90, 120, &before);
        d.phase = "hard";
        d.tokens_per_second = Some(1550.0);
        d.share_of_peak = Some(0.43);
        d.left = Some("12 s".into());
        d.layers = (0..30)
            .map(|i| LayerMetrics {
                name: format!("{i}.mlp.up_proj"),
                zero: 0.5,
                plus: (i < 29).then_some(0.25),
                flip: 0.01,
                scale: 1.0,
                clip: 0.1,
            })
            .collect();
        d.take(News::Sample(Said {
            step: 80,
            full_precision: false,
            seed: 1,
            text: "Anna was\na cow.".into(),
        }));
        d.note("step 90: validation\nloss 3.0");
        d
    }

    fn text(d: &Dashboard, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, d)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect()
    }

    #[test]
    fn everything_is_on_the_screen() {
        let rows = text(&dashboard(), 120, 32);
        rows.iter().for_each(|row| println!("{row}"));
        let all = rows.join("\n");
        for part in [
            "step 90/120",
            "hard",
            "loss 2.4000",
            "lr 1.00e-3",
            "1550 tok/s",
            "43% of peak",
            "12 s left",
            "training",
            "validation",
            "learning rate",
            "0.mlp.up_proj",
            "29.mlp.up_proj",
            "step 90: validation loss 3.0",
            "q: end",
            "step 80, packed",
            "Anna was a cow.",
        ] {
            assert!(all.contains(part), "{part}");
        }
        // Half of a bar is zeros, a quarter each sign.
        let bar = rows
            .iter()
            .find(|row| row.contains(" 0.mlp.up_proj") || row.contains("│0.mlp.up_proj"))
            .unwrap();
        let cells: Vec<char> = bar.chars().filter(|c| "█░".contains(*c)).collect();
        let zeros = cells.iter().filter(|c| **c == '░').count();
        assert!(cells.len().abs_diff(2 * zeros) <= 2, "{bar}");
    }

    #[test]
    fn small_terminals_and_empty_runs_can_be_drawn() {
        let empty = Dashboard::new("run".into(), 0, 0, &Run::default());
        for (width, height) in [(1, 1), (20, 5), (80, 24), (83, 12), (84, 9), (300, 100)] {
            text(&empty, width, height);
            text(&dashboard(), width, height);
        }
        let narrow = text(&dashboard(), 64, 24);
        assert!(narrow[0].trim_end().ends_with("12 s left  1550 tok/s"), "{}", narrow[0]);
        let narrow = text(&dashboard(), 80, 24).join("\n");
        assert!(narrow.contains("┌ loss") && !narrow.contains("up_proj"));
        let mut ending = dashboard();
        ending.is_stopping = true;
        assert!(text(&ending, 80, 24).join("\n").contains("--resume goes on"));
    }
}
