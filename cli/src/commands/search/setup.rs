//! From a model and a text to what a search works with, and on to its end.

use std::sync::atomic::Ordering;

use onebit_model::evaluation;
#[cfg(feature = "cuda")]
use onebit_model::runtime::cuda::CudaModel;
use onebit_model::runtime::{KvType, PackedModel};
use onebit_trainer::TrainError;
use onebit_trainer::run::RunLock;
use onebit_trainer::search::model::{Calibration, Measured, ModelEvaluator, Palette, Score, Weighing, measure};
use onebit_trainer::search::{
    Clock, Evaluator, Hooks, Journal, Limits, Options, Problem, Progress as Told, Report, SearchError, Sensitivity,
    Sites, Stopwatch, search, smallest,
};
use onebit_trainer::storage::Disk;

use super::finish::{self, Found};
use super::options::Plan;
use super::outcome::Unreachable;
use super::{Search, compare};
use crate::commands::eval::read_corpus;
use crate::convert::Subject;
use crate::device::{self, Placement};
use crate::progress::Progress;
use crate::{CliError, Result, interrupt};

/// What a search works with.
pub(super) struct Work<'a> {
    pub plan: &'a Plan,
    pub subject: &'a Subject,
    pub palette: &'a Palette,
    pub sites: &'a Sites,
    pub evaluator: &'a ModelEvaluator<'a>,
    pub sensitivity: &'a Sensitivity,
    pub measured: &'a Measured,
    /// The whole text.
    pub ids: &'a [u32],
    pub context: usize,
    /// Time since the command began: the minutes count what comes before the search too.
    pub clock: Stopwatch,
    /// Tokens that each width alone was tried on.
    pub sensitivity_tokens: usize,
    /// Limits, `--max-ppl` among them as a loss on the tokens that are compared.
    pub max_loss: Option<f64>,
}

pub(super) fn run(given: &Search, plan: &Plan) -> Result<()> {
    let clock = Stopwatch::start();
    let subject = Subject::read(&plan.model, None)?;
    let Some(tokenizer) = &subject.tokenizer else {
        return Err(CliError::Failed(format!(
            "--model: {} has no tokenizer, and the text of --data is to be read; put a tokenizer.json there",
            plan.model.display()
        )));
    };
    let source = subject.source();
    let _lock = RunLock::take(&plan.work)?;
    let context = plan.window(source.config().max_position_embeddings)?;
    let mut place = device::place(given.device.as_deref(), given.threads)?;
    let corpus = read_corpus(&plan.data, tokenizer, source.config().vocab_size)?;
    let packed_tokenizer = tokenizer.pack();
    let parts = subject.parts(packed_tokenizer.as_deref());
    let weighing = Weighing::new(source, parts)?;
    let palette = {
        let progress = Progress::new("palette", 1000);
        let told = |done: u64, of: u64| progress.set(1000 * done / of.max(1), String::new);
        Palette::open(source, &plan.work, &plan.widths, &told)?
    };
    let sites = weighing.sites(&palette)?;
    let calibration = Calibration::new(&palette, &corpus.ids, plan.tokens, context)?;
    // A GPU that cannot run the largest of the maps runs none.
    place.upload(&palette.model(&sites.highest())?, context, KvType::F32)?;
    let evaluator = ModelEvaluator::new(&palette, calibration, &weighing, scorer(&place, context));
    let (least, _) = smallest(&sites, &evaluator);
    if let Some(most) = plan.limits.max_bytes.filter(|most| *most < least) {
        return Err(CliError::Failed(Unreachable::bytes(most, least).message()));
    }

    let stop = interrupt::poll();
    let interrupted = || stop.load(Ordering::Relaxed);
    let late = || plan.limits.deadline.is_some_and(|deadline| clock.elapsed() >= deadline);
    let tokens = sensitivity_tokens(plan, &palette, &evaluator.calibration);
    let measured = {
        let progress = Progress::new("sensitivities", (sites.len() * (plan.widths.len() - 1)) as u64);
        let told = |done: u64, _| progress.set(done, || format!("{done} widths tried"));
        let stopped = || interrupted() || late();
        measure(&palette, &evaluator.calibration, tokens, &plan.work, &stopped, &told)?
    };
    let Some(measured) = measured else {
        return Err(match interrupted() {
            true => interruption(plan),
            false => CliError::Failed(format!(
                "--minutes: they were over before every width had been tried; what is known is kept in {}: the same command goes on, with more minutes or --sensitivity-tokens below {tokens}",
                plan.work.display()
            )),
        });
    };
    let sensitivity = Sensitivity::new(measured.rises(), &sites).map_err(TrainError::from)?;
    let mut work = Work {
        plan,
        subject: &subject,
        palette: &palette,
        sites: &sites,
        evaluator: &evaluator,
        sensitivity: &sensitivity,
        measured: &measured,
        ids: &corpus.ids,
        context,
        clock,
        sensitivity_tokens: tokens,
        max_loss: None,
    };
    work.max_loss = finish::loss_of(plan.max_ppl, &work)?;
    let mut journal = work.journal()?;
    let report = work.search(&mut journal, &interrupted)?;
    let random = match plan.compare_random {
        true => Some(compare::random(&work, &report, &mut journal, &interrupted)?),
        false => None,
    };
    if interrupted() {
        return Err(interruption(plan));
    }
    interrupt::forget();
    finish::finish(&work, &place, &journal, Found { report, random }, given.json)
}

