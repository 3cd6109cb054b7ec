//! `onebit quickstart`: from nothing to a ternary model that tells stories, in minutes.

use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_trainer::evaluate::StoryTeller;
use onebit_trainer::quickstart::{self, Prepared, Verdict};
use onebit_trainer::run::{Outcome, Trainer};
use serde::Serialize;

use crate::watch::{Told, Watching, Wish};
use crate::{CliError, Result, args, device, interrupt, output, plot};

/// Trains a small ternary model on stories from a built-in grammar, plots, packs, judges it and lets it tell one.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "quickstart",
    example = "{command_name} --minutes 1 --output-dir my-first-model",
    note = "Nothing is read and nothing is downloaded. The entropy of the grammar is known, so the result says how close to the optimum the model came (bpb against entropy_bpb) and how many of its stories are consistent (valid_fraction)."
)]
pub struct Quickstart {
    /// quickstart, stories-3m for a GPU, or stories-mcu for a model that a microcontroller runs (default: quickstart)
    #[argh(option, default = "\"quickstart\".into()")]
    config: String,
    /// minutes that it may take in all (default: 3; of stories-3m and stories-mcu as many as their 3,000 and 2,520 steps take)
    #[argh(option)]
    minutes: Option<f64>,
    /// training steps instead of --minutes
    #[argh(option)]
    steps: Option<u64>,
    /// where everything goes (default: onebit-quickstart)
    #[argh(option, default = "PathBuf::from(\"onebit-quickstart\")")]
    output_dir: PathBuf,
    /// seed of stories, weights and data order (default: 42)
    #[argh(option, default = "42")]
    seed: u64,
    /// replace what an earlier quickstart left in --output-dir
    #[argh(switch)]
    force: bool,
    /// auto, cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Report {
    bpb: f64,
    entropy_bpb: f64,
    valid_fraction: f64,
    seconds: f64,
    steps: u64,
    parameters: u64,
    packed_bytes: usize,
    model: PathBuf,
    curves: PathBuf,
    story: String,
}

impl Quickstart {
    pub(super) fn run(self) -> Result<()> {
        if self.minutes.is_some() && self.steps.is_some() {
            return Err(CliError::Usage(
                "--minutes and --steps both say how long to train; give one of them".into(),
            ));
        }
        let minutes = self.minutes.unwrap_or(3.0);
        if !(0.1..=100_000.0).contains(&minutes) {
            return Err(CliError::Usage(format!(
                "--minutes: expected 0.1 to 100000, found {minutes}"
            )));
        }
        if self.steps == Some(0) {
            return Err(CliError::Usage("--steps: expected at least 1, found 0".into()));
        }
        let preset = quickstart::preset(&self.config).map_err(|e| CliError::Usage(e.to_string()))?;
        let fixed = match (self.steps, self.minutes) {
            (None, None) if preset.name != quickstart::TIMED => Some(preset.training.max_steps),
            (steps, _) => steps,
        };
        let stories = quickstart::stories(&preset, fixed);
        let directory = &self.output_dir;
        self.check_directory()?;
        let place = device::place(self.device.as_deref(), self.threads)?;
        output::note("writing stories and training a tokenizer on them");
        let mut prepared = quickstart::prepare(directory, place.device(), self.seed, preset, stories)?;
        prepared.inputs.gpu = place.gpu.clone();
        let steps = match fixed {
            Some(steps) => steps,
            None => {
                output::note("measuring this machine");
                let scratch = directory.join("scratch");
                let steps = quickstart::steps_within(&prepared, minutes, &scratch);
                // Of no use to anyone, whether the measurement went well or not.
                let _ = std::fs::remove_dir_all(&scratch);
                steps?
            }
        };
        prepared.inputs.options = quickstart::options(&prepared.preset, steps, self.seed);
        let Prepared {
            grammar,
            tokenizer,
            inputs,
            began,
            ..
        } = prepared;
        let parameters = inputs.network.config().parameter_count();
        output::note(&format!(
            "training {} parameters for {steps} steps: full precision, annealing, ternary",
            output::count(parameters)
        ));
        let told = Told::of(&inputs);
        let mut trainer = Trainer::new(inputs, false, &mut |_| ())?;
        train(&mut trainer, told, directory)?;
        let curves = plot::Run::read(directory)?;
        let picture = directory.join("curves.svg");
        std::fs::write(&picture, plot::draw(std::slice::from_ref(&curves), plot::Theme::Auto)?)
            .map_err(|e| CliError::io(&picture, "write", &e, "check the space and the permissions there"))?;
        if !self.json {
            output::note(&plot::curve(&curves));
        }
        output::note("packing the model and judging it on stories that it has not seen");
        let (model, verdict) = quickstart::judge(trainer.network(), &tokenizer, &grammar, directory, self.seed)?;
        let seconds = began.elapsed().as_secs_f64();
        let story = self.tell(&model, place.isa, &tokenizer)?;
        let Verdict {
            bpb,
            entropy_bpb,
            valid_fraction,
            packed_bytes,
            ..
        } = verdict;
        let model = quickstart::packed_directory(directory);
        let report = Report {
            bpb,
            entropy_bpb,
            valid_fraction,
            seconds,
            steps,
            parameters,
            packed_bytes,
            model,
            curves: picture,
            story,
        };
        if self.json {
            output::json(&report)
        } else {
            print(&report)
        }
    }

