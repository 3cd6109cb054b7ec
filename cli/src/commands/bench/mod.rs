//! `onebit bench`: tokens a second, beside the limits of the machine measured in the same run.

mod train;

use std::path::PathBuf;
use std::time::Instant;

use argh::FromArgs;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::{PackedModel, Pool, Session, SessionOptions};
use serde::Serialize;

use crate::device::Placement;
use crate::model::ModelDirectory;
use crate::{CliError, Result, device, limits, output, random};

/// Measures tokens a second of decoding, prefill or training.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "bench",
    example = "{command_name} decode --shape 0.7b --json",
    example = "{command_name} train --shape 25m --tokens 2048",
    note = "Without --model the weights are random trits of the given shape. bandwidth_gb_s is what all threads read from memory in the same run; peak_ops is the peak of int8 dot products (decode, prefill) or of f32 fused multiply-adds (train). A token counts two operations for each weight of the blocks and of the head (prefill: of the blocks), six in training."
)]
pub struct Bench {
    /// what to measure: decode, prefill or train
    #[argh(positional)]
    what: String,
    /// 25m, 125m, 350m, 0.7b, 1b3 or 2b4t (default: 25m)
    #[argh(option)]
    shape: Option<String>,
    /// a model directory or .1bit file instead of a shape
    #[argh(option)]
    model: Option<PathBuf>,
    /// tokens to decode (default: 64), of the prompt (default: 512) or of a training step (default: 2048)
    #[argh(option)]
    tokens: Option<usize>,
    /// seed of the random weights and ids (default: 0)
    #[argh(option, default = "0")]
    seed: u64,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Decode,
    Prefill,
    Train,
}

/// What was timed.
struct Timed {
    tokens: usize,
    seconds: f64,
    bytes_per_token: f64,
    ops_per_token: f64,
}

/// The result.
#[derive(Serialize)]
struct Report {
    bench: String,
    model: String,
    parameters: u64,
    tokens: usize,
    seconds: f64,
    tok_s: f64,
    bytes_per_token: f64,
    bandwidth_gb_s: f64,
    fraction_of_bandwidth: f64,
    ops_per_token: f64,
    peak_ops: f64,
    fraction_of_peak: f64,
    isa: &'static str,
    threads: usize,
    device: String,
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        let what = match self.what.as_str() {
            "decode" => What::Decode,
            "prefill" => What::Prefill,
            "train" => What::Train,
            other => {
                return Err(CliError::Usage(format!(
                    "bench: expected decode, prefill or train, found {other:?}"
                )));
            }
        };
        if self.tokens == Some(0) {
            return Err(CliError::Usage("--tokens: expected at least 1, found 0".into()));
        }
        let (name, config, directory) = self.subject()?;
        let tokens = self.tokens.unwrap_or(match what {
            What::Decode => 64.min(config.max_position_embeddings - 1),
            What::Prefill => 512.min(config.max_position_embeddings),
            What::Train => 2048,
        });
        let room = config.max_position_embeddings;
        if what != What::Train && tokens + usize::from(what == What::Decode) > room {
            return Err(CliError::Usage(format!(
                "--tokens: {tokens} do not fit in the model's context of {room}"
            )));
        }
        let place = device::place(self.device.as_deref(), self.threads)?;
        let isa = place.device.isa();
        let sweep = limits::Bandwidth::new(place.threads, limits::BUFFER_BYTES)?;
        let before = sweep.measure(isa);
        let timed = if what == What::Train {
            train::measure(&config, tokens, place, self.seed)?
        } else {
            let model = match &directory {
                Some(directory) => directory.load()?,
                None => random::model(config.clone(), self.seed)?,
            };
            if what == What::Decode {
                decode(&model, tokens, place, self.seed)?
            } else {
                prefill(&model, tokens, place, self.seed)?
            }
        };
        let bandwidth = before.max(sweep.measure(isa));
        let peak_ops = if what == What::Train {
            limits::fma_peak(isa, place.threads)
        } else {
            limits::int8_peak(isa, place.threads)
        };
        let tok_s = timed.tokens as f64 / timed.seconds;
        let report = Report {
            bench: self.what,
            model: name,
            parameters: config.parameter_count(),
            tokens: timed.tokens,
            seconds: timed.seconds,
            tok_s,
            bytes_per_token: timed.bytes_per_token,
            bandwidth_gb_s: bandwidth / 1e9,
            fraction_of_bandwidth: tok_s * timed.bytes_per_token / bandwidth,
            ops_per_token: timed.ops_per_token,
            peak_ops,
            fraction_of_peak: tok_s * timed.ops_per_token / peak_ops,
            isa: isa.name(),
            threads: place.threads,
            device: place.device.describe(),
        };
        if self.json {
            output::json(&report)
        } else {
            print(&report)
        }
    }

    /// What is measured: its name, its configuration and, for a real model, its directory.
    fn subject(&self) -> Result<(String, ModelConfig, Option<ModelDirectory>)> {
        match (&self.shape, &self.model) {
            (Some(_), Some(_)) => Err(CliError::Usage(
                "--shape and --model both say what to measure; give one of them".into(),
            )),
            (None, Some(path)) => {
                let directory = ModelDirectory::open(path)?;
                Ok((path.display().to_string(), directory.config()?, Some(directory)))
            }
            (shape, None) => {
                let name = shape.as_deref().unwrap_or("25m");
                Ok((name.to_string(), random::config(name)?, None))
            }
        }
    }
}

