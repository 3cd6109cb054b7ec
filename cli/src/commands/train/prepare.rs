//! From options to a run: everything that can be refused is refused here, before any long work.

use std::fs;
use std::path::{Path, PathBuf};

use onebit_engine::Device;
use onebit_model::config::presets::DropoutDefaults;
use onebit_model::config::{LinearMode, ModelConfig, WeightStorage, limits, presets};
use onebit_model::files::{self, GenerationConfig};
use onebit_model::network::{Network, check_source};
use onebit_model::tokenizer::{END_OF_LINE, Tokenizer, UNKNOWN};
use onebit_trainer::TrainOptions;
use onebit_trainer::data::{Order, TokenFile};
use onebit_trainer::parallel::World;
use onebit_trainer::run::{RunInputs, RunLock, TrainData};

use super::Train;
use super::teacher::OwnTeachers;
use crate::device::Placement;
use crate::watch::sampler::SAMPLES_FILE;
use crate::{CliError, Result, args, output};

/// What a run of ours leaves in its directory.
const RUN_FILES: [&str; 5] = [
    "checkpoints",
    "metrics.jsonl",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
];

/// A token file that was checked.
pub(super) struct Tokens {
    pub file: TokenFile,
}

impl Tokens {
    fn open(path: &Path, option: &str, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Self> {
        args::existing_file(path, option)?;
        let file = TokenFile::open(path)?;
        file.check_for(vocab_size, Some(&tokenizer.fingerprint()))?;
        file.verify()?;
        Ok(Self { file })
    }

    /// Windows of an epoch.
    pub(super) fn windows(&self, options: &TrainOptions) -> Result<u64> {
        let order = Order::new(&self.file, options.seq_len, options.alignment(), options.seed)?;
        Ok(order.windows_per_epoch())
    }
}

/// A run whose parts fit together.
pub(super) struct Prepared {
    pub config: ModelConfig,
    pub options: TrainOptions,
    /// None for a stream of shards.
    pub data: Option<Tokens>,
    pub validation: Option<Tokens>,
    pub tokenizer: Tokenizer,
    /// Where each teacher lies, and what it is.
    pub teachers: Vec<(PathBuf, ModelConfig)>,
    /// How they are made first; none: all are there.
    pub own_teachers: Option<OwnTeachers>,
}

impl Train {
    /// Of a run on a token file, or of one on a stream.
    pub(super) fn prepare(&self, stream: bool) -> Result<Prepared> {
        if self.data.is_none() && !stream {
            return Err(CliError::Usage("required option not provided: --data".into()));
        }
        if self.output_dir.is_none() && !self.dry_run {
            return Err(CliError::Usage("required option not provided: --output-dir".into()));
        }
        if self.init.is_some() && self.init_from.is_some() {
            return Err(CliError::Usage(
                "--init and --init-from both say where training begins; give one of them".into(),
            ));
        }
        self.check_logit_softcap()?;
        let (name, resolved) = self.resolved()?;
        resolved
            .notes
            .iter()
            .for_each(|note| output::note(&format!("note: {note}")));
        let own_teachers = self.own_teachers(&resolved.training)?;
        let options = self.options(&resolved.training, own_teachers)?;
        args::existing_file(&self.tokenizer, "--tokenizer")?;
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let mut config = resolved.config;
        // Whatever form the weights were read in, floats are trained.
        config.storage = WeightStorage::Master;
        if let Some(mode) = self.quant_mode()? {
            config.set_all_modes(mode);
        }
        if self.logit_softcap.is_some() {
            config.final_logit_softcapping = self.logit_softcap;
        }
        if resolved.preset.is_some() {
            fit_to_tokenizer(&mut config, &tokenizer);
        } else if config.vocab_size < tokenizer.vocab_size() {
            return Err(CliError::Failed(format!(
                "--config: {name} has {} tokens and the tokenizer {}; raise vocab_size to {} or give the tokenizer that belongs to it",
                config.vocab_size,
                tokenizer.vocab_size(),
                tokenizer.vocab_size()
            )));
        }
        config.validate()?;
        if let Some(path) = &self.init_from {
            check_source(&config, files::open_source(path)?.config())?;
        }
        if options.seq_len > config.max_position_embeddings {
            return Err(CliError::Failed(format!(
                "--seq-len: {} is longer than the model's context of {}; lower it",
                options.seq_len, config.max_position_embeddings
            )));
        }
        let open = |path: &Option<PathBuf>, option| {
            let tokens = path
                .as_ref()
                .map(|path| Tokens::open(path, option, &tokenizer, config.vocab_size))
                .transpose()?;
            tokens.as_ref().map_or(Ok(0), |tokens| tokens.windows(&options))?;
            Ok::<_, CliError>(tokens)
        };
        let (data, validation) = (open(&self.data, "--data")?, open(&self.val, "--val")?);
        let mut teachers = self.teachers(&config, &options, &tokenizer)?;
        if let Some(own) = own_teachers {
            teachers = self.planned(own, &config, &options, &tokenizer)?;
        }
        Ok(Prepared {
            config,
            options,
            data,
            validation,
            tokenizer,
            teachers,
            own_teachers,
        })
    }