    /// Tells a story; as it is made, unless under `--json`.
    fn tell(
        &self,
        model: &onebit_model::runtime::PackedModel,
        isa: onebit_engine::Isa,
        tokenizer: &onebit_model::tokenizer::Tokenizer,
    ) -> Result<String> {
        let mut written = if self.json { Ok(()) } else { output::text("\n") };
        let params = quickstart::sampling_params(tokenizer);
        let teller = StoryTeller {
            model,
            isa,
            tokenizer,
            params: &params,
        };
        let story = teller.tell(self.seed, &mut |piece| {
            if !self.json && written.is_ok() {
                written = output::text(piece);
            }
        })?;
        written?;
        if !self.json {
            output::text("\n\n")?;
        }
        Ok(story)
    }

    /// A directory that is new or empty, or one of an earlier quickstart with `--force`.
    fn check_directory(&self) -> Result<()> {
        let directory = &self.output_dir;
        let occupied = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !self.force {
            return Err(CliError::Failed(format!(
                "--output-dir: {} is not empty; give another directory, or --force to replace what an earlier quickstart left there",
                directory.display()
            )));
        }
        args::output_directory(directory, "--output-dir")?;
        if occupied {
            remove_earlier(directory)?;
        }
        Ok(())
    }
}

/// Removes an earlier run's checkpoints and metrics; the other files are replaced by name.
fn remove_earlier(directory: &Path) -> Result<()> {
    let failed = |path: &Path, e: std::io::Error| CliError::io(path, "remove", &e, "remove it by hand");
    let (checkpoints, metrics) = (directory.join("checkpoints"), directory.join("metrics.jsonl"));
    if checkpoints.is_dir() {
        std::fs::remove_dir_all(&checkpoints).map_err(|e| failed(&checkpoints, e))?;
    }
    if metrics.is_file() {
        std::fs::remove_file(&metrics).map_err(|e| failed(&metrics, e))?;
    }
    Ok(())
}

fn train(trainer: &mut Trainer, told: Told, directory: &Path) -> Result<()> {
    let mut watching = Watching::begin(&Wish::default(), trainer, told, directory)?;
    let outcome = trainer.run(interrupt::poll(), &mut |event| watching.event(event));
    watching.end();
    drop(watching);
    let outcome = outcome?;
    match outcome {
        Outcome::Finished => {
            // Judging ends at once on Ctrl-C: the trained model is on the disk.
            interrupt::forget();
            Ok(())
        }
        Outcome::Interrupted => {
            let (done, steps) = (trainer.steps_done(), trainer.total_steps());
            Err(CliError::Interrupted(format!(
                "interrupted at step {done} of {steps}; start again with --force"
            )))
        }
    }
}

fn print(r: &Report) -> Result<()> {
    output::table(&[
        (
            "bits a byte",
            format!(
                "{:.4} on unseen stories; the grammar's own entropy is {:.4}",
                r.bpb, r.entropy_bpb
            ),
        ),
        (
            "stories",
            format!("{:.0}% of those it tells are consistent", 100.0 * r.valid_fraction),
        ),
        (
            "size",
            format!(
                "{} packed, {} parameters",
                output::bytes(r.packed_bytes as u64),
                output::count(r.parameters)
            ),
        ),
        ("time", output::seconds(r.seconds)),
        ("curves", r.curves.display().to_string()),
        (
            "more",
            format!("onebit generate --model {} --prompt 'Anna was a'", r.model.display()),
        ),
    ])
}
