//! `onebit serve`: a model behind OpenAI's API, and a page to talk to it.
//!
//! ```text
//! connections ─ routes ─ request ─ app: template, tokens ─ jobs ─▶ the scheduler's thread: continuous batching (onebit_model::serving)
//!                                                                       │ events, a channel for each request
//! client ◀── reply: JSON, or server-sent events ◀───────────────────────┘
//! ```

mod app;
mod error;
mod listen;
mod metrics;
mod page;
mod reply;
mod request;
mod routes;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use argh::{ArgsInfo, FromArgs};
#[cfg(feature = "cuda")]
use onebit_model::generation::GenerationError;
use onebit_model::runtime::Pool;
#[cfg(feature = "cuda")]
use onebit_model::runtime::cuda::CudaBatch;
use onebit_model::serving::{self, Load};
use onebit_model::tokenizer::Tokenizer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::app::{App, Fresh, Limits};
use self::metrics::Metrics;
use crate::generation::Given;
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, interrupt, output};

/// Longest window that a sequence has unless more is asked for; its cache takes memory in proportion.
const CONTEXT: usize = 4096;
/// How long the head of a request may take to come, and its body.
const HEAD: Duration = Duration::from_secs(15);
const BODY: Duration = Duration::from_secs(30);
/// How long what was begun may take to finish once the server is to end.
const GRACE: Duration = Duration::from_secs(30);
/// The variable that may hold the key.
const KEY_VARIABLE: &str = "ONEBIT_API_KEY";

/// Serves a model over HTTP: OpenAI's API, and a chat page.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "serve",
    example = "{command_name} --model wikitext2-25m",
    example = "ONEBIT_API_KEY=secret {command_name} --model model --host 0.0.0.0 --port 8080",
    note = "GET / is a chat page; POST /v1/chat/completions and /v1/completions answer as OpenAI's API does, whole or as a stream; GET /v1/models, /health and /metrics (for Prometheus) tell about the server. Answers are computed side by side and what conversations have in common is read once. The server listens to this machine alone unless --host says otherwise; a key (ONEBIT_API_KEY or --api-key-file) is then wise. Ctrl-C lets answers that were begun finish; a second one ends at once."
)]
pub struct Serve {
    #[cfg_attr(
        feature = "bundled",
        doc = "the model: a directory, a .1bit or a .gguf file, or the name of a bundled one: wikitext2-25m"
    )]
    #[cfg_attr(not(feature = "bundled"), doc = "the model: a directory, a .1bit or a .gguf file")]
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// name of the model for clients (default: that of its file or folder)
    #[argh(option)]
    name: Option<String>,
    /// address to listen at; 0.0.0.0 is every one of this machine's (default: 127.0.0.1)
    #[argh(option)]
    host: Option<IpAddr>,
    /// port to listen at; 0 for one that is free (default: 8080)
    #[argh(option)]
    port: Option<u16>,
    /// file that holds the key which clients must give (default: the variable ONEBIT_API_KEY, else none is needed)
    #[argh(option)]
    api_key_file: Option<PathBuf>,
    /// answers that are written at a time (default: 64)
    #[argh(option)]
    parallel: Option<usize>,
    /// answers that wait at most; further requests are told to come again (default: 256)
    #[argh(option)]
    queue: Option<usize>,
    /// tokens of a conversation, prompt and answer (default: the model's, 4096 at most)
    #[argh(option)]
    context: Option<usize>,
    /// tokens of prompts that are read between two tokens of the answers that are being written (default: 128)
    #[argh(option)]
    prefill: Option<usize>,
    /// tokens of an answer where the request does not say (default: the model's, else as many as there is room for)
    #[argh(option)]
    max_tokens: Option<usize>,
    /// seconds that an answer may take, waiting included (default: 600)
    #[argh(option)]
    timeout: Option<u64>,
    /// kilobytes of a request at most (default: 1024)
    #[argh(option)]
    max_body_kb: Option<usize>,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types take less memory and time, and are a little less exact (default: f16)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto (a GPU that is found and can run the model, else the CPU), cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
}

/// What the scheduler's thread does.
type Work = Box<dyn FnOnce() -> Result<()> + Send>;

/// A number that must not be 0, and need not be astronomical.
fn count(given: Option<usize>, default: usize, most: usize, name: &str) -> Result<usize> {
    match given.unwrap_or(default) {
        n if (1..=most).contains(&n) => Ok(n),
        n => Err(CliError::Usage(format!("{name}: expected 1 to {most}, found {n}"))),
    }
}

/// The key: of the file, or of the variable.
fn key(file: Option<&Path>) -> Result<Option<String>> {
    let key = match file {
        Some(path) => {
            args::existing_file(path, "--api-key-file")?;
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|e| CliError::io(path, "read", &e, "give a text file with the key"))?)
        }
        None => std::env::var(KEY_VARIABLE).ok(),
    };
    let key = key.map(|key| key.trim().to_string());
    match key {
        Some(key) if key.is_empty() => Err(CliError::Usage(format!(
            "the API key is empty; put one into --api-key-file or {KEY_VARIABLE}, or unset it"
        ))),
        key => Ok(key),
    }
}

