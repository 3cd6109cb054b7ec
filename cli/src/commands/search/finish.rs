//! From what was found to what is written and told.

use std::path::Path;

use onebit_model::files::{ModelSource, replace_file};
use onebit_model::runtime::PackedModel;
use onebit_trainer::search::{Candidate, Clock, Evaluator, Goal, Journal, Outcome, Point, Report};

use super::compare::{Uniform, uniform};
use super::outcome::{Chosen, Summary, Unreachable};
use super::setup::Work;
use super::{finetune, outcome, table};
use crate::device::Placement;
use crate::plot::draw_front;
use crate::progress::Progress;
use crate::{CliError, Result, output};

/// Without a limit the chosen map is the smallest within so much of the least loss: one percent of perplexity.
const WITHIN: f64 = 0.01;
/// Maps beside the nearest that are scored on the whole text where none reaches the limit.
const ALSO_RAN: usize = 2;

/// What the search gave.
pub(super) struct Found {
    pub report: Report,
    pub random: Option<Report>,
}

/// `--max-ppl` as a loss on the tokens that maps are compared on: as much below or above the logarithm as the source itself is there, for some parts of a text are harder than others.
pub(super) fn loss_of(max_ppl: Option<f64>, work: &Work<'_>) -> Result<Option<f64>> {
    let Some(ppl) = max_ppl else { return Ok(None) };
    let held = work.palette.held();
    let harder = match work.is_whole() {
        true => 0.0,
        false => work.whole_loss(held)? - work.evaluator.loss(held, work.tokens())?,
    };
    Ok(Some(ppl.ln() - harder))
}

impl Work<'_> {
    /// Whether maps are compared on the whole text.
    pub(super) fn is_whole(&self) -> bool {
        self.tokens() + 1 >= self.ids.len()
    }

    /// The loss of a map on the whole text.
    pub(super) fn whole_loss(&self, map: &Candidate) -> Result<f64> {
        self.score_whole(&self.palette.model(map)?)
    }

    /// The loss of a model on the whole text.
    pub(super) fn score_whole(&self, model: &PackedModel) -> Result<f64> {
        let progress = Progress::new("the whole text", self.ids.len() as u64 - 1);
        let told = |done| progress.set(done, String::new);
        Ok(self.evaluator.score(model, self.ids, &told)?)
    }
}

/// Writes and tells what was found.
pub(super) fn finish(work: &Work<'_>, place: &Placement, journal: &Journal, found: Found, json: bool) -> Result<()> {
    let uniform = uniform(work, journal)?;
    let (chosen, unreachable) = choose(work, &found.report)?;
    let mut summary = Summary::of(work, &found, &uniform, unreachable.as_ref());
    let plan = work.plan;
    if unreachable.is_none() {
        let mut told = Chosen::of(work, &chosen.point, chosen.whole);
        if let Some(path) = &plan.packed {
            match &plan.finetune {
                Some(how) => {
                    let tuned = finetune::tune(work, &chosen.point.map, how, place)?;
                    pack(work, &tuned, path, &chosen.point)?;
                    told.finetuned = Some(finetune::scored(work, how, path)?);
                }
                None => pack(work, work.subject.source(), path, &chosen.point)?,
            }
            summary.packed = Some(path.clone());
        }
        summary.chosen = Some(told);
    }
    if let Some(path) = &plan.plot {
        let front = found.report.front.points();
        let marks: Vec<(&str, f64, f64)> = { uniform.iter() }
            .map(|Uniform { width, bytes, loss }| (*width, *bytes as f64 / 1e6, loss.exp()))
            .collect();
        let random = found.random.as_ref().map_or(&[][..], |random| random.front.points());
        let curve = |points: &[Point]| -> Vec<(f64, f64)> {
            points
                .iter()
                .map(|point| (point.bytes as f64 / 1e6, point.loss.exp()))
                .collect()
        };
        let at = (chosen.point.bytes as f64 / 1e6, chosen.point.loss.exp());
        write(path, &draw_front(&curve(front), &curve(random), &marks, Some(at))?)?;
        summary.plot = Some(path.clone());
    }
    if let Some(path) = &plan.output {
        write(path, &outcome::text(&summary)?)?;
        summary.output = Some(path.clone());
    }
    match json {
        true => output::json(&summary)?,
        false => table::print(&summary, work.clock.elapsed().as_secs_f64())?,
    }
    match unreachable {
        Some(unreachable) => Err(CliError::Failed(unreachable.message())),
        None => Ok(()),
    }
}

