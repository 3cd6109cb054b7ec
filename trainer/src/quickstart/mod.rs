//! The quickstart: from nothing to a packed ternary model that tells stories, on the built-in grammar.
//!
//! 1. [`prepare`] draws stories from the [grammar](crate::stories) (training and held-out streams differ), trains a tokenizer on them and
//!    writes token files;
//! 2. [`steps_within`] measures this machine and chooses how many steps fit into the time given;
//! 3. [`crate::run::Trainer`] trains through all three phases;
//! 4. [`judge`] packs the model, reads it back from the disk and measures it: bits per byte on unseen stories against the entropy of
//!    the grammar on those very stories, and how many of the stories it tells the grammar accepts.

mod judge;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use onebit_engine::Device;
use onebit_model::config::presets::{self, Preset};
use onebit_model::files::GenerationConfig;
use onebit_model::network::{Initialization, Network};
use onebit_model::tokenizer::{Tokenizer, train_whole_words};

pub use judge::{Verdict, judge, sampling_params};

use crate::data::{TokenFile, TokenWriter, count_words};
use crate::error::io_error;
use crate::options::{OptimizerKind, TrainOptions};
use crate::parallel::World;
use crate::run::{RunInputs, Trainer};
use crate::schedule::LrDecay;
use crate::stories::{Grammar, Split, stream};
use crate::{Result, TrainError};

/// The preset of a quickstart that takes the minutes given.
pub const TIMED: &str = "quickstart";
/// The presets that this is for. All but the first take the steps of their own, and a text that holds as many stories as those read.
pub const PRESETS: [&str; 3] = [TIMED, "stories-3m", "stories-mcu"];
/// Stories of the training text of [`TIMED`], which a run of three minutes reads once, and the fewest of the others.
const TRAINING_STORIES: usize = 20_000;
/// More are not written; a longer run reads them again.
const MOST_STORIES: usize = 400_000;
/// Stories of the validation text that is watched while training.
const VALIDATION_STORIES: usize = 200;
/// Share of the time left that training gets; the rest is for the judging and for a machine that slows down.
const TRAINING_SHARE: f64 = 0.75;
/// More steps than this in a minute of the budget are not made: in three minutes every copy has long been learned.
const STEPS_PER_MINUTE: f64 = 420.0;

/// A quickstart before its training.
#[derive(Debug)]
pub struct Prepared {
    /// The grammar.
    pub grammar: Grammar,
    /// The tokenizer, trained on the training text.
    pub tokenizer: Tokenizer,
    /// The model, data and options of the run.
    pub inputs: RunInputs,
    /// The token file that it is trained on.
    pub train: PathBuf,
    /// The preset, whose settings [`options`] takes.
    pub preset: Preset,
    /// When the quickstart began.
    pub began: Instant,
}

/// The preset `name` of [`PRESETS`].
///
/// # Errors
/// Another name.
pub fn preset(name: &str) -> Result<Preset> {
    let known = PRESETS.contains(&name).then(|| presets::by_name(name)).flatten();
    known.ok_or_else(|| TrainError::Option {
        option: "config",
        why: format!("expected {}, found {name:?}", PRESETS.join(" or ")),
    })
}

/// Stories of the training text of a run of `steps` steps, if that is known.
pub fn stories(preset: &Preset, steps: Option<u64>) -> usize {
    let Some(steps) = steps.filter(|_| preset.name != TIMED) else {
        return TRAINING_STORIES;
    };
    let read = steps.saturating_mul(preset.training.batch_size as u64);
    usize::try_from(read)
        .unwrap_or(MOST_STORIES)
        .clamp(TRAINING_STORIES, MOST_STORIES)
}

/// Writes text, tokenizer and token files under `directory` and builds the model. `steps` is set later. `stories`: those of the training text,
/// [as many as a run reads](stories).
///
/// # Errors
/// A directory that cannot be written.
pub fn prepare(directory: &Path, device: Device, seed: u64, preset: Preset, stories: usize) -> Result<Prepared> {
    let began = Instant::now();
    let grammar = Grammar::built_in();
    let data = directory.join("data");
    fs::create_dir_all(&data).map_err(io_error(&data, "choose a directory that can be written"))?;
    let text = grammar.corpus(stories, &mut stream(seed, Split::Train));
    // A tenth of the text holds every word of the grammar many times.
    let sample = &text[..text[..text.len() / 10].rfind('\n').unwrap_or(text.len())];
    let tokenizer =
        train_whole_words([sample], preset.config.vocab_size).map_err(|e| TrainError::Runtime(e.to_string()))?;
    let train = write_tokens(&data.join("train.tokens"), &tokenizer, &text)?;
    // Held-out stories: these are watched, others are judged.
    let watched = grammar.corpus(VALIDATION_STORIES, &mut stream(seed ^ 1, Split::HeldOut));
    let validation = write_tokens(&data.join("validation.tokens"), &tokenizer, &watched)?;

    let mut config = preset.config.clone();
    config.vocab_size = tokenizer.vocab_size();
    config.bos_token_id = None;
    config.eos_token_ids = tokenizer.eos().into_iter().collect();
    let options = options(&preset, 1, seed);
    let network = Network::initialized(config, device, seed, options.init)?;
    let inputs = RunInputs {
        network,
        teachers: Vec::new(),
        train: train.into(),
        validation: Some(validation),
        tokenizer: tokenizer.json().to_vec(),
        generation: generation(&tokenizer),
        options,
        output_dir: directory.to_path_buf(),
        gpu: None,
        world: World::single(),
    };
    Ok(Prepared {
        grammar,
        tokenizer,
        inputs,
        train: data.join("train.tokens"),
        preset,
        began,
    })
}