impl Serve {
    pub(super) fn run(self) -> Result<()> {
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        // Every conversation that is being written is read from memory for each token.
        let kv = args::kv_type(Some(self.kv_type.as_deref().unwrap_or("f16")))?;
        let head = args::head_type(self.head.as_deref())?;
        let sequences = count(self.parallel, 64, 4096, "--parallel")?;
        let queue = self.queue.unwrap_or(256).min(1 << 20);
        let prefill = count(self.prefill, 128, 1 << 16, "--prefill")?;
        let body = count(self.max_body_kb, 1024, 1 << 20, "--max-body-kb")?.saturating_mul(1000);
        let seconds = count(
            self.timeout.map(|s| usize::try_from(s).unwrap_or(usize::MAX)),
            600,
            1 << 20,
            "--timeout",
        )?;
        let key = key(self.api_key_file.as_deref())?;
        let address = SocketAddr::new(
            self.host.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            self.port.unwrap_or(8080),
        );
        let mut place = device::place(self.device.as_deref(), self.threads)?;

        // The socket before the model: a port that is taken is told at once.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| CliError::Failed(format!("cannot start the server's thread: {e}")))?;
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(|e| {
            CliError::Failed(format!(
                "cannot listen at {address}: {e}; choose another --port or --host"
            ))
        })?;
        let address = listener.local_addr().unwrap_or(address);

        let directory = ModelDirectory::open(&path)?;
        let template = directory.chat_template()?;
        let sampling = Given::default().resolve(&directory.generation)?;
        let tokenizer = Arc::new(directory.tokenizer()?);
        let model = directory.load(head)?;
        let config = model.config().clone();
        let longest = config.max_position_embeddings;
        let context = count(self.context, longest.min(CONTEXT), longest, "--context")?;
        let name = self.name.unwrap_or_else(|| name_of(&path));
        let options = serving::Options {
            isa: place.isa,
            sequences,
            context,
            prefill,
            kv,
            ends: directory.end_tokens(&config, &tokenizer),
            suppress: directory.generation.suppress_tokens.clone(),
        };
        let limits = Limits {
            body,
            samples: sequences.min(16),
            prompts: sequences,
            default_tokens: self
                .max_tokens
                .or(directory.generation.max_new_tokens)
                .unwrap_or(context),
            answer: Duration::from_secs(seconds as u64),
            receive: BODY,
        };
        let load = Arc::new(Load::default());
        let (jobs, coming) = channel();
        let metrics = Metrics::new()
            .map_err(|e| CliError::Failed(format!("cannot set up the server's figures: {e}; report this")))?;
        let app = Arc::new(App {
            name,
            created: app::now(),
            begin: directory.begin_token(&config, &tokenizer),
            tokenizer: Arc::clone(&tokenizer),
            template,
            context,
            sampling,
            limits,
            key,
            loopback: address.ip().is_loopback(),
            jobs,
            room: Arc::new(Semaphore::new(sequences + queue)),
            load: Arc::clone(&load),
            metrics,
            ending: AtomicBool::new(false),
            fresh: Fresh::default(),
        });
        let session = options.session();
        let work = |tokenizer: Arc<Tokenizer>, load: Arc<Load>| -> Result<Work> {
            Ok(match place.upload_batch(&model, &session, sequences)? {
                #[cfg(feature = "cuda")]
                Some(model) => {
                    let batch = CudaBatch::new(&model, session, sequences).map_err(GenerationError::from)?;
                    Box::new(move || {
                        let done = serving::serve_with(batch, &tokenizer, options, coming, &load);
                        Ok(done.map_err(GenerationError::from)?)
                    })
                }
                None => {
                    let pool = Pool::new(place.threads)?;
                    Box::new(move || {
                        Ok(serving::serve(
                            Arc::new(model),
                            pool,
                            &tokenizer,
                            options,
                            coming,
                            &load,
                        )?)
                    })
                }
            })
        };
        let work = work(Arc::clone(&tokenizer), Arc::clone(&load))?;
        let scheduler = std::thread::Builder::new()
            .name("scheduler".into())
            .spawn(work)
            .map_err(|e| CliError::Failed(format!("cannot start the scheduler's thread: {e}")))?;

        output::note(&format!(
            "{} of {context} tokens, {sequences} answers at a time; {}",
            app.name,
            if app.key.is_some() {
                "a key is needed"
            } else {
                "no key is needed"
            }
        ));
        if app.key.is_none() && !address.ip().is_loopback() {
            output::note(&format!(
                "note: whoever reaches this machine can use the model; set {KEY_VARIABLE} to ask for a key"
            ));
        }
        output::note(&format!("listening on http://{address}"));
        let stop = interrupt::poll();
        let watched = Arc::clone(&app);
        let finished = runtime.block_on(async {
            let router = routes::router(Arc::clone(&watched));
            let ending = || {
                watched.ending.store(true, Ordering::Relaxed);
                output::note("stopping: answers that were begun are finished first; Ctrl-C again ends them");
            };
            tokio::select! {
                finished = listen::serve(listener, router, HEAD, GRACE, stop, ending) => finished,
                () = until_ended(&scheduler) => false,
            }
        });
        // There is work for it as long as the application is there: it has ended because it failed.
        let failed = scheduler.is_finished();
        // With the last of these the scheduler ends too.
        drop((app, watched));
        runtime.shutdown_timeout(Duration::from_secs(1));
        if !finished && !failed {
            output::note("note: some answers took too long and were broken off");
            return Ok(());
        }
        match scheduler.join() {
            Ok(done) => done,
            Err(_) => Err(CliError::Failed("the scheduler has broken down; report this".into())),
        }
    }
}

/// Waits until a thread has ended, in whatever way.
async fn until_ended<T>(thread: &JoinHandle<T>) {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What clients call the model: the name of its folder or file, without what says of what kind the file is.
fn name_of(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = match path.extension().and_then(|extension| extension.to_str()) {
        Some("1bit" | "gguf") => path.file_stem(),
        _ => path.file_name(),
    };
    name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_breaks_down_has_ended_too() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let thread = std::thread::spawn(|| panic!("as a scheduler might"));
        runtime.block_on(until_ended(&thread));
        assert!(thread.join().is_err());
    }
}
