//! The result for people.

use super::outcome::Summary;
use crate::{Result, output};

/// Points of a front that are printed: a long one is thinned out.
const MOST_ROWS: usize = 16;

struct Line {
    bytes: u64,
    ppl: f64,
    what: String,
}

/// Prints front, uniform models and the chosen map, by bytes.
pub(super) fn print(summary: &Summary, seconds: f64) -> Result<()> {
    let chosen = summary.chosen.as_ref();
    let step = summary.front.len().div_ceil(MOST_ROWS).max(1);
    let mut lines = Vec::new();
    for (at, point) in summary.front.iter().enumerate() {
        let is_chosen =
            chosen.is_some_and(|chosen| (chosen.at.bytes, chosen.at.loss) == (point.at.bytes, point.at.loss));
        if at % step != 0 && at + 1 != summary.front.len() && !is_chosen {
            continue;
        }
        let what = match is_chosen {
            true => format!("point {at}, chosen"),
            false => format!("point {at}"),
        };
        lines.push(Line {
            bytes: point.at.bytes,
            ppl: point.at.ppl,
            what,
        });
    }
    lines.extend(summary.uniform.iter().map(|uniform| Line {
        bytes: uniform.at.bytes,
        ppl: uniform.at.ppl,
        what: format!("all {}", uniform.width),
    }));
    lines.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.ppl.total_cmp(&b.ppl)));
    let on = summary.measured_on();
    let mut text = format!("{:>12}  {:>12}  \n", "MB", "perplexity");
    for line in lines {
        let ppl = match line.ppl < 1e6 {
            true => format!("{:.4}", line.ppl),
            false => format!("{:.3e}", line.ppl),
        };
        text += &format!("{:>12.6}  {ppl:>12}  {}\n", line.bytes as f64 / 1e6, line.what);
    }
    output::text(&text)?;
    let (ended, evaluations) = summary.ended();
    let mut rows = vec![
        ("tokens", format!("{} in windows of {}", on.tokens, on.stride)),
        ("evaluations", format!("{evaluations}; ended by: {ended}")),
        ("time", output::seconds(seconds)),
    ];
    if let Some(random) = &summary.random {
        let of = random.front.len();
        rows.push((
            "random maps",
            format!(
                "{} evaluated, on as many tokens; of their {of} best {} are dominated",
                random.evaluations, random.dominated
            ),
        ));
    }
    if let Some(chosen) = chosen {
        let what = format!(
            "{} bytes, perplexity {:.4}; {:.4} on the whole text",
            chosen.at.bytes, chosen.at.ppl, chosen.whole_ppl
        );
        rows.push(("chosen", what));
        if let Some(tuned) = &chosen.finetuned {
            rows.push((
                "fine-tuned",
                format!(
                    "perplexity {:.4}; {:.4} on the whole text, after {} steps",
                    tuned.ppl, tuned.whole_ppl, tuned.steps
                ),
            ));
        }
    }
    for (name, path) in [
        ("map", &summary.output),
        ("model", &summary.packed),
        ("plot", &summary.plot),
    ] {
        if let Some(path) = path {
            rows.push((name, path.display().to_string()));
        }
    }
    output::table(&rows)
}
