//! What is asked for, checked before any work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onebit_model::config::LinearMode;
use onebit_model::files::ONE_FILE_EXTENSION;
use onebit_trainer::search::{Goal, Limits, Width};

use super::Search;
use crate::{CliError, Result, args};

/// Maps that are evaluated unless somebody says otherwise.
const MAX_EVALUATIONS: u64 = 400;
/// Tokens that maps are compared on.
const TOKENS: usize = 8_192;
/// Tokens of a window at most, unless somebody says otherwise: longer ones cost more and tell little about widths.
const CONTEXT: usize = 512;
const FINETUNE_LR: f32 = 3e-4;
const FINETUNE_BATCH: usize = 16;

/// Training under the map that was found.
pub(super) struct Finetune {
    pub steps: u64,
    pub data: PathBuf,
    pub lr: f32,
    pub batch_size: usize,
}

/// The options, as the search needs them.
pub(super) struct Plan {
    pub model: PathBuf,
    pub data: PathBuf,
    pub goal: Goal,
    pub limits: Limits,
    /// `--max-ppl`, of which the loss in `limits` is made once it is known how hard the text is.
    pub max_ppl: Option<f64>,
    pub widths: Vec<Width>,
    pub tokens: usize,
    pub sensitivity_tokens: Option<usize>,
    pub context: Option<usize>,
    pub seed: u64,
    pub compare_random: bool,
    pub output: Option<PathBuf>,
    pub packed: Option<PathBuf>,
    pub plot: Option<PathBuf>,
    pub work: PathBuf,
    pub finetune: Option<Finetune>,
}

impl Plan {
    pub(super) fn of(given: &Search) -> Result<Self> {
        let model = args::either(given.model.clone(), "--model", given.model_dir.clone(), "--model-dir")?;
        let model = args::required(model, "--model")?;
        let data = args::required(given.data.clone(), "--data")?;
        if !data.is_dir() {
            args::existing_file(&data, "--data")?;
        }
        let limits = Limits {
            max_bytes: given.max_size_mb.map(megabytes).transpose()?,
            max_loss: None,
            max_evaluations: Some(given.max_evaluations.unwrap_or(MAX_EVALUATIONS)),
            deadline: given.minutes.map(minutes).transpose()?,
        };
        if let Some(ppl) = given.max_ppl.filter(|ppl| !(*ppl > 1.0 && ppl.is_finite())) {
            return Err(CliError::Usage(format!(
                "--max-ppl: expected a number above 1, found {ppl}"
            )));
        }
        for (option, value) in [
            ("--tokens", given.tokens),
            ("--sensitivity-tokens", given.sensitivity_tokens),
            ("--context", given.context),
            ("--finetune-batch-size", given.finetune_batch_size),
            (
                "--max-evaluations",
                given.max_evaluations.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            ),
        ] {
            if value == Some(0) {
                return Err(CliError::Usage(format!("{option}: expected at least 1, found 0")));
            }
        }
        let output = given.output.clone();
        let beside = |end: &str| output.as_deref().map(|path| path.with_extension(end));
        let plan = Plan {
            goal: match (limits.max_bytes, given.max_ppl) {
                (Some(_), _) => Goal::LeastLoss,
                (None, Some(_)) => Goal::LeastBytes,
                (None, None) => Goal::Front,
            },
            limits,
            max_ppl: given.max_ppl,
            widths: widths(given.widths.as_deref())?,
            tokens: given.tokens.unwrap_or(TOKENS),
            sensitivity_tokens: given.sensitivity_tokens,
            context: given.context,
            seed: given.seed.unwrap_or(42),
            compare_random: given.compare_random,
            packed: given.packed.clone(),
            plot: given.plot.clone().or_else(|| beside("svg")),
            work: match &given.work_dir {
                Some(folder) => folder.clone(),
                None => beside("work").unwrap_or_else(|| "search.work".into()),
            },
            finetune: finetune(given)?,
            model,
            data,
            output,
        };
        plan.check_outputs(given.force)?;
        Ok(plan)
    }

