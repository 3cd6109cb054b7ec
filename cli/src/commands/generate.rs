//! `onebit generate`: continues a text, or several.

mod answer;
mod prompts;

use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::generation::{Finish, Generated, Generator, GeneratorOptions, Request};
use onebit_model::runtime::LONGEST_DRAFT;
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};

#[cfg(feature = "train")]
pub(crate) use prompts::several;

use crate::generation::{self, Given, MAX_TOKENS, note_dropped};
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, interrupt, output};

/// Most alternatives of `--logprobs`.
const MOST_LOGPROBS: usize = 100;

/// Continues a text, streaming it as it is made.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "generate",
    example = "{command_name} --model model --prompt 'Once upon a time' --temperature 0",
    example = "{command_name} --model model --prompts prompts.jsonl --n 4 --json > answers.jsonl",
    note = "Sampling options that are not given come from the model's generation_config.json, otherwise from the defaults below. An empty prompt starts from the token that begins a text (or the one that ends the text before). A prompt longer than the context keeps its most recent tokens. When the context is full its most recent half is read again from the start, and the text goes on; a note and the fields dropped_tokens and shifted_tokens tell. With --prompts or --n there are several results: under --json one object a line, in order."
)]
pub struct Generate {
    #[cfg_attr(
        feature = "bundled",
        doc = "the model: a directory, a .1bit or a .gguf file, or the name of a bundled one: wikitext2-25m"
    )]
    #[cfg_attr(
        all(feature = "tokenizers", not(feature = "bundled")),
        doc = "the model: a directory, a .1bit or a .gguf file"
    )]
    #[cfg_attr(not(feature = "tokenizers"), doc = "the model: a .1bit file")]
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// the text to continue (default: empty)
    #[argh(option)]
    prompt: Option<String>,
    /// a file that holds the text to continue, - for the standard input; a newline at its end does not count
    #[argh(option)]
    prompt_file: Option<PathBuf>,
    /// a file with a prompt a line, or one JSON object a line with `prompt` if its name ends in .jsonl; empty lines are skipped
    #[argh(option)]
    prompts: Option<PathBuf>,
    /// a file that keeps what was read of the prompt: made if it is not there, else used as far as the prompt is the same, and brought up to
    /// date; changes the speed and nothing else (default: none)
    #[argh(option)]
    prompt_cache: Option<PathBuf>,
    /// answers to each prompt; each has a seed of its own, and the first that of --seed (default: 1)
    #[argh(option, default = "1")]
    n: u32,
    /// tell how likely each token was before sampling, with so many of the likeliest, 0 to 100 (default: not told)
    #[argh(option)]
    logprobs: Option<usize>,
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
    /// tokens to read ahead where the text repeats itself, 0 to 8; changes the speed and nothing else (default: 3 on a GPU; on the CPU 8 for a
    /// model too large for the caches, else 0)
    #[argh(option)]
    lookahead: Option<usize>,
    /// compute every logit, also those that a sketch of the head shows cannot be drawn, as a GPU does; changes the speed and nothing else
    #[argh(switch)]
    exact_head: bool,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types make long contexts cheaper and a little less exact (default: f32)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto (a GPU that is found and can run the model, else the CPU), cpu, cuda or cuda:N; the text is the same (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON, with speeds, instead of streaming
    #[argh(switch)]
    json: bool,
}

/// A prompt, its place among several, and its tokens.
struct Prompt {
    text: String,
    index: Option<usize>,
    ids: Vec<u32>,
}

