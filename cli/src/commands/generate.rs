//! `onebit generate`: continues a text.

use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::runtime::LONGEST_DRAFT;
use onebit_model::sampling::{Sampler, StopStrings};
use serde::Serialize;

use crate::generation::{Finish, Generator, Given, MAX_TOKENS, Means};
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, interrupt, output};

/// Continues a text, streaming it as it is made.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "generate",
    example = "{command_name} --model model --prompt 'Once upon a time' --temperature 0",
    note = "Sampling options that are not given come from the model's generation_config.json, otherwise from the defaults below. An empty prompt starts from the token that begins a text (or the one that ends the text before). A prompt longer than the context keeps its most recent tokens. When the context is full its most recent half is read again from the start, and the text goes on."
)]
pub struct Generate {
    /// the model directory or .1bit file
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// the text to continue (default: empty)
    #[argh(option, default = "String::new()")]
    prompt: String,
    /// tokens to generate at most (default: 100)
    #[argh(option)]
    max_tokens: Option<usize>,
    /// divides the logits; 0 takes the likeliest token (default: 0.8)
    #[argh(option)]
    temperature: Option<f32>,
    /// choose among so many of the likeliest tokens; 0 for all (default: 50)
    #[argh(option)]
    top_k: Option<usize>,
    /// choose among the likeliest tokens that have this probability together (default: 0.9)
    #[argh(option)]
    top_p: Option<f32>,
    /// choose among tokens at least this fraction as likely as the likeliest (default: 0)
    #[argh(option)]
    min_p: Option<f32>,
    /// divides the logits of tokens that were seen; 1 for none (default: 1.1)
    #[argh(option)]
    repetition_penalty: Option<f32>,
    /// end before this text; may be given several times
    #[argh(option)]
    stop: Vec<String>,
    /// seed of the random numbers (default: 0)
    #[argh(option)]
    seed: Option<u64>,
    /// tokens to read ahead where the text repeats itself, 0 to 8; changes the speed and nothing else (default: 8 for a model too large
    /// for the caches, else 0)
    #[argh(option)]
    lookahead: Option<usize>,
    /// compute every logit, also those that a sketch of the head shows cannot be drawn; changes the speed and nothing else
    #[argh(switch)]
    exact_head: bool,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types make long contexts cheaper and a little less exact (default: f32)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto, cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON, with speeds, instead of streaming
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    text: &'a str,
    ids: &'a [u32],
    tokens: usize,
    prompt_tokens: usize,
    dropped_tokens: usize,
    drafted_tokens: usize,
    accepted_tokens: usize,
    finish: Finish,
    tok_s: f64,
    ttft_ms: f64,
    seed: u64,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        let mut stops = StopStrings::new(self.stop)
            .map_err(|_| CliError::Usage("--stop: an empty text would end at once; leave it out".into()))?;
        if let Some(found) = self.lookahead.filter(|&n| n > LONGEST_DRAFT) {
            return Err(CliError::Usage(format!(
                "--lookahead: expected 0 to {LONGEST_DRAFT}, found {found}"
            )));
        }
        let kv = args::kv_type(self.kv_type.as_deref())?;
        let head = args::head_type(self.head.as_deref())?;
        let directory = ModelDirectory::open(&path)?;
        let given = Given {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        let params = given.resolve(&directory.generation)?;
        let place = device::place(self.device.as_deref(), self.threads)?;
        let tokenizer = directory.tokenizer()?;
        let model = directory.load(head)?;
        let config = model.config().clone();
        let mut ids: Vec<u32> = directory.begin_token(&config, &tokenizer).into_iter().collect();
        ids.extend(tokenizer.encode(&self.prompt)?);
        if ids.is_empty() {
            let start = config.bos_token_id.or(tokenizer.bos()).or(tokenizer.eos());
            ids.push(start.ok_or_else(|| {
                CliError::Failed(
                    "--prompt is empty and the tokenizer has no token that begins or ends a text; give a prompt".into(),
                )
            })?);
        }
        let max_tokens = self
            .max_tokens
            .or(directory.generation.max_new_tokens)
            .unwrap_or(MAX_TOKENS);
        let context = ids
            .len()
            .saturating_add(max_tokens)
            .clamp(1, config.max_position_embeddings);
        let ends = directory.end_tokens(&config, &tokenizer);
        let mut sampler = Sampler::new(params, config.vocab_size)?;
        let means = Means {
            isa: place.device.isa(),
            threads: place.threads,
            lookahead: self.lookahead,
            exact_head: self.exact_head,
            kv,
        };
        let mut generator = Generator::new(model, tokenizer, ends, context, &sampler, means)?;
        if ids.len() > context {
            output::note(&format!(
                "note: the prompt has {} tokens and the model's context is {context}: only the most recent that fit are read",
                ids.len()
            ));
        }
        if !self.json {
            output::text(&self.prompt)?;
        }
        let stop = interrupt::poll();
        let json = self.json;
        let made = generator.generate(
            &ids,
            max_tokens,
            &mut sampler,
            &mut stops,
            stop,
            &mut |piece| match json {
                true => Ok(()),
                false => output::text(piece),
            },
        )?;
        if json {
            output::json(&Answer {
                prompt: &self.prompt,
                text: &made.text,
                ids: &made.ids,
                tokens: made.ids.len(),
                prompt_tokens: ids.len(),
                dropped_tokens: made.dropped,
                drafted_tokens: made.drafted,
                accepted_tokens: made.accepted,
                finish: made.finish,
                tok_s: made.tokens_per_second(),
                ttft_ms: made.first_ms(),
                seed: params.seed,
            })?;
        } else {
            output::line("")?;
            output::note(&format!(
                "{} tokens, {:.1} tok/s, first after {:.0} ms",
                made.ids.len(),
                made.tokens_per_second(),
                made.first_ms()
            ));
        }
        match made.finish {
            Finish::Interrupted => Err(CliError::Interrupted("interrupted".into())),
            _ => Ok(()),
        }
    }
}