    fn check_outputs(&self, force: bool) -> Result<()> {
        let outputs = [
            ("--output", &self.output),
            ("--packed", &self.packed),
            ("--plot", &self.plot),
        ];
        for (option, path) in outputs {
            if let Some(path) = path {
                args::new_file(path, option, force)?;
            }
        }
        if let Some(path) = &self.packed
            && path.extension().is_none_or(|end| end != ONE_FILE_EXTENSION)
        {
            return Err(CliError::Usage(format!(
                "--packed: expected a name that ends in .1bit, found {}",
                path.display()
            )));
        }
        args::output_directory(&self.work, "--work-dir")
    }

    /// Tokens of a window for a model of such a context.
    pub(super) fn window(&self, context: usize) -> Result<usize> {
        match self.context {
            Some(asked) if asked > context => Err(CliError::Usage(format!(
                "--context: expected 1 to the model's context of {context}, found {asked}"
            ))),
            Some(asked) => Ok(asked),
            None => Ok(context.min(CONTEXT)),
        }
    }

    /// The path of something in the work folder.
    pub(super) fn in_work(&self, name: &str) -> PathBuf {
        Path::join(&self.work, name)
    }
}

fn megabytes(size: f64) -> Result<u64> {
    match size > 0.0 && size < 1e9 {
        true => Ok((size * 1e6).round() as u64),
        false => Err(CliError::Usage(format!(
            "--max-size-mb: expected a number above 0, found {size}"
        ))),
    }
}

fn minutes(minutes: f64) -> Result<Duration> {
    match minutes > 0.0 && minutes < 1e6 {
        true => Ok(Duration::from_secs_f64(60.0 * minutes)),
        false => Err(CliError::Usage(format!(
            "--minutes: expected a number above 0, found {minutes}"
        ))),
    }
}

fn widths(given: Option<&str>) -> Result<Vec<Width>> {
    let Some(given) = given else {
        return Ok(LinearMode::ALL.to_vec());
    };
    let mut widths = Vec::new();
    for name in given.split(',').map(str::trim) {
        let width = LinearMode::by_name(name).filter(|width| width.name() == name);
        let all = LinearMode::ALL.map(LinearMode::name).join(", ");
        let width = width.ok_or_else(|| {
            CliError::Usage(format!(
                "--widths: expected some of {all}, separated by commas, found {name:?}"
            ))
        })?;
        if widths.contains(&width) {
            return Err(CliError::Usage(format!("--widths: {name} is there twice")));
        }
        widths.push(width);
    }
    Ok(widths)
}

fn finetune(given: &Search) -> Result<Option<Finetune>> {
    let steps = given.finetune_steps.unwrap_or(0);
    if steps == 0 {
        for (option, there) in [
            ("--finetune-data", given.finetune_data.is_some()),
            ("--finetune-lr", given.finetune_lr.is_some()),
            ("--finetune-batch-size", given.finetune_batch_size.is_some()),
        ] {
            if there {
                return Err(CliError::Usage(format!("{option} is for --finetune-steps; give both")));
            }
        }
        return Ok(None);
    }
    if given.packed.is_none() {
        return Err(CliError::Usage(
            "--finetune-steps: the weights that are trained go into --packed; give that too".into(),
        ));
    }
    let data = args::required(given.finetune_data.clone(), "--finetune-data")?;
    if !data.is_dir() {
        args::existing_file(&data, "--finetune-data")?;
    }
    let lr = given.finetune_lr.unwrap_or(FINETUNE_LR);
    if !(lr > 0.0 && lr.is_finite()) {
        return Err(CliError::Usage(format!(
            "--finetune-lr: expected a number above 0, found {lr}"
        )));
    }
    Ok(Some(Finetune {
        steps,
        data,
        lr,
        batch_size: given.finetune_batch_size.unwrap_or(FINETUNE_BATCH),
    }))
}
