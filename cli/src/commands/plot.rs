//! `onebit plot`: curves of training runs.

use std::io::IsTerminal;
use std::path::PathBuf;

use argh::FromArgs;
use serde::Serialize;

use crate::plot::{Run, curve, draw, draw_layers};
use crate::{CliError, Result, args, output};

/// Draws the loss and the learning rate of one run or several, or the ternary matrices of one.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "plot",
    example = "{command_name} model/metrics.jsonl --output loss.svg",
    note = "On a terminal the first run's loss is also shown as characters."
)]
pub struct Plot {
    /// metrics.jsonl files, or directories of runs
    #[argh(positional, arg_name = "metrics")]
    metrics: Vec<PathBuf>,
    /// the SVG file to write
    #[argh(option)]
    output: PathBuf,
    /// draw the ternary matrices instead: zeros, flips, drift of the scale, weights beyond the clamp
    #[argh(switch)]
    layers: bool,
    /// write over an existing file
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// One run under `--json`.
#[derive(Serialize)]
struct Drawn<'a> {
    name: &'a str,
    steps: f64,
    last_loss: Option<f64>,
    last_val_loss: Option<f64>,
    output: String,
}

impl Plot {
    pub(super) fn run(self) -> Result<()> {
        if self.metrics.is_empty() {
            return Err(CliError::Usage(
                "plot: no metrics file given; give a metrics.jsonl or the directory of a run".into(),
            ));
        }
        args::new_file(&self.output, "--output", self.force)?;
        let runs = self
            .metrics
            .iter()
            .map(|path| Run::read(path))
            .collect::<Result<Vec<_>>>()?;
        let svg = match (self.layers, runs.as_slice()) {
            (false, runs) => draw(runs)?,
            (true, [run]) => draw_layers(run)?.ok_or_else(|| {
                CliError::Failed(format!(
                    "--layers: {} has no ternary matrices; give a run that has some",
                    self.metrics[0].display()
                ))
            })?,
            (true, _) => return Err(CliError::Usage("--layers draws one run; give one".into())),
        };
        std::fs::write(&self.output, svg)
            .map_err(|e| CliError::io(&self.output, "write", &e, "check the space and the permissions there"))?;
        if self.json {
            for run in &runs {
                let steps = run.loss.iter().chain(&run.validation).map(|p| p.0).fold(0.0, f64::max);
                let last = |points: &[(f64, f64)]| points.last().map(|p| p.1);
                let output = self.output.display().to_string();
                output::json(&Drawn {
                    name: &run.name,
                    steps,
                    last_loss: last(&run.loss),
                    last_val_loss: last(&run.validation),
                    output,
                })?;
            }
            return Ok(());
        }
        if std::io::stdout().is_terminal() {
            output::text(&curve(&runs[0]))?;
        }
        output::line(&self.output.display().to_string())
    }
}
