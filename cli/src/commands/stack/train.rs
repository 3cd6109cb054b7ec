//! `onebit stack train`: a training run on a stream of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argh::FromArgs;
use onebit_trainer::hub::HubOptions;
use onebit_trainer::stack::fetch::{Fetch, FromCommand, FromFolder};
use onebit_trainer::stack::filter::FilterOptions;
use onebit_trainer::stack::manifest::read_manifest;
use onebit_trainer::stack::sampler::SamplerOptions;
use onebit_trainer::stack::stream::StreamOptions;

use crate::commands::train::{self, Shards};
use crate::{CliError, Result, args};

/// Bytes of a gigabyte, as disks are sold.
const GB: f64 = 1e9;

/// Trains on the shards of a manifest, which are fetched ahead and removed again so that the disk never holds more than its budget.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "train",
    example = "{command_name} --manifest stack.jsonl --config 125m --tokenizer tokenizer.json --disk-budget-gb 900 --max-global-steps 100000",
    note = "A visit draws a language by its weight, and of it a shard; none comes again before all of its language came. What a visit leaves of a shard is for the next one. Tokens go on across shards without a break. The same manifest, tokenizer, options and seed give the same tokens, whatever is on the disk.",
    note = "The output directory is that of `onebit train`. Ctrl-C saves a checkpoint and ends with status 130; --resume with the same options goes on with the next token, byte for byte. HF_TOKEN says to the Hub who asks, HF_ENDPOINT names another Hub."
)]
pub struct Train {
    /// the manifest of the shards (`onebit stack manifest`)
    #[argh(option)]
    manifest: PathBuf,
    /// where shards are kept while they are needed (default: data/stack_shards)
    #[argh(option, default = "PathBuf::from(\"data/stack_shards\")")]
    local_root: PathBuf,
    /// the most that lies in --local-root at any moment, in GB of 10^9 bytes, such as 0.5; all that is there counts (default: 900)
    #[argh(option, default = "900.0")]
    disk_budget_gb: f64,
    /// a folder that has the shards at their paths in the data set, instead of the Hub
    #[argh(option)]
    from: Option<PathBuf>,
    /// a command that fetches a shard, instead of the Hub's client: its words as a shell divides them, {url} for the address, {out_dir} for an empty folder
    #[argh(option)]
    download_cmd: Option<String>,
    /// shards of the last visits that stay on the disk as long as there is room, and are visited again now and then; 0 for none (default: 4)
    #[argh(option)]
    replay: Option<usize>,
    /// the same as --replay
    #[argh(option)]
    replay_capacity: Option<usize>,
    /// the share of visits that go to one of those, from 0 to below 1 (default: 0.05)
    #[argh(option)]
    replay_share: Option<f32>,
    /// weights of languages, such as rust=2,python=1; others are left out (default: the bytes of each)
    #[argh(option)]
    language_weights: Option<String>,
    /// steps of a visit at most; 0 for all that the shard has (default: 2000)
    #[argh(option, default = "2000")]
    steps_per_shard: u64,
    /// optimiser steps of the run; 0 for --max-shards times --steps-per-shard (default: the preset's)
    #[argh(option)]
    max_global_steps: Option<u64>,
    /// visits after which the run ends; 0 for no limit (default: 0)
    #[argh(option, default = "0")]
    max_shards: u64,
    /// licences with commas between: a file stays if it has licences and all are among these (default: any or none)
    #[argh(option)]
    licenses: Option<String>,
    /// copies of files that came already: keep, exact for those with the same words, near for those with almost the same (default: keep)
    #[argh(option, default = "String::from(\"keep\")")]
    duplicates: String,
    /// files that are remembered to tell copies by; a checkpoint takes 16 bytes for each, or 136 for near (default: 1000000)
    #[argh(option, default = "1_000_000")]
    duplicates_window: u64,
    /// pass over what cannot be read of a shard that is damaged though it was fetched twice, instead of ending
    #[argh(switch)]
    skip_bad_shards: bool,
    /// preset, config.json or model directory; with --init-from what becomes of its weights (default: as they are there)
    #[argh(option)]
    config: Option<String>,
    /// the same as --config
    #[argh(option)]
    model_config: Option<String>,
    /// begin with the weights of this model, a directory or a file, floats or packed; --config may give its tensors other modes
    #[argh(option)]
    init_from: Option<String>,
    /// the tokenizer.json
    #[argh(option)]
    tokenizer: String,
    /// where the run and its model go (default: checkpoints_stack_stream)
    #[argh(option)]
    output_dir: Option<String>,
    /// the same as --output-dir
    #[argh(option)]
    output_root: Option<String>,
    /// token file to validate on (default: none)
    #[argh(option)]
    val: Option<String>,
    /// go on from the newest whole checkpoint in --output-dir
    #[argh(switch)]
    resume: bool,
    /// replace what an earlier run left in --output-dir
    #[argh(switch)]
    force: bool,
    /// check everything that a run needs, print what it would be and take, and stop
    #[argh(switch)]
    dry_run: bool,
    /// sequences of a micro-batch (default: the preset's)
    #[argh(option)]
    batch_size: Option<usize>,
    /// tokens of a sequence (default: the preset's)
    #[argh(option)]
    seq_len: Option<usize>,
    /// micro-batches of an optimiser step (default: the preset's)
    #[argh(option)]
    accumulation_steps: Option<usize>,
    /// steps between checkpoints; 0 for one at the end (default: the preset's)
    #[argh(option)]
    save_every: Option<u64>,
    /// checkpoints kept (default: 2)
    #[argh(option)]
    keep: Option<usize>,
    /// steps between validations; 0 for one at the end (default: the preset's)
    #[argh(option)]
    eval_every: Option<u64>,
    /// take the terminal for curves, matrices and notes; q ends the run with a checkpoint. Where there is no terminal there are lines
    #[argh(switch)]
    tui: bool,
    /// have the model say something at each checkpoint, and keep it in samples.jsonl for `onebit report`
    #[argh(switch)]
    samples: bool,
    /// write scalars for TensorBoard into this directory (default: none)
    #[argh(option)]
    tensorboard: Option<String>,
    /// steps between layer metrics (default: 10)
    #[argh(option)]
    log_every: Option<u64>,
    /// peak learning rate (default: the preset's)
    #[argh(option)]
    lr: Option<f32>,
    /// learning rate at the end (default: the preset's)
    #[argh(option)]
    lr_min: Option<f32>,
    /// steps of linear warm-up (default: the preset's)
    #[argh(option)]
    lr_warmup_steps: Option<u64>,
    /// cosine, linear, wsd, two-stage or none (default: cosine)
    #[argh(option)]
    lr_decay: Option<String>,
    /// adamw, adamw8bit or muon (default: the preset's)
    #[argh(option)]
    optimizer: Option<String>,
    /// decoupled weight decay of the linears (default: the preset's)
    #[argh(option)]
    weight_decay: Option<f32>,
    /// largest global gradient norm; 0 for any (default: the preset's)
    #[argh(option)]
    grad_clip_max_norm: Option<f32>,
    /// label smoothing of the minimised loss (default: the preset's)
    #[argh(option)]
    label_smoothing: Option<f32>,
    /// arithmetic of the matrix products: f32, bf16 or auto (default: auto)
    #[argh(option)]
    precision: Option<String>,
    /// what gradients of the blocks' matrices are rounded to: f32, or on a GPU bf16 (default: f32)
    #[argh(option)]
    gradients: Option<String>,
    /// keep only the input of each block: less memory on a GPU, a third more work
    #[argh(switch)]
    recompute: bool,
    /// go back to the newest checkpoint, and on with later data, after three losses so many standard deviations above the mean (default: 0, never)
    #[argh(option)]
    spike_guard: Option<f32>,
    /// steps in full precision (default: the preset's; its share of --max-global-steps if that is given)
    #[argh(option)]
    quant_warmup_steps: Option<u64>,
    /// steps from full precision to ternary (default: likewise)
    #[argh(option)]
    quant_anneal_steps: Option<u64>,
    /// seed of weights, visits and dropout (default: 42)
    #[argh(option)]
    seed: Option<u64>,
    /// start so many ranks on this machine, each with a GPU, a folder within --local-root and a share of the budget (default: 1)
    #[argh(option)]
    gpus: Option<usize>,
    /// what ranks divide among them: none, optimizer, or parameters (default: none)
    #[argh(option)]
    shard: Option<String>,
    /// seconds that ranks wait for one another at the beginning (default: 600)
    #[argh(option)]
    rendezvous_timeout: Option<u64>,
    /// a file with a text that all ranks know and nobody else (default: ONEBIT_SECRET)
    #[argh(option)]
    secret_file: Option<String>,
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

impl Train {
    pub(super) fn run(mut self) -> Result<()> {
        self.config = args::either(
            self.config.take(),
            "--config",
            self.model_config.take(),
            "--model-config",
        )?;
        self.output_dir = args::either(
            self.output_dir.take(),
            "--output-dir",
            self.output_root.take(),
            "--output-root",
        )?;
        self.replay = args::either(self.replay, "--replay", self.replay_capacity, "--replay-capacity")?;
        let steps = self.steps()?;
        let shards = self.shards()?;
        self.as_run(steps)?.run_on(Some(&shards))
    }