/// Tokens that widths are tried on: the streams of the reference have to lie in memory.
fn sensitivity_tokens(plan: &Plan, palette: &Palette, calibration: &Calibration<'_>) -> usize {
    const MOST_BYTES: usize = 1 << 30;
    let all = calibration.stages().last().copied().unwrap_or(1);
    let config = palette.config();
    let each = 4 * config.hidden_size * (config.num_hidden_layers + 1);
    let asked = plan.sensitivity_tokens.unwrap_or(all.div_ceil(4)).min(all);
    asked.min((MOST_BYTES / each.max(1)).max(calibration.context())).max(1)
}

/// How a model is scored: what `onebit eval` does, on the device that was chosen. The logits of a GPU are those of the CPU, and so are the losses.
fn scorer(place: &Placement, context: usize) -> Box<Score<'static>> {
    let isa = place.isa;
    #[cfg(feature = "cuda")]
    if let Some(gpu) = place.gpu.clone() {
        // One model at a time: its work fills the GPU.
        let turn = std::sync::Mutex::new(());
        return Box::new(
            move |model: &PackedModel, ids: &[u32], progress: &(dyn Fn(u64) + Sync)| {
                let _turn = turn.lock();
                let failed = |error: &dyn std::fmt::Display| TrainError::Runtime(error.to_string());
                let model = CudaModel::new(&gpu, model).map_err(|e| failed(&e))?;
                let score =
                    evaluation::score_on_gpu(&model, ids, (context, context), KvType::F32, &|done| progress(done))?;
                Ok(score.loss())
            },
        );
    }
    Box::new(
        move |model: &PackedModel, ids: &[u32], progress: &(dyn Fn(u64) + Sync)| {
            let score = evaluation::score(model, isa, ids, (context, context), KvType::F32, progress)?;
            Ok(score.loss())
        },
    )
}

pub(super) fn interruption(plan: &Plan) -> CliError {
    CliError::Interrupted(format!(
        "interrupted; what is known is kept in {}: the same command goes on",
        plan.work.display()
    ))
}

pub(super) fn failed(error: SearchError<TrainError>) -> CliError {
    match error {
        SearchError::Evaluation(error) => CliError::Train(error),
        other => CliError::Failed(other.to_string()),
    }
}

impl Work<'_> {
    /// What evaluations are kept in.
    fn journal(&self) -> Result<Journal> {
        let name = self.evaluator.inputs();
        // A journal for each model and text, so that several may share the folder.
        let path = self.plan.in_work(&format!("journal-{}.jsonl", &name[..16]));
        Journal::open(&Disk, &path, &name, self.sites).map_err(|e| CliError::Failed(e.to_string()))
    }

    fn search(&self, journal: &mut Journal, interrupted: &(dyn Fn() -> bool + Sync)) -> Result<Report> {
        let problem = self.problem();
        let limits = Limits {
            max_loss: self.max_loss,
            ..self.plan.limits
        };
        let progress = Progress::new("searching", limits.max_evaluations.unwrap_or(0));
        let mut told = |told: Told<'_>| {
            progress.set(told.evaluations, || match told.best {
                Some(best) => format!("perplexity {:.3} at {:.2} MB", best.loss.exp(), best.bytes as f64 / 1e6),
                None => told.phase.name().into(),
            });
        };
        let hooks = Hooks {
            interrupted,
            clock: &self.clock,
            progress: &mut told,
            journal: Some(journal),
        };
        let options = Options {
            seed: self.plan.seed,
            ..Options::default()
        };
        search(&problem, self.plan.goal, &limits, &options, hooks).map_err(failed)
    }

    pub(super) fn problem(&self) -> Problem<'_, ModelEvaluator<'_>> {
        Problem {
            sites: self.sites,
            sensitivity: self.sensitivity,
            evaluator: self.evaluator,
        }
    }

    /// All tokens that maps are compared on.
    pub(super) fn tokens(&self) -> usize {
        self.evaluator.stages().last().copied().unwrap_or(1)
    }
}