/// The recipe for a run of `steps` steps. Windows begin where stories do, so that no other story's names stand before one;
/// the learning rate is high and falls to nothing, for what a story must remember is learned on the way down.
pub fn options(preset: &Preset, steps: u64, seed: u64) -> TrainOptions {
    let training = &preset.training;
    TrainOptions {
        batch_size: training.batch_size,
        seq_len: training.seq_len,
        align_documents: true,
        accumulation_steps: 1,
        max_steps: steps,
        lr: training.lr as f32,
        lr_min: training.lr as f32 / 300.0,
        lr_warmup_steps: 20.min(steps / 4),
        lr_decay: LrDecay::Linear,
        optimizer: OptimizerKind::Muon,
        weight_decay: 0.05,
        quant_warmup_steps: steps * 2 / 5,
        quant_anneal_steps: steps / 5,
        save_every: 0,
        keep: 1,
        eval_every: (steps / 8).max(1),
        eval_windows: 64,
        log_every: 20,
        init: Initialization::Mimetic,
        seed,
        ..Default::default()
    }
}

/// The unlikely words are left out, since most of them break a story's thread, and nothing is penalised for being said again: names must
/// be.
fn generation(tokenizer: &Tokenizer) -> GenerationConfig {
    GenerationConfig {
        temperature: Some(0.6),
        top_k: Some(50),
        top_p: Some(0.8),
        repetition_penalty: Some(1.0),
        max_new_tokens: Some(150),
        eos_token_ids: tokenizer.eos().into_iter().collect(),
        ..Default::default()
    }
}

/// A document for each story: a line break, then the story; one more line break ends the last.
fn write_tokens(path: &Path, tokenizer: &Tokenizer, text: &str) -> Result<TokenFile> {
    let fail = |e: onebit_model::tokenizer::TokenizerError| TrainError::Runtime(e.to_string());
    let stories: Vec<String> = text.lines().map(|story| format!("\n{story}")).collect();
    let mut writer = TokenWriter::create(path, tokenizer.vocab_size(), tokenizer.fingerprint(), true)?;
    for ids in tokenizer.encode_batch(&stories).map_err(fail)? {
        writer.push(&ids)?;
        writer.end_document();
    }
    writer.push(&tokenizer.encode("\n").map_err(fail)?)?;
    writer.end_document();
    Ok(writer.finish(text.len() as u64, count_words(text))?)
}

/// How many steps of training fit, at most 420 a minute, so that the whole quickstart ends within `minutes`: measured on a copy of the model, in a scratch
/// directory, in full precision and hard, the dearest and the cheapest phase.
///
/// # Errors
/// As training itself.
pub fn steps_within(prepared: &Prepared, minutes: f64, scratch: &Path) -> Result<u64> {
    const STEPS: u64 = 6;
    let mut seconds_per_step = 0.0;
    for (phase, warmup) in [("full", STEPS + 2), ("hard", 0)] {
        let directory = scratch.join(phase);
        let options = TrainOptions {
            quant_warmup_steps: warmup,
            quant_anneal_steps: 0,
            eval_every: 0,
            log_every: 100,
            ..options(&prepared.preset, STEPS + 2, prepared.inputs.options.seed)
        };
        let inputs = RunInputs {
            network: prepared.inputs.network.clone(),
            teachers: Vec::new(),
            train: TokenFile::open(&prepared.train)?.into(),
            validation: None,
            tokenizer: Vec::new(),
            generation: GenerationConfig::default(),
            options,
            output_dir: directory,
            gpu: prepared.inputs.gpu.clone(),
            world: World::single(),
        };
        let mut trainer = Trainer::new(inputs, false, &mut |_| ())?;
        let mut times = Vec::new();
        let mut last = Instant::now();
        trainer.run(&AtomicBool::new(false), &mut |event| {
            if matches!(event, crate::run::Event::Step(_)) {
                times.push(last.elapsed().as_secs_f64());
                last = Instant::now();
            }
        })?;
        // The first two steps warm caches and pools.
        times.drain(..2);
        times.sort_by(f64::total_cmp);
        seconds_per_step += times[times.len() / 2] / 2.0;
    }
    let left = minutes * 60.0 - prepared.began.elapsed().as_secs_f64();
    let steps = (left * TRAINING_SHARE / seconds_per_step).min(minutes * STEPS_PER_MINUTE);
    Ok((steps as u64).max(20))
}

/// Where the packed model of a quickstart in `directory` lies.
pub fn packed_directory(directory: &Path) -> PathBuf {
    directory.join("packed")
}
