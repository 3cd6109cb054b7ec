//! `onebit plot`: curves of training runs.

use std::io::IsTerminal;
use std::path::PathBuf;

use argh::FromArgs;
use serde::Serialize;

use crate::plot::{Run, Theme, curve, draw, draw_layers};
use crate::{CliError, Result, args, output};

/// Draws one run or several: loss and perplexity, learning rate, zeros and flips of the ternary matrices, the phases shaded.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "plot",
    example = "{command_name} model/metrics.jsonl --output loss.svg",
    example = "{command_name} run-a run-b --output both.svg --theme dark",
    note = "Of several runs the matrices' mean is drawn, and phases are shaded where all have the same; otherwise a line is where each begins. A picture of theme auto is light or dark as its reader's browser prefers.",
    note = "On a terminal the first run's loss is also shown as characters."
)]
pub struct Plot {
    /// metrics.jsonl files, or directories of runs
    #[argh(positional, arg_name = "metrics")]
    metrics: Vec<PathBuf>,
    /// the SVG file to write
    #[argh(option)]
    output: PathBuf,
    /// auto, light or dark (default: auto)
    #[argh(option, default = "Theme::Auto")]
    theme: Theme,
    /// draw the ternary matrices of one run instead, in more detail: zeros, flips, drift of the scale, weights beyond the clamp
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
        let runs = told_apart(runs, &self.metrics);
        let svg = match (self.layers, runs.as_slice()) {
            (false, runs) => draw(runs, self.theme)?,
            (true, [run]) => draw_layers(run, self.theme)?.ok_or_else(|| {
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

/// Runs whose directories have the same name are called by their paths.
fn told_apart(mut runs: Vec<Run>, paths: &[PathBuf]) -> Vec<Run> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for ((run, path), name) in runs.iter_mut().zip(paths).zip(&names) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            run.name = path.display().to_string();
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_the_same_name_are_called_by_their_paths() {
        let run = |name: &str| Run {
            name: name.into(),
            ..Run::default()
        };
        let paths = ["a/model", "b/model", "c"].map(PathBuf::from);
        let names: Vec<String> = told_apart(vec![run("model"), run("model"), run("c")], &paths)
            .into_iter()
            .map(|run| run.name)
            .collect();
        assert_eq!(names, ["a/model", "b/model", "c"]);
    }
}
