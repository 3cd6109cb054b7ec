//! Numbers of a run as texts.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::Fact;
use crate::output;
use crate::plot::Run;
use crate::watch::record::RunRecord;

/// A ternary matrix as it was measured last.
#[derive(Debug, Serialize)]
pub(super) struct Matrix {
    name: String,
    /// Percent, for the length of a bar.
    zero_percent: String,
    zero: String,
    flip: String,
    /// The scale, and what it is of the first.
    scale: String,
    drift: String,
    clip: String,
}

/// A moment, in UTC.
pub(super) fn date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%d %H:%M UTC").to_string()
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn last(points: &[(f64, f64)]) -> Option<f64> {
    points.last().map(|point| point.1)
}

/// The few numbers that are looked for first.
pub(super) fn figures(curves: &Run, record: Option<&RunRecord>) -> Vec<[String; 3]> {
    let steps = { curves.loss.iter().chain(&curves.validation) }
        .map(|point| point.0)
        .fold(0.0, f64::max) as u64;
    let of = record.map_or(String::new(), |record| format!("{} of {}", steps, record.total_steps));
    let mut figures = vec![["steps".to_string(), grouped(steps), of]];
    let mut figure = |name: &str, number: String, of: &str| figures.push([name.into(), number, of.into()]);
    let losses = [
        ("training", last(&curves.loss)),
        ("validation", last(&curves.validation)),
    ];
    for (what, loss) in losses {
        if let Some(loss) = loss {
            figure(&format!("{what} loss"), format!("{loss:.4}"), "nats a token");
            figure(&format!("{what} perplexity"), format!("{:.2}", loss.exp()), "a token");
        }
    }
    if let Some(record) = record {
        figure("parameters", output::count(record.parameters), "");
        let (seconds, tokens) = (record.seconds(), record.steps() * record.tokens_per_step);
        if seconds > 0.0 {
            figure("time", output::seconds(seconds), "of training");
            figure(
                "speed",
                format!("{:.0} tok/s", tokens as f64 / seconds),
                "on the average",
            );
        }
    }
    figures
}

/// The matrices, in the order of the file.
pub(super) fn matrices(curves: &Run) -> Vec<Matrix> {
    let percent = |points: &[(f64, f64)], digits: usize| {
        last(points).map_or("–".into(), |y| format!("{:.digits$}%", 100.0 * y))
    };
    let row = |layer: &crate::plot::Layer| {
        let scale = last(&layer.scale);
        let first = layer.scale.first().map(|point| point.1).filter(|first| *first > 0.0);
        Matrix {
            name: layer.name.clone(),
            zero_percent: format!("{:.1}", 100.0 * last(&layer.zero).unwrap_or(0.0).clamp(0.0, 1.0)),
            zero: percent(&layer.zero, 1),
            flip: percent(&layer.flip, 3),
            scale: scale.map_or("–".into(), |scale| format!("{scale:.4}")),
            drift: scale
                .zip(first)
                .map_or("–".into(), |(scale, first)| format!("{:.2}", scale / first)),
            clip: percent(&layer.clip, 1),
        }
    };
    curves.layers.iter().map(row).collect()
}

/// What each command at work on the run ran on.
pub(super) fn sessions(record: &RunRecord) -> Vec<Vec<Fact>> {
    let facts = |session: &crate::watch::record::Session| {
        let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(session.began.min(1 << 40)));
        let mut facts = vec![
            ("began", began.map_or("–".into(), date)),
            ("version", session.version.clone()),
            ("device", session.device.clone()),
            ("CPU path", session.isa.clone()),
            ("threads", session.threads.to_string()),
            ("processes", session.ranks.to_string()),
            ("arithmetic", session.precision.clone()),
            ("steps", format!("{} to {}", session.from_step, session.to_step)),
            ("time", output::seconds(session.seconds)),
        ];
        if let Some(share) = session.share_of_peak {
            facts.push(("of the machine's peak", format!("{:.0}%", 100.0 * share)));
        }
        facts.into_iter().map(|(name, text)| (name.to_string(), text)).collect()
    };
    record.sessions.iter().map(facts).collect()
}

/// What it took in all.
pub(super) fn cost(record: &RunRecord) -> Vec<Fact> {
    let (seconds, steps) = (record.seconds(), record.steps());
    let tokens = steps.saturating_mul(record.tokens_per_step);
    let mut facts = vec![
        ("time", output::seconds(seconds)),
        ("steps", grouped(steps)),
        ("tokens", grouped(tokens)),
    ];
    if seconds > 0.0 {
        facts.push(("tokens a second", format!("{:.0}", tokens as f64 / seconds)));
    }
    if record.parameters > 0 {
        facts.push((
            "tokens a parameter",
            format!("{:.1}", tokens as f64 / record.parameters as f64),
        ));
    }
    facts.into_iter().map(|(name, text)| (name.to_string(), text)).collect()
}

/// The entries of an object; what is no plain value as JSON.
pub(super) fn rows(value: &Value) -> Vec<Fact> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        // Options are f32: their own digits, 0.95 and not 0.949999988.
        Value::Number(n) if n.is_f64() => n.as_f64().map_or_else(String::new, |x| (x as f32).to_string()),
        other => other.to_string(),
    };
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dates_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(date(SystemTime::UNIX_EPOCH), "1970-01-01 00:00 UTC");
        let rows = rows(&serde_json::json!({"a": 0.95f32, "b": [1], "c": "x", "d": null}));
        let texts: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
        assert_eq!(texts, ["0.95", "[1]", "x", "null"]);
    }
}