    /// What the model is, and the name of what says so: `--config`, or the model that training begins from. With both, weights come from the second, and what becomes of
    /// them is the first's to say.
    fn resolved(&self) -> Result<(String, presets::Resolved)> {
        let source = self.init_from.as_deref().map(files::open_source).transpose()?;
        match (&self.config, &source) {
            (Some(name), _) => Ok((name.clone(), presets::resolve(name)?)),
            (None, Some(source)) => {
                let resolved = presets::Resolved {
                    config: source.config().clone(),
                    training: presets::TrainingDefaults::for_model(source.config()),
                    preset: None,
                    notes: source.notes().to_vec(),
                };
                Ok((source.path().display().to_string(), resolved))
            }
            (None, None) => Err(CliError::Usage(
                "required option not provided: --config (or --init-from)".into(),
            )),
        }
    }

    /// That `--logit-softcap` is one, and of a new model: one that is there was trained with what it has.
    fn check_logit_softcap(&self) -> Result<()> {
        let [least, most] = limits::SOFTCAP;
        match self.logit_softcap {
            Some(_) if self.init_from.is_some() => Err(CliError::Usage(
                "--logit-softcap is part of a new model, and --init-from gives one that is there; leave it out".into(),
            )),
            Some(cap) if !(least..=most).contains(&cap) => Err(CliError::Usage(format!(
                "--logit-softcap: expected a positive number from {least} to {most}, found {cap}"
            ))),
            _ => Ok(()),
        }
    }

    /// What `--quant` makes of the linears.
    fn quant_mode(&self) -> Result<Option<LinearMode>> {
        let phases = self.quant_warmup_steps.is_some() || self.quant_anneal_steps.is_some();
        match self.quant.as_deref() {
            None => Ok(None),
            Some("ternary") => Ok(Some(LinearMode::Ternary)),
            Some("binary") => Ok(Some(LinearMode::Binary)),
            Some("none") if phases => Err(CliError::Usage(
                "--quant none has no phases; leave --quant-warmup-steps and --quant-anneal-steps out".into(),
            )),
            Some("none") => Ok(Some(LinearMode::F16)),
            Some(other) => Err(CliError::Usage(format!(
                "--quant: expected ternary, binary or none, found {other:?}"
            ))),
        }
    }

    /// Steps that keep the proportions of the preset's where another number of steps is given.
    pub(super) fn scaled(&self, preset: &presets::TrainingDefaults, steps: u64) -> u64 {
        match self.max_steps {
            Some(given) if given > 0 && preset.max_steps > 0 => {
                (u128::from(steps) * u128::from(given) / u128::from(preset.max_steps)) as u64
            }
            _ => steps,
        }
    }

    /// Whether the linears stay as they are.
    pub(super) fn is_twin(&self) -> bool {
        self.quant.as_deref() == Some("none")
    }

    /// The dropout given, over `preset`'s. `--dropout` alone is for the embedded tokens too.
    pub(super) fn dropout(&self, preset: DropoutDefaults) -> DropoutDefaults {
        let given = |option: Option<f32>, default| option.map_or(default, f64::from);
        DropoutDefaults {
            hidden: given(self.dropout, preset.hidden),
            input: match (self.input_dropout, self.dropout) {
                (None, None) => preset.input,
                (given, _) => given.map(f64::from),
            },
            output: given(self.output_dropout, preset.output),
            word: given(self.word_dropout, preset.word),
        }
    }

