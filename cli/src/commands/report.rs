//! `onebit report`: a run as one page.

use std::path::PathBuf;

use argh::FromArgs;
use serde_json::json;

use crate::report::{self, Samples};
use crate::{CliError, Result, args, output};

/// Makes one HTML file of a run: configuration, machine, curves, ternary matrices, samples of the model, and what it took.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "report",
    example = "{command_name} model --output report.html",
    note = "The page needs nothing beside it and no script, and is light or dark as its reader prefers. Of a run that has not ended it shows what is there, and samples are of its newest checkpoint."
)]
pub struct Report {
    /// the directory of a run
    #[argh(positional, arg_name = "run_dir")]
    run: PathBuf,
    /// the HTML file to write
    #[argh(option)]
    output: PathBuf,
    /// texts that the model tells, with seeds that follow --seed; 0 for none (default: 3)
    #[argh(option, default = "3")]
    samples: u32,
    /// tokens of each at most (default: 100)
    #[argh(option, default = "100")]
    max_tokens: usize,
    /// what each begins with (default: nothing)
    #[argh(option, default = "String::new()")]
    prompt: String,
    /// seed of the samples (default: 42)
    #[argh(option, default = "42")]
    seed: u64,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// write over an existing file
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// More would make a page that nobody reads.
const MOST_SAMPLES: u32 = 100;

impl Report {
    pub(super) fn run(self) -> Result<()> {
        if self.samples > MOST_SAMPLES {
            return Err(CliError::Usage(format!(
                "--samples: expected 0 to {MOST_SAMPLES}, found {}",
                self.samples
            )));
        }
        if self.max_tokens == 0 {
            return Err(CliError::Usage("--max-tokens: expected at least 1, found 0".into()));
        }
        args::existing_directory(&self.run, "the run")?;
        args::new_file(&self.output, "--output", self.force)?;
        let wanted = Samples {
            count: self.samples,
            max_tokens: self.max_tokens,
            prompt: self.prompt,
            seed: self.seed,
        };
        let page = report::page(&self.run, &wanted, self.threads)?;
        std::fs::write(&self.output, &page)
            .map_err(|e| CliError::io(&self.output, "write", &e, "check the space and the permissions there"))?;
        let path = self.output.display().to_string();
        match self.json {
            true => output::json(&json!({ "output": path, "bytes": page.len() })),
            false => output::line(&path),
        }
    }
}