    /// The steps of the run, if they are not the preset's: a learning rate that falls must know where to.
    fn steps(&self) -> Result<Option<u64>> {
        match (
            self.max_global_steps,
            self.max_shards.saturating_mul(self.steps_per_shard),
        ) {
            (Some(0), 0) => Err(CliError::Usage(
                "--max-global-steps 0 needs --max-shards and --steps-per-shard; give a number of steps".into(),
            )),
            (Some(0), steps) => Ok(Some(steps)),
            (given, _) => Ok(given),
        }
    }

    /// The stream, as far as the command line tells.
    fn shards(&self) -> Result<Shards> {
        let budget = self.disk_budget_gb * GB;
        if !(budget.is_finite() && budget >= 1.0) {
            return Err(CliError::Usage(format!(
                "--disk-budget-gb: {} is no size; give a number of GB above 0",
                self.disk_budget_gb
            )));
        }
        if self.duplicates_window == 0 {
            return Err(CliError::Usage("--duplicates-window: must be at least 1".into()));
        }
        let replay = self.replay.unwrap_or(4);
        args::existing_file(&self.manifest, "--manifest")?;
        Ok(Shards {
            options: StreamOptions {
                shards: read_manifest(&self.manifest)?,
                sampler: SamplerOptions {
                    weights: self.weights()?,
                    seed: 0,
                    replay,
                    replay_share: match replay {
                        0 => 0.0,
                        _ => self.replay_share.unwrap_or(0.05),
                    },
                    max_visits: self.max_shards,
                },
                filters: FilterOptions {
                    licenses: self.allowed_licenses(),
                    duplicates: args::parse(&self.duplicates, "--duplicates")?,
                    window: self.duplicates_window,
                },
                tokens_per_visit: 0,
                skip_damaged: self.skip_bad_shards,
                seq_len: 0,
                windows_ahead: 0,
                root: self.local_root.clone(),
                budget: budget as u64,
            },
            steps_per_shard: self.steps_per_shard,
            fetch: self.fetch()?,
            bar: Arc::default(),
        })
    }