    /// The options given, over the preset's.
    fn options(&self, preset: &presets::TrainingDefaults, own_teachers: Option<OwnTeachers>) -> Result<TrainOptions> {
        let default = TrainOptions::default();
        let max_steps = self.max_steps.unwrap_or(if self.max_epochs.is_some_and(|n| n > 0) {
            0
        } else {
            preset.max_steps
        });
        // Another number of steps keeps the proportions of the preset's phases.
        let scaled = |steps| self.scaled(preset, steps);
        let twin = self.is_twin();
        let phase = |given: Option<u64>, steps: u64| given.unwrap_or(if twin { 0 } else { scaled(steps) });
        let lr = self.lr.unwrap_or(preset.lr as f32);
        let dropout = self.dropout(preset.dropout);
        let options = TrainOptions {
            batch_size: self.batch_size.unwrap_or(preset.batch_size),
            seq_len: self.seq_len.unwrap_or(preset.seq_len),
            accumulation_steps: self.accumulation_steps.unwrap_or(preset.accumulation_steps),
            max_steps,
            max_epochs: self.max_epochs.unwrap_or(0),
            lr,
            lr_min: self.lr_min.unwrap_or((preset.lr_min as f32).min(lr)),
            lr_warmup_steps: self.lr_warmup_steps.unwrap_or(scaled(preset.lr_warmup_steps)),
            lr_decay: args::parse(self.lr_decay.as_deref().unwrap_or(preset.lr_decay), "--lr-decay")?,
            optimizer: args::parse(self.optimizer.as_deref().unwrap_or(preset.optimizer), "--optimizer")?,
            shard: args::parse(self.shard.as_deref().unwrap_or("none"), "--shard")?,
            gradients: args::parse(self.gradients.as_deref().unwrap_or("f32"), "--gradients")?,
            weight_decay: self.weight_decay.unwrap_or(preset.weight_decay as f32),
            weight_decay_until: self.weight_decay_until.unwrap_or(default.weight_decay_until),
            grad_clip_max_norm: self.grad_clip_max_norm.unwrap_or(preset.grad_clip_max_norm as f32),
            label_smoothing: self.label_smoothing.unwrap_or(preset.label_smoothing as f32),
            teacher_weight: match (self.teacher.is_empty() && own_teachers.is_none(), self.teacher_weight) {
                (true, None) => 0.0,
                (true, Some(_)) => {
                    return Err(CliError::Usage(
                        "--teacher-weight needs --teacher or --teacher-steps".into(),
                    ));
                }
                (false, given) => given.unwrap_or(preset.teacher.map_or(0.5, |teacher| teacher.weight as f32)),
            },
            z_loss: self.z_loss.unwrap_or(default.z_loss),
            dropout: dropout.hidden as f32,
            input_dropout: dropout.input.map(|p| p as f32),
            attention_dropout: self.attention_dropout.unwrap_or(default.attention_dropout),
            output_dropout: dropout.output as f32,
            word_dropout: dropout.word as f32,
            stochastic_depth: self.stochastic_depth.unwrap_or(default.stochastic_depth),
            quant_warmup_steps: phase(self.quant_warmup_steps, preset.quant_warmup_steps),
            quant_anneal_steps: phase(self.quant_anneal_steps, preset.quant_anneal_steps),
            save_every: self.save_every.unwrap_or(preset.save_every),
            keep: self.keep.unwrap_or(default.keep),
            keep_best: self.keep_best,
            max_skipped: self.max_skipped_steps.unwrap_or(default.max_skipped),
            spike_guard: self.spike_guard.unwrap_or(default.spike_guard),
            eval_every: self.eval_every.unwrap_or(preset.eval_every),
            eval_windows: self.eval_windows.unwrap_or(default.eval_windows),
            align_documents: self.align_documents,
            recompute: self.recompute,
            log_every: self.log_every.unwrap_or(default.log_every),
            precision: args::parse(self.precision.as_deref().unwrap_or("auto"), "--precision")?,
            init: args::parse(self.init.as_deref().unwrap_or(preset.init), "--init")?,
            seed: self.seed.unwrap_or(default.seed),
            ..default
        };
        options.validate().map_err(|e| CliError::Usage(e.to_string()))?;
        Ok(options)
    }