/// Writes the weights of `source` under the map of `point`, in the bytes that were promised.
fn pack(work: &Work<'_>, source: &dyn ModelSource, path: &Path, point: &Point) -> Result<()> {
    let modes = work.palette.config_of(&point.map);
    let file = work.subject.write_map(source, path, &modes, None)?;
    let bytes = file.file_bytes() as u64;
    if bytes != point.bytes {
        return Err(CliError::Failed(format!(
            "--packed: {} has {bytes} bytes, and {} were promised; report this",
            path.display(),
            point.bytes
        )));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |e: std::io::Error| CliError::io(path, "write", &e, "check the space and the permissions there");
    replace_file(path, |temporary| std::fs::write(temporary, text).map_err(failed))
}

/// A map that was chosen, and its loss on the whole text.
struct Choice {
    point: Point,
    whole: f64,
}

/// The map that was asked for; with a limit that cannot be met the nearest, and which it is.
fn choose(work: &Work<'_>, report: &Report) -> Result<(Choice, Option<Unreachable>)> {
    let nothing = || {
        CliError::Failed(format!(
            "no map was evaluated before the limits ended the search ({} evaluations); give it more",
            report.evaluations
        ))
    };
    let point = match &report.outcome {
        Outcome::Found(point) => match work.plan.goal {
            Goal::Front => knee(report).unwrap_or(point).clone(),
            _ => point.clone(),
        },
        Outcome::TooFewBytes { asked, least, .. } => {
            return Err(CliError::Failed(Unreachable::bytes(*asked, *least).message()));
        }
        Outcome::LossNotReached { asked, nearest } => {
            let asked = work.plan.max_ppl.unwrap_or(asked.exp());
            // A few of the best, for the whole text may see another one in front.
            let mut best = Choice {
                point: nearest.clone(),
                whole: work.whole_loss(&nearest.map)?,
            };
            let others = report.front.points().iter().rev().filter(|point| *point != nearest);
            for point in others.take(ALSO_RAN) {
                let whole = work.whole_loss(&point.map)?;
                if whole < best.whole {
                    let point = point.clone();
                    best = Choice { point, whole };
                }
            }
            let unreachable = Unreachable::perplexity(asked, best.point.bytes, best.whole.exp(), report.end);
            return Ok((best, Some(unreachable)));
        }
        Outcome::Nothing => return Err(nothing()),
    };
    let Some(most) = work.plan.max_ppl else {
        let whole = work.whole_loss(&point.map)?;
        return Ok((Choice { point, whole }, None));
    };
    // What was compared on a part of the text has to hold on all of it: if it does not, the next larger one is asked.
    let larger = report.front.points().iter().filter(|other| other.bytes > point.bytes);
    let mut nearest: Option<Choice> = None;
    for point in std::iter::once(&point).chain(larger) {
        let whole = work.whole_loss(&point.map)?;
        let choice = Choice {
            point: point.clone(),
            whole,
        };
        if whole.exp() <= most {
            return Ok((choice, None));
        }
        if nearest.as_ref().is_none_or(|nearest| whole < nearest.whole) {
            nearest = Some(choice);
        }
    }
    let nearest = nearest.ok_or_else(nothing)?;
    let unreachable = Unreachable::perplexity(most, nearest.point.bytes, nearest.whole.exp(), report.end);
    Ok((nearest, Some(unreachable)))
}

/// The smallest map of the front that is within a percent of its least perplexity.
fn knee(report: &Report) -> Option<&Point> {
    let points = report.front.points();
    let least = points.last()?.loss;
    points.iter().find(|point| point.loss <= least + WITHIN)
}