    fn fetch(&self) -> Result<Arc<dyn Fetch>> {
        match (&self.from, &self.download_cmd) {
            (Some(_), Some(_)) => Err(CliError::Usage(
                "--from and --download-cmd both say where shards come from; give one of them".into(),
            )),
            (Some(folder), None) => {
                args::existing_directory(folder, "--from")?;
                Ok(Arc::new(FromFolder(folder.clone())))
            }
            (None, Some(template)) => {
                let endpoint = HubOptions::from_env()?.endpoint;
                Ok(Arc::new(FromCommand::new(template, &endpoint)?))
            }
            (None, None) => Ok(Arc::new(crate::hub::hub()?)),
        }
    }

    fn weights(&self) -> Result<BTreeMap<String, f64>> {
        let mut weights = BTreeMap::new();
        for part in self.language_weights.iter().flat_map(|text| text.split(',')) {
            let wrong = || CliError::Usage(format!("--language-weights: expected LANGUAGE=NUMBER, found {part:?}"));
            let (language, weight) = part.split_once('=').ok_or_else(wrong)?;
            let weight = weight.trim().parse().map_err(|_| wrong())?;
            if weights.insert(language.trim().to_string(), weight).is_some() {
                return Err(CliError::Usage(format!(
                    "--language-weights: {language} is given twice"
                )));
            }
        }
        Ok(weights)
    }