/// What does not change from one answer to the next.
struct Answers {
    generator: Generator,
    params: SamplingParams,
    stops: StopStrings,
    vocab_size: usize,
    max_tokens: usize,
    context: usize,
    logprobs: Option<usize>,
    /// Whether there is more than one result.
    several: bool,
    json: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        let stops = generation::stops(self.stop)?;
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
        let several = self.prompts.is_some();
        let texts = prompts::texts(self.prompt, self.prompt_file.as_deref(), self.prompts.as_deref())?;
        let mut place = device::place(self.device.as_deref(), self.threads)?;
        let tokenizer = directory.tokenizer()?;
        let model = directory.load(head)?;
        let config = model.config().clone();
        let prompts = texts.into_iter().enumerate().map(|(index, text)| {
            let ids = directory.prompt(&config, &tokenizer, &text)?;
            let index = several.then_some(index);
            Ok(Prompt { text, index, ids })
        });
        let prompts = prompts.collect::<Result<Vec<Prompt>>>()?;
        let max_tokens = self
            .max_tokens
            .or(directory.generation.max_new_tokens)
            .unwrap_or(MAX_TOKENS);
        let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(1);
        let context = longest
            .saturating_add(max_tokens)
            .clamp(1, config.max_position_embeddings);
        let sampler = Sampler::new(params, config.vocab_size)?;
        let options = GeneratorOptions {
            isa: place.isa,
            threads: place.threads,
            context,
            lookahead: self.lookahead,
            exact_head: self.exact_head,
            kv,
        };
        let mut answers = Answers {
            generator: generation::generator(&mut place, &directory, model, tokenizer, &sampler, options)?,
            params,
            stops,
            vocab_size: config.vocab_size,
            max_tokens,
            context,
            logprobs: self.logprobs,
            several: several || self.n > 1,
            json: self.json,
        };
        if let (Some(cache), [prompt]) = (&self.prompt_cache, prompts.as_slice()) {
            answers.use_cache(cache, &prompt.ids)?;
        }
        for prompt in &prompts {
            for sample in 0..self.n {
                answers.answer(prompt, sample)?;
            }
        }
        Ok(())
    }

    /// Refuses what makes no sense together, before anything is read.
    fn check(&self) -> Result<()> {
        let usage = |message: String| Err(CliError::Usage(message));
        let given = [
            ("--prompt", self.prompt.is_some()),
            ("--prompt-file", self.prompt_file.is_some()),
            ("--prompts", self.prompts.is_some()),
        ];
        let given: Vec<&str> = given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| name)
            .collect();
        if let [one, other, ..] = given[..] {
            return usage(format!("{one} and {other} both say what to continue; give one of them"));
        }
        if self.prompts.is_some() && self.prompt_cache.is_some() {
            return usage("--prompt-cache keeps one prompt and --prompts gives several; leave one of them out".into());
        }
        if self.n == 0 {
            return usage("--n: expected at least 1, found 0".into());
        }
        if let Some(found) = self.logprobs.filter(|&n| n > MOST_LOGPROBS) {
            return usage(format!("--logprobs: expected 0 to {MOST_LOGPROBS}, found {found}"));
        }
        if let Some(found) = self.lookahead.filter(|&n| n > LONGEST_DRAFT) {
            return usage(format!("--lookahead: expected 0 to {LONGEST_DRAFT}, found {found}"));
        }
        if let Some(path) = self.prompt_cache.as_deref().filter(|path| path.is_dir()) {
            return Err(CliError::Failed(format!(
                "--prompt-cache: {} is a directory; give the path of a file",
                path.display()
            )));
        }
        Ok(())
    }
}

impl Answers {
    fn request<'a>(&self, ids: &'a [u32]) -> Request<'a> {
        Request {
            prompt: ids,
            max_tokens: self.max_tokens,
            logprobs: self.logprobs,
        }
    }

    /// Takes up what a file holds of the prompt, reads the rest, and brings the file up to date.
    fn use_cache(&mut self, path: &std::path::Path, ids: &[u32]) -> Result<()> {
        let fitting = self.generator.fitting(ids, self.max_tokens).len();
        let read = &ids[ids.len() - fitting..];
        let taken = self.generator.load_prompt_cache(path, read)?;
        if taken == fitting {
            return Ok(());
        }
        if taken == 0 && !path.exists() {
            args::new_file(path, "--prompt-cache", false)?;
        }
        self.generator.read(self.request(ids))?;
        self.generator.save_prompt_cache(path)?;
        Ok(())
    }

    fn answer(&mut self, prompt: &Prompt, sample: u32) -> Result<()> {
        let params = self.params.for_sample(u64::from(sample));
        let mut sampler = Sampler::new(params, self.vocab_size)?;
        self.stops.reset();
        let json = self.json;
        if !json {
            if self.several {
                let index = prompt
                    .index
                    .map_or_else(String::new, |index| format!("prompt {}, ", index + 1));
                output::line(&format!("--- {index}answer {}", sample + 1))?;
            }
            output::text(&prompt.text)?;
        }
        let stop = interrupt::poll();
        let request = self.request(&prompt.ids);
        let made = self
            .generator
            .generate::<CliError>(request, &mut sampler, &mut self.stops, stop, &mut |piece| {
                if json { Ok(()) } else { output::text(piece) }
            })?;
        let answer = answer::Answer {
            index: prompt.index,
            sample: self.several.then_some(sample),
            prompt: &prompt.text,
            prompt_tokens: prompt.ids.len(),
            seed: params.seed,
            made: &made,
            tokenizer: self.generator.tokenizer(),
            logprobs: self.logprobs.is_some(),
        };
        match json {
            true => output::json(&answer.json())?,
            false => self.tell(&made, &answer)?,
        }
        note_dropped(&made, self.context);
        match made.finish {
            Finish::Interrupted => Err(CliError::Interrupted("interrupted".into())),
            _ => Ok(()),
        }
    }

    /// The end of an answer for people.
    fn tell(&self, made: &Generated, answer: &answer::Answer<'_>) -> Result<()> {
        output::line("")?;
        answer.logprob_lines().iter().try_for_each(|line| output::line(line))?;
        output::note(&format!(
            "{} tokens, {:.1} tok/s, first after {:.0} ms",
            made.ids.len(),
            made.tokens_per_second(),
            made.first_ms()
        ));
        Ok(())
    }
}