fn print(r: &Report) -> Result<()> {
    output::table(&[
        (
            "bench",
            format!(
                "{} of {} ({} parameters)",
                r.bench,
                r.model,
                output::count(r.parameters)
            ),
        ),
        (
            "speed",
            format!("{:.2} tok/s ({} tokens in {:.2} s)", r.tok_s, r.tokens, r.seconds),
        ),
        (
            "memory",
            format!(
                "{} a token, {:.0}% of the {:.1} GB/s that were measured",
                output::bytes(r.bytes_per_token as u64),
                100.0 * r.fraction_of_bandwidth,
                r.bandwidth_gb_s
            ),
        ),
        (
            "arithmetic",
            format!(
                "{:.2} GOP a token, {:.0}% of the {:.0} GOP/s that were measured",
                r.ops_per_token / 1e9,
                100.0 * r.fraction_of_peak,
                r.peak_ops / 1e9
            ),
        ),
        ("device", r.device.clone()),
    ])
}

/// Weights of the blocks' linears.
fn block_weights(config: &ModelConfig) -> f64 {
    let linears = (0..config.num_hidden_layers).flat_map(|layer| config.linears(layer));
    linears.map(|linear| linear.rows as f64 * linear.cols as f64).sum()
}

fn decode(model: &PackedModel, tokens: usize, place: Placement, seed: u64) -> Result<Timed> {
    let config = model.config();
    let ids = random::ids(tokens + 1, config.vocab_size, seed);
    let mut session = Session::new(
        model,
        Pool::new(place.threads)?,
        place.device.isa(),
        SessionOptions::new(tokens + 1),
    )?;
    // Once untimed: threads awake, pages of the weights in memory.
    session.decode(ids[0])?;
    let start = Instant::now();
    for &id in &ids[1..] {
        session.decode(id)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let weights = block_weights(config) + config.vocab_size as f64 * config.hidden_size as f64;
    Ok(Timed {
        tokens,
        seconds,
        bytes_per_token: model.bytes_per_token() as f64,
        ops_per_token: 2.0 * weights,
    })
}

fn prefill(model: &PackedModel, tokens: usize, place: Placement, seed: u64) -> Result<Timed> {
    let ids = random::ids(tokens, model.config().vocab_size, seed);
    let options = SessionOptions::new(tokens);
    let mut session = Session::new(model, Pool::new(place.threads)?, place.device.isa(), options)?;
    session.decode(ids[0])?;
    session.reset();
    let start = Instant::now();
    session.prefill(&ids)?;
    let seconds = start.elapsed().as_secs_f64();
    let chunks = tokens.div_ceil(options.chunk) as f64;
    let bytes_per_token = model.bytes_per_token() as f64 * chunks / tokens as f64;
    Ok(Timed {
        tokens,
        seconds,
        bytes_per_token,
        ops_per_token: 2.0 * block_weights(model.config()),
    })
}
