//! The result as JSON: what was found, and what is promised of it.

use std::path::PathBuf;

use onebit_trainer::search::{End, Goal, Point, Report};
use serde::Serialize;
use serde_json::Value;

use super::compare::Uniform;
use super::finish::Found;
use super::setup::Work;
use crate::{CliError, Result};

/// The whole of `map.json`. Equal inputs give equal bytes, unless `--minutes` ended the search.
#[derive(Serialize)]
pub(super) struct Summary {
    model: PathBuf,
    data: PathBuf,
    goal: &'static str,
    limits: Limits,
    seed: u64,
    widths: Vec<&'static str>,
    /// What the figures of `front`, `uniform` and `sensitivities` were measured on.
    measured_on: MeasuredOn,
    /// Why the search ended.
    ended: &'static str,
    evaluations: u64,
    evaluated_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<Unreachable>,
    /// The chosen map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Chosen>,
    pub front: Vec<OnFront>,
    pub uniform: Vec<UniformRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Random>,
    reference: Reference,
    sensitivities: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plot: Option<PathBuf>,
    #[serde(skip)]
    pub output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Limits {
    max_bytes: Option<u64>,
    max_ppl: Option<f64>,
    max_evaluations: Option<u64>,
    minutes: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct MeasuredOn {
    pub tokens: usize,
    pub stride: usize,
    /// Tokens that each width alone was tried on.
    sensitivity_tokens: usize,
    /// Tokens of the whole text.
    whole_tokens: usize,
}

/// Bytes of a file, and its loss on the tokens that maps are compared on.
#[derive(Serialize)]
pub(super) struct Place {
    pub bytes: u64,
    pub loss: f64,
    pub ppl: f64,
}

impl Place {
    fn new(bytes: u64, loss: f64) -> Self {
        let ppl = loss.exp();
        Place { bytes, loss, ppl }
    }

    fn of(point: &Point) -> Self {
        Place::new(point.bytes, point.loss)
    }
}

/// A map that was chosen.
#[derive(Serialize)]
pub(super) struct Chosen {
    #[serde(flatten)]
    pub at: Place,
    /// On the whole text, in windows that do not overlap.
    pub whole_loss: f64,
    pub whole_ppl: f64,
    layer_bit_map: Value,
    /// Of the weights that were trained under the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetuned: Option<Finetuned>,
}

/// What training under the map came to.
#[derive(Serialize)]
pub(super) struct Finetuned {
    pub steps: u64,
    pub loss: f64,
    pub ppl: f64,
    pub whole_loss: f64,
    pub whole_ppl: f64,
}

#[derive(Serialize)]
pub(super) struct OnFront {
    #[serde(flatten)]
    pub at: Place,
    layer_bit_map: Value,
}

#[derive(Serialize)]
pub(super) struct UniformRow {
    pub width: &'static str,
    #[serde(flatten)]
    pub at: Place,
}

/// Random maps.
#[derive(Serialize)]
pub(super) struct Random {
    pub evaluations: u64,
    /// Tokens of all evaluations, about as many as those of the search.
    pub evaluated_tokens: u64,
    /// Of the random maps' own front, those to which the search has a map that is neither larger nor worse.
    pub dominated: usize,
    pub front: Vec<Place>,
}

#[derive(Serialize)]
struct Reference {
    layer_bit_map: Value,
    /// On `sensitivity_tokens`.
    loss: f64,
}

/// What a width of a matrix alone does.
#[derive(Serialize)]
struct Row {
    matrix: String,
    width: &'static str,
    /// Bytes of the file beyond the smallest width of this matrix.
    bytes: u64,
    /// Nats a token more than the reference; null where the loss is not finite.
    rise: Option<f64>,
    error: Option<f64>,
}

/// A limit that no map meets.
#[derive(Clone, Serialize)]
pub(super) struct Unreachable {
    limit: &'static str,
    asked: f64,
    /// What comes nearest: megabytes, or perplexity on the whole text.
    nearest: f64,
    bytes: u64,
    /// Whether the search came to its own end; a limit on evaluations or minutes may have hidden a better map.
    exhausted: bool,
}

impl Unreachable {
    pub(super) fn bytes(asked: u64, least: u64) -> Self {
        Unreachable {
            limit: "max-size-mb",
            asked: asked as f64 / 1e6,
            nearest: least as f64 / 1e6,
            bytes: least,
            exhausted: true,
        }
    }

    pub(super) fn perplexity(asked: f64, bytes: u64, nearest: f64, end: End) -> Self {
        Unreachable {
            limit: "max-ppl",
            asked,
            nearest,
            bytes,
            exhausted: end == End::Done,
        }
    }

    pub(super) fn message(&self) -> String {
        let (limit, asked, nearest) = (self.limit, self.asked, self.nearest);
        match self.limit {
            "max-size-mb" => {
                let bytes = self.bytes;
                format!("--{limit} {asked}: no map is as small; the smallest has {bytes} bytes: ask for {nearest:.6}")
            }
            _ => {
                let more = match self.exhausted {
                    true => "",
                    false => ", or give the search more evaluations",
                };
                let size = self.bytes as f64 / 1e6;
                format!(
                    "--{limit} {asked}: no map that was found has it; the nearest has {nearest:.4} with {size:.6} MB: ask for that{more}"
                )
            }
        }
    }
}

/// The word for why a search ended.
fn word(end: End) -> &'static str {
    match end {
        End::Done => "nothing better was found",
        End::Evaluations => "max-evaluations",
        End::Deadline => "minutes",
        End::Interrupted => "interrupted",
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl Chosen {
    pub(super) fn of(work: &Work<'_>, point: &Point, whole: f64) -> Self {
        Chosen {
            at: Place::of(point),
            whole_loss: whole,
            whole_ppl: whole.exp(),
            layer_bit_map: work.palette.config_of(&point.map).layer_bit_map(),
            finetuned: None,
        }
    }
}

impl Summary {
    pub(super) fn of(work: &Work<'_>, found: &Found, uniform: &[Uniform], unreachable: Option<&Unreachable>) -> Self {
        let plan = work.plan;
        let report: &Report = &found.report;
        let on_front = |point: &Point| OnFront {
            at: Place::of(point),
            layer_bit_map: work.palette.config_of(&point.map).layer_bit_map(),
        };
        let random = found.random.as_ref().map(|random| Random {
            evaluations: random.evaluations,
            evaluated_tokens: random.tokens,
            dominated: { random.front.points().iter() }
                .filter(|point| (report.front.within(point.bytes)).is_some_and(|ours| ours.loss <= point.loss))
                .count(),
            front: random.front.points().iter().map(Place::of).collect(),
        });
        let mut sensitivities = Vec::new();
        for (site, (cells, at)) in work.sites.all().iter().zip(work.measured.cells.iter().zip(0..)) {
            for (number, (choice, cell)) in site.choices.iter().zip(cells).enumerate() {
                sensitivities.push(Row {
                    matrix: site.name.clone(),
                    width: choice.width.name(),
                    bytes: choice.bytes,
                    rise: finite(work.sensitivity.rise(at, number as u8)),
                    error: finite(cell.error),
                });
            }
        }
        Summary {
            model: plan.model.clone(),
            data: plan.data.clone(),
            goal: match plan.goal {
                Goal::LeastLoss => "least perplexity",
                Goal::LeastBytes => "fewest bytes",
                Goal::Front => "front",
            },
            limits: Limits {
                max_bytes: plan.limits.max_bytes,
                max_ppl: plan.max_ppl,
                max_evaluations: plan.limits.max_evaluations,
                minutes: plan.limits.deadline.map(|deadline| deadline.as_secs_f64() / 60.0),
            },
            seed: plan.seed,
            widths: plan.widths.iter().map(|width| width.name()).collect(),
            measured_on: MeasuredOn {
                tokens: work.tokens(),
                stride: work.context,
                sensitivity_tokens: work.sensitivity_tokens,
                whole_tokens: work.ids.len() - 1,
            },
            ended: word(report.end),
            evaluations: report.evaluations,
            evaluated_tokens: report.tokens,
            unreachable: unreachable.cloned(),
            chosen: None,
            front: report.front.points().iter().map(on_front).collect(),
            uniform: { uniform.iter() }
                .map(|Uniform { width, bytes, loss }| UniformRow {
                    width,
                    at: Place::new(*bytes, *loss),
                })
                .collect(),
            random,
            reference: Reference {
                layer_bit_map: work.palette.config_of(&work.measured.reference).layer_bit_map(),
                loss: work.measured.loss,
            },
            sensitivities,
            packed: None,
            plot: None,
            output: None,
        }
    }

    pub(super) fn measured_on(&self) -> &MeasuredOn {
        &self.measured_on
    }

    pub(super) fn ended(&self) -> (&'static str, u64) {
        (self.ended, self.evaluations)
    }
}

/// The text of `map.json`.
pub(super) fn text(summary: &Summary) -> Result<String> {
    let text = serde_json::to_string_pretty(summary);
    text.map(|text| text + "\n")
        .map_err(|e| CliError::Failed(format!("cannot write the result as JSON: {e}; report this")))
}
