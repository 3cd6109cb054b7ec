//! `onebit eval`: the loss of a text, or the logits of given tokens.

mod modes;
mod stories;

use std::path::{Path, PathBuf};
use std::time::Instant;

use argh::FromArgs;
use onebit_model::runtime::cuda::CudaSession;
use onebit_model::runtime::{KvType, PackedModel, Pool, Sequence, Session, SessionOptions};
use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::data::text::Documents;
use onebit_trainer::data::{TokenFile, count_words};
use onebit_trainer::evaluate::{self, NeuralCache, Score};
use serde::Serialize;
use serde_json::json;

use self::modes::{Cache, Dynamic, score_dynamically};
use crate::device::Placement;
use crate::model::ModelDirectory;
use crate::progress::Progress;
use crate::{CliError, Result, args, device, output};

/// Scores a text with a model.
#[derive(FromArgs, Debug)]
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
    /// the model: a directory, a .1bit or a .gguf file, or the name of a bundled one: wikitext2-25m
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
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic: Option<Dynamic>,
}

/// A text as tokens, the first of them context only, and the size of the original.
struct Corpus {
    ids: Vec<u32>,
    words: Option<u64>,
    bytes: Option<u64>,
}

impl Eval {
    pub(super) fn run(self) -> Result<()> {
        self.check_stories()?;
        if self.stories {
            return self.score_stories();
        }
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
            _ => {}
        }
        let directory = ModelDirectory::open(&path)?;
        if let Some(data) = &self.data
            && !data.is_dir()
        {
            args::existing_file(data, "--data")?;
        }
        let config = directory.config();
        let context = config.max_position_embeddings;
        let stride = self.stride.unwrap_or((context / 2).max(1));
        if stride == 0 || stride > context {
            return Err(CliError::Usage(format!(
                "--stride: expected 1 to the model's context of {context}, found {stride}"
            )));
        }
        let place = device::place(self.device.as_deref(), self.threads)?;
        if let Some(how) = dynamic {
            let corpus = match ids {
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
            return print(&score_dynamically(&path, &corpus, how, place)?, self.json);
        }
        if let Some(ids) = ids {
            let model = directory.load(head)?;
            if self.logits {
                return print_logits(&model, &ids, kv, place, self.json);
            }
            return print(
                &score(
                    &model,
                    &Corpus {
                        ids,
                        words: None,
                        bytes: None,
                    },
                    (context, stride),
                    kv,
                    cache,
                    place,
                )?,
                self.json,
            );
        }
        let (data, json) = (self.data.unwrap_or_default(), self.json);
        let tokenizer = directory.tokenizer()?;
        let corpus = read(&data, &tokenizer, config.vocab_size)?;
        let model = directory.load(head)?;
        print(&score(&model, &corpus, (context, stride), kv, cache, place)?, json)
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

/// Whether a file begins like a token file, whatever its name.
fn is_token_file(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let named = path.extension().is_some_and(|e| e == "tokens");
    named || read.is_ok() && (&magic == b"1BTK" || &magic == b"TKN2")
}

fn read(path: &Path, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Corpus> {
    // What precedes a text is the end of another; without such a token the first one of the text is context only.
    let mut ids: Vec<u32> = tokenizer.eos().into_iter().collect();
    if path.is_file() && is_token_file(path) {
        let file = TokenFile::open(path)?;
        file.check_for(vocab_size, Some(&tokenizer.fingerprint()))?;
        file.verify()?;
        let mut content = Vec::new();
        file.get(0..file.len(), &mut content)?;
        ids.append(&mut content);
        return Ok(Corpus {
            ids,
            words: file.source_words(),
            bytes: file.source_bytes(),
        });
    }
    let mut documents = Documents::open(&[path.to_path_buf()])?;
    let progress = Progress::new("tokenizing", documents.bytes_total());
    let (mut words, mut bytes, mut text) = (0, 0, String::new());
    while let Some(piece) = documents.next() {
        let piece = piece?;
        text.push_str(&piece.text);
        if !piece.ends_document || text.is_empty() {
            continue;
        }
        bytes += text.len() as u64;
        words += count_words(&text);
        ids.extend(tokenizer.encode(&text)?);
        // As in a token file: each document is ended by one end token.
        if let Some(eos) = tokenizer.eos()
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
        text.clear();
        progress.set(documents.bytes_read(), String::new);
    }
    if bytes == 0 {
        return Err(CliError::Failed(format!(
            "--data: {} holds no text; give a file that holds some",
            path.display()
        )));
    }
    Ok(Corpus {
        ids,
        words: Some(words),
        bytes: Some(bytes),
    })
}

fn score(
    model: &PackedModel,
    corpus: &Corpus,
    window: (usize, usize),
    kv: KvType,
    cache: Option<NeuralCache>,
    mut place: Placement,
) -> Result<Evaluation> {
    if corpus.ids.len() < 2 {
        return Err(CliError::Failed(
            "one token alone cannot be scored: the first is context; give at least two".into(),
        ));
    }
    let on_gpu = match cache {
        Some(_) => None,
        None => place.upload(model, window.0, kv)?,
    };
    let progress = Progress::new("scoring", corpus.ids.len() as u64 - 1);
    let start = Instant::now();
    let told = |done| {
        progress.set(done, || {
            format!("{:.0} tok/s", done as f64 / start.elapsed().as_secs_f64())
        });
    };
    let (isa, ids) = (place.device.isa(), &corpus.ids);
    let score = match (on_gpu, cache) {
        (Some(model), _) => evaluate::score_on_gpu(&model, ids, window, kv, &told)?,
        (None, Some(cache)) => evaluate::score_with_cache(model, isa, ids, window, kv, cache, &told)?,
        (None, None) => evaluate::score(model, isa, ids, window, kv, &told)?,
    };
    let mut evaluation = evaluation(corpus, &score, start);
    evaluation.cache = cache.map(|cache| Cache {
        tokens: cache.size,
        theta: cache.theta,
        weight: cache.weight,
    });
    Ok(evaluation)
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
        cache: None,
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
    rows.extend(e.cache.map(|c| {
        (
            "cache",
            format!("{} tokens, θ {}, share {}", c.tokens, c.theta, c.weight),
        )
    }));
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
        Some(model) => all_logits(&mut CudaSession::new(&model, ids.len(), kv)?, ids)?,
        None => {
            let mut options = SessionOptions::new(ids.len());
            options.kv = kv;
            let mut session = Session::new(model, Pool::new(place.threads)?, place.device.isa(), options)?;
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
