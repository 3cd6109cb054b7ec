//! `onebit eval`: the loss of a text, or the logits of given tokens.

#[cfg(feature = "train")]
mod corpus;
#[cfg(feature = "train")]
mod modes;
#[cfg(not(feature = "train"))]
mod plain;
#[cfg(feature = "train")]
mod stories;

use std::path::PathBuf;
use std::time::Instant;

use argh::FromArgs;
use onebit_model::evaluation::{self, Score};
#[cfg(feature = "cuda")]
use onebit_model::runtime::cuda::CudaSession;
use onebit_model::runtime::{KvType, PackedModel, Pool, Sequence, Session, SessionOptions};
use serde::Serialize;
use serde_json::json;

#[cfg(feature = "train")]
use self::corpus::read;
#[cfg(feature = "train")]
pub(crate) use self::corpus::read as read_corpus;
#[cfg(feature = "train")]
use self::modes::{Cache, Dynamic, score_dynamically, score_with_cache};
#[cfg(not(feature = "train"))]
use self::plain::read;
use crate::device::Placement;
use crate::model::ModelDirectory;
use crate::progress::Progress;
use crate::{CliError, Result, args, device, output};

/// Scores a text with a model.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "eval",
    example = "{command_name} --model model --data valid.txt --json",
    example = "{command_name} --model model --ids 1,17,42 --logits --json",
    example = "{command_name} --model onebit-quickstart/packed --stories",
    note = "--cache and --dynamic are modes of their own, with figures of their own: the one scores a text by what it held so far, too, and the other lets the model learn it on the way.",
    note = "loss is in nats a token; word_ppl = exp(total nats / words), where words are what lies between white space and one end of each line of the original text; bpb is bits a byte of it. The text is read in windows of the model's context that advance by --stride tokens, and each token is scored once; before the first stands the token that ends a text. With --ids, the given tokens are scored instead (the first is context), and --logits prints the logits after each."
)]
pub struct Eval {
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
    /// text file (also JSONL, parquet, .gz, .zst), directory of them, or token file
    #[argh(option)]
    data: Option<PathBuf>,
    /// tokens by which the window advances, at most the context (default: half of the context)
    #[argh(option)]
    stride: Option<usize>,
    /// tokens of a window, at most the model's context (default: the model's context)
    #[argh(option)]
    context: Option<usize>,
    /// score the first so many tokens alone (default: all)
    #[argh(option)]
    max_tokens: Option<usize>,
    /// a neural cache of so many tokens: words of late are likelier where the model is in a like state; a figure of its own (default: none)
    #[argh(option)]
    cache: Option<usize>,
    /// how much more a like state counts (default: 0.3; with --cache)
    #[argh(option)]
    cache_theta: Option<f32>,
    /// the cache's share of the probability, from 0 to 1 (default: 0.1; with --cache)
    #[argh(option)]
    cache_weight: Option<f64>,
    /// dynamic evaluation: the model is scored on so many tokens, learns them, and goes on; a figure of its own, for models with float weights (default: none)
    #[argh(option)]
    dynamic: Option<usize>,
    /// the rate at which the model learns (default: 1e-5; with --dynamic)
    #[argh(option)]
    dynamic_lr: Option<f32>,
    /// how much the weights are drawn back to what they were (default: 0; with --dynamic)
    #[argh(option)]
    dynamic_decay: Option<f32>,
    /// judge the model by stories of the built-in grammar instead of a text: bits a byte on unseen ones beside the grammar's own, how many that it tells are consistent, and how often it
    /// finds a consistent story likelier than one that contradicts itself
    #[argh(switch)]
    stories: bool,
    /// seed of the stories (default: 0; with --stories)
    #[argh(option)]
    seed: Option<u64>,
    /// token ids, separated by commas, instead of --data
    #[argh(option)]
    ids: Option<String>,
    /// print the logits after each token of --ids
    #[argh(switch)]
    logits: bool,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types make long contexts cheaper and a little less exact (default: f32)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto (a GPU that is found and can run the model, else the CPU), cpu, cuda or cuda:N; the result is the same (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Evaluation {
    loss: f64,
    ppl: f64,
    word_ppl: Option<f64>,
    bpb: Option<f64>,
    tokens: u64,
    words: Option<u64>,
    bytes: Option<u64>,
    tok_s: f64,
    /// What the model was scored with beside its windows.
    #[cfg(feature = "train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
    #[cfg(feature = "train")]
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic: Option<Dynamic>,
}

/// A text as tokens, the first of them context only, and the size of the original.
pub(crate) struct Corpus {
    pub ids: Vec<u32>,
    words: Option<u64>,
    bytes: Option<u64>,
}

impl Corpus {
    fn check(&self) -> Result<()> {
        match self.ids.len() {
            0 | 1 => Err(CliError::Failed(
                "one token alone cannot be scored: the first is context; give at least two".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Keeps the first `tokens` that are scored. How many words and bytes they are is not known then.
    fn cut(&mut self, tokens: usize) {
        if tokens.saturating_add(1) < self.ids.len() {
            self.ids.truncate(tokens + 1);
            (self.words, self.bytes) = (None, None);
        }
    }

    /// The progress of scoring it.
    fn progress(&self) -> Progress {
        Progress::new("scoring", (self.ids.len() as u64).saturating_sub(1))
    }
}

impl Eval {
    pub(super) fn run(self) -> Result<()> {
        #[cfg(not(feature = "train"))]
        self.check_plain()?;
        #[cfg(feature = "train")]
        self.check_stories()?;
        #[cfg(feature = "train")]
        if self.stories {
            return self.score_stories();
        }
        #[cfg(feature = "train")]
        let (cache, dynamic) = (self.cache()?, self.dynamic()?);
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        let ids = self.ids.as_deref().map(parse_ids).transpose()?;
        let kv = args::kv_type(self.kv_type.as_deref())?;
        let head = args::head_type(self.head.as_deref())?;
        match (&self.data, &ids) {
            (Some(_), Some(_)) => {
                return Err(CliError::Usage(
                    "--data and --ids both say what to score; give one of them".into(),
                ));
            }
            (None, None) => {
                return Err(CliError::Usage(
                    "required option not provided: --data (or --ids or --stories)".into(),
                ));
            }
            (Some(_), None) if self.logits => return Err(CliError::Usage("--logits needs --ids".into())),
            (None, Some(_)) if self.logits && (self.context.is_some() || self.max_tokens.is_some()) => {
                return Err(CliError::Usage(
                    "--logits are those of all of --ids at once; leave --context and --max-tokens out".into(),
                ));
            }
            _ => {}
        }
        let directory = ModelDirectory::open(&path)?;
        if let Some(data) = &self.data
            && !data.is_dir()
        {
            args::existing_file(data, "--data")?;
        }
        let config = directory.config();
        let most = config.max_position_embeddings;
        let context = self.context.unwrap_or(most);
        if context == 0 || context > most {
            return Err(CliError::Usage(format!(
                "--context: expected 1 to the model's context of {most}, found {context}"
            )));
        }
        if self.max_tokens == Some(0) {
            return Err(CliError::Usage("--max-tokens: expected at least 1, found 0".into()));
        }
        let stride = self.stride.unwrap_or((context / 2).max(1));
        if stride == 0 || stride > context {
            return Err(CliError::Usage(format!(
                "--stride: expected 1 to the window's {context} tokens, found {stride}"
            )));
        }
        let place = device::place(self.device.as_deref(), self.threads)?;
        let mut corpus = match ids {
            Some(ids) if self.logits => return print_logits(&directory.load(head)?, &ids, kv, place, self.json),
            Some(ids) => Corpus {
                ids,
                words: None,
                bytes: None,
            },
            None => read(
                &self.data.unwrap_or_default(),
                &directory.tokenizer()?,
                config.vocab_size,
            )?,
        };
        if let Some(most) = self.max_tokens {
            corpus.cut(most);
        }
        #[cfg(feature = "train")]
        if let Some(how) = dynamic {
            return print(&score_dynamically(&path, &corpus, how, place)?, self.json);
        }
        let (model, window) = (directory.load(head)?, (context, stride));
        #[cfg(feature = "train")]
        if let Some(cache) = cache {
            return print(
                &score_with_cache(&model, &corpus, window, kv, cache, &place)?,
                self.json,
            );
        }
        print(&score(&model, &corpus, window, kv, place)?, self.json)
    }
}

pub(crate) fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let parse = |part: &str| part.trim().parse::<u32>();
    let ids: std::result::Result<Vec<u32>, _> = text.split(',').map(parse).collect();
    ids.map_err(|_| {
        CliError::Usage(format!(
            "--ids: expected token ids separated by commas, such as 1,17,42, found {text:?}"
        ))
    })
}

fn score(
    model: &PackedModel,
    corpus: &Corpus,
    window: (usize, usize),
    kv: KvType,
    mut place: Placement,
) -> Result<Evaluation> {
    corpus.check()?;
    let on_gpu = place.upload(model, window.0, kv)?;
    let (progress, start) = (corpus.progress(), Instant::now());
    let told = |done| progress.set(done, || rate(done, start));
    let score = match on_gpu {
        #[cfg(feature = "cuda")]
        Some(model) => evaluation::score_on_gpu(&model, &corpus.ids, window, kv, &told)?,
        None => evaluation::score(model, place.isa, &corpus.ids, window, kv, &told)?,
    };
    Ok(evaluation(corpus, &score, start))
}

/// How fast `done` tokens were scored, for a reader.
fn rate(done: u64, start: Instant) -> String {
    format!("{:.0} tok/s", done as f64 / start.elapsed().as_secs_f64())
}

/// What `score` says of the text, which was begun at `start`.
fn evaluation(corpus: &Corpus, score: &Score, start: Instant) -> Evaluation {
    let seconds = start.elapsed().as_secs_f64();
    Evaluation {
        loss: score.loss(),
        ppl: score.loss().exp(),
        word_ppl: corpus.words.filter(|&n| n > 0).map(|n| (score.nats / n as f64).exp()),
        bpb: corpus
            .bytes
            .filter(|&n| n > 0)
            .map(|n| score.nats / std::f64::consts::LN_2 / n as f64),
        tokens: score.tokens,
        words: corpus.words,
        bytes: corpus.bytes,
        tok_s: score.tokens as f64 / seconds.max(1e-9),
        #[cfg(feature = "train")]
        cache: None,
        #[cfg(feature = "train")]
        dynamic: None,
    }
}

fn print(evaluation: &Evaluation, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(evaluation);
    }
    let e = evaluation;
    let mut rows = vec![
        ("loss", format!("{:.4} nats a token", e.loss)),
        ("ppl", format!("{:.3}", e.ppl)),
    ];
    rows.extend(e.word_ppl.map(|x| ("word ppl", format!("{x:.3}"))));
    rows.extend(e.bpb.map(|x| ("bits a byte", format!("{x:.4}"))));
    rows.push(("tokens", e.tokens.to_string()));
    rows.extend(e.words.map(|n| ("words", n.to_string())));
    rows.extend(e.bytes.map(|n| ("bytes", n.to_string())));
    #[cfg(feature = "train")]
    rows.extend(e.cache.map(|c| {
        (
            "cache",
            format!("{} tokens, θ {}, share {}", c.tokens, c.theta, c.weight),
        )
    }));
    #[cfg(feature = "train")]
    rows.extend(e.dynamic.map(|d| {
        (
            "dynamic",
            format!("{} tokens at a time, rate {}, decay {}", d.tokens, d.lr, d.decay),
        )
    }));
    rows.push(("speed", format!("{:.0} tok/s", e.tok_s)));
    output::table(&rows)
}

fn print_logits(model: &PackedModel, ids: &[u32], kv: KvType, mut place: Placement, as_json: bool) -> Result<()> {
    let logits = match place.upload(model, ids.len(), kv)? {
        #[cfg(feature = "cuda")]
        Some(model) => all_logits(&mut CudaSession::new(&model, ids.len(), kv)?, ids)?,
        None => {
            let mut options = SessionOptions::new(ids.len());
            options.kv = kv;
            let mut session = Session::new(model, Pool::new(place.threads)?, place.isa, options)?;
            all_logits(&mut session, ids)?
        }
    };
    if as_json {
        return output::json(&json!({ "ids": ids, "logits": logits }));
    }
    for (id, row) in ids.iter().zip(&logits) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        let best: Vec<String> = order.iter().take(5).map(|&i| format!("{i}: {:.4}", row[i])).collect();
        output::line(&format!("after {id}: {}", best.join(", ")))?;
    }
    Ok(())
}

fn all_logits<S: Sequence>(session: &mut S, ids: &[u32]) -> Result<Vec<Vec<f32>>, S::Error> {
    let mut logits = Vec::with_capacity(ids.len());
    session.prefill_all_top(ids, None, |_, row| logits.push(row.to_vec()))?;
    Ok(logits)
}