    /// Refuses a directory in which something would be written over, or clears it by `--force`.
    pub(super) fn prepare_directory(&self, directory: &Path) -> Result<()> {
        args::output_directory(directory, "--output-dir")?;
        // Of another run nothing is looked at, let alone removed. The trainer takes it again.
        let _lock = RunLock::take(directory)?;
        let is_run = directory.join("checkpoints").is_dir() || directory.join("metrics.jsonl").is_file();
        let present: Vec<&str> = RUN_FILES
            .into_iter()
            .filter(|name| directory.join(name).exists())
            .collect();
        if self.resume && self.force {
            return Err(CliError::Usage(
                "--resume goes on and --force starts over; give one of them".into(),
            ));
        }
        let allowed = self.force || self.resume && is_run;
        if !present.is_empty() && !allowed {
            let advice = if is_run {
                "--resume to go on, --force to start over, or another directory"
            } else {
                "another directory or --force"
            };
            return Err(CliError::Failed(format!(
                "--output-dir: {} already holds {}; give {advice}",
                directory.display(),
                present.join(", ")
            )));
        }
        if self.force {
            let failed = |path: &Path, e: std::io::Error| CliError::io(path, "remove", &e, "remove it by hand");
            let checkpoints = directory.join("checkpoints");
            if checkpoints.is_dir() {
                fs::remove_dir_all(&checkpoints).map_err(|e| failed(&checkpoints, e))?;
            }
            for path in ["metrics.jsonl", SAMPLES_FILE].map(|name| directory.join(name)) {
                if path.is_file() {
                    fs::remove_file(&path).map_err(|e| failed(&path, e))?;
                }
            }
        }
        Ok(())
    }

    /// Builds the network and puts the run together.
    pub(super) fn inputs(
        &self,
        (config, teachers): (ModelConfig, &[(PathBuf, ModelConfig)]),
        options: TrainOptions,
        data: TrainData,
        validation: Option<Tokens>,
        tokenizer: Tokenizer,
        (place, world): (Placement, World),
        output_dir: &Path,
    ) -> Result<RunInputs> {
        let generation = GenerationConfig {
            bos_token_id: config.bos_token_id,
            eos_token_ids: config.eos_token_ids.clone(),
            // What stands for words that the tokenizer does not know says nothing to a reader.
            suppress_tokens: match tokenizer.id_of(END_OF_LINE) {
                Some(_) => tokenizer.id_of(UNKNOWN).into_iter().collect(),
                None => Vec::new(),
            },
            ..Default::default()
        };
        let network = match &self.init_from {
            Some(path) => Network::from_source(config, place.device(), &*files::open_source(path)?)?,
            None => Network::initialized(config, place.device(), options.seed, options.init)?,
        };
        let teachers = teachers
            .iter()
            .map(|(path, config)| load_network(path, config.clone(), place.device()));
        Ok(RunInputs {
            network,
            teachers: teachers.collect::<Result<_>>()?,
            train: data,
            validation: validation.map(|tokens| tokens.file),
            tokenizer: tokenizer.json().to_vec(),
            generation,
            options,
            output_dir: output_dir.to_path_buf(),
            gpu: place.gpu,
            world,
        })
    }
}

/// The model of `config` with the float weights of a directory.
fn load_network(path: &Path, config: ModelConfig, device: Device) -> Result<Network> {
    let (_, tensors) = files::load_master(path)?;
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.data)).collect();
    Ok(Network::from_master(config, device, tensors)?)
}

/// A preset says nothing about tokens: their number and the end of a text come from the tokenizer. The token files hold no
/// token that begins a text.
pub(super) fn fit_to_tokenizer(config: &mut ModelConfig, tokenizer: &Tokenizer) {
    config.vocab_size = tokenizer.vocab_size();
    config.bos_token_id = None;
    config.eos_token_ids = tokenizer
        .eos()
        .filter(|&id| Some(id) != tokenizer.id_of(END_OF_LINE))
        .into_iter()
        .collect();
}