    fn allowed_licenses(&self) -> BTreeSet<String> {
        let names = self.licenses.iter().flat_map(|text| text.split(','));
        names
            .map(|name| name.trim().to_lowercase())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// The run, as `onebit train` has it: its options are this command's.
    fn as_run(&self, steps: Option<u64>) -> Result<train::Train> {
        fn text<T: ToString>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let output_dir = self.output_dir.as_deref().unwrap_or("checkpoints_stack_stream");
        if Path::new(output_dir) == self.local_root {
            return Err(CliError::Usage(
                "--output-dir and --local-root must be two directories".into(),
            ));
        }
        let options = [
            ("--config", self.config.clone()),
            ("--init-from", self.init_from.clone()),
            ("--tokenizer", Some(self.tokenizer.clone())),
            ("--output-dir", Some(output_dir.to_string())),
            ("--val", self.val.clone()),
            ("--max-steps", text(&steps)),
            // Teachers are trained on a token file.
            ("--teacher-steps", Some("0".into())),
            ("--batch-size", text(&self.batch_size)),
            ("--seq-len", text(&self.seq_len)),
            ("--accumulation-steps", text(&self.accumulation_steps)),
            ("--save-every", text(&self.save_every)),
            ("--keep", text(&self.keep)),
            ("--eval-every", text(&self.eval_every)),
            ("--log-every", text(&self.log_every)),
            ("--tensorboard", self.tensorboard.clone()),
            ("--lr", text(&self.lr)),
            ("--lr-min", text(&self.lr_min)),
            ("--lr-warmup-steps", text(&self.lr_warmup_steps)),
            ("--lr-decay", self.lr_decay.clone()),
            ("--optimizer", self.optimizer.clone()),
            ("--weight-decay", text(&self.weight_decay)),
            ("--grad-clip-max-norm", text(&self.grad_clip_max_norm)),
            ("--label-smoothing", text(&self.label_smoothing)),
            ("--precision", self.precision.clone()),
            ("--gradients", self.gradients.clone()),
            ("--spike-guard", text(&self.spike_guard)),
            ("--quant-warmup-steps", text(&self.quant_warmup_steps)),
            ("--quant-anneal-steps", text(&self.quant_anneal_steps)),
            ("--seed", text(&self.seed)),
            ("--gpus", text(&self.gpus)),
            ("--shard", self.shard.clone()),
            ("--rendezvous-timeout", text(&self.rendezvous_timeout)),
            ("--secret-file", self.secret_file.clone()),
            ("--device", self.device.clone()),
            ("--threads", text(&self.threads)),
        ];
        let switches = [
            ("--resume", self.resume),
            ("--tui", self.tui),
            ("--samples", self.samples),
            ("--force", self.force),
            ("--dry-run", self.dry_run),
            ("--recompute", self.recompute),
            ("--json", self.json),
        ];
        let mut given: Vec<String> = Vec::new();
        for (name, value) in options {
            given.extend(value.into_iter().flat_map(|value| [name.to_string(), value]));
        }
        given.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string()));
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        train::Train::from_args(&["onebit", "stack", "train"], &given)
            .map_err(|early| CliError::Usage(args::one_line(&early.output)))
    }
}
