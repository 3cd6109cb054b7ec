//! The stream: visits of shards as windows of tokens.
//!
//! ```text
//! thread "fetch"   visits k, k+1, k+2 …   each shard is on the disk, and stays there, before its visit begins
//! thread "read"    visit k                rows → documents → tokens → windows, as many ahead as the run may want soon
//! the run          window i               waits if it must
//! ```
//! A window begins with the last token of the one before, so that every token is predicted once; what is left of one shard is followed by the next. A visit ends with its shard or
//! after so many tokens; the next visit of that shard goes on where it ended.
//!
//! **Where a window begins** is noted with each: a [`Cursor`], the same in every run. The windows that a run may ask for again are kept; the cursor of the first of them is too.

mod cursor;
mod downloads;
mod producer;
mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use onebit_model::tokenizer::Tokenizer;

use self::cursor::Cursor;
use self::queue::Queue;
use super::cache::Cache;
use super::fetch::Fetch;
use super::filter::{FilterOptions, Memory};
use super::manifest::Shard;
use super::reader::{Encoder, LeftOut};
use super::sampler::{Sampler, SamplerOptions};
use crate::run::{Arrival, StreamState, WindowStream};
use crate::storage::{Disk, Storage};
use crate::{Result, TrainError};

/// Visits whose shards are fetched before the one at work has ended.
const VISITS_AHEAD: u64 = 2;
/// Most threads that make tokens: they are ahead of any training.
const MOST_THREADS: usize = 8;

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The shards that there are.
    pub shards: Vec<Shard>,
    /// Which one is visited when.
    pub sampler: SamplerOptions,
    /// What is left out.
    pub filters: FilterOptions,
    /// Tokens of a visit; 0: all that the shard has.
    pub tokens_per_visit: u64,
    /// Whether a shard that is damaged, though it was fetched twice, is passed over.
    pub skip_damaged: bool,
    /// Tokens of a window's input.
    pub seq_len: usize,
    /// Windows that are made ahead of those that were asked for: some steps'.
    pub windows_ahead: u64,
    /// Where shards are kept.
    pub root: PathBuf,
    /// Bytes that they may take there.
    pub budget: u64,
}

/// What happens in a stream, for whoever watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackEvent {
    /// A shard is being fetched, or is on the disk already.
    Fetching {
        /// The shard.
        shard: String,
        /// Its length.
        bytes: u64,
    },
    /// A visit begins.
    Visiting {
        /// Number of the visit, from 0.
        visit: u64,
        /// The shard.
        shard: String,
        /// Whether it is one of the last again.
        replay: bool,
    },
    /// A visit has ended.
    Visited {
        /// The shard.
        shard: String,
        /// Tokens that it gave; those of before a resume are not counted.
        tokens: u64,
        /// What was left out.
        left_out: LeftOut,
    },
    /// A shard is damaged and is fetched again.
    FetchedAgain {
        /// The shard.
        shard: String,
        /// What is wrong.
        why: String,
    },
    /// A shard is damaged and is passed over from here on.
    PassedOver {
        /// The shard.
        shard: String,
        /// The row from which on.
        row: u64,
        /// What is wrong.
        why: String,
    },
}

/// Whoever watches.
pub type Observer = Arc<dyn Fn(StackEvent) + Send + Sync>;

/// What the threads of a stream share.
struct Shared {
    options: StreamOptions,
    sampler: Sampler,
    encoder: Encoder,
    fetch: Arc<dyn Fetch>,
    cache: Arc<Cache>,
    memory: Mutex<Memory>,
    queue: Queue,
    downloads: downloads::Downloads,
    observe: Observer,
    /// The stream ends; whoever fetches stops.
    stop: AtomicBool,
}

impl Shared {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: StackEvent) {
        (self.observe)(event);
    }
}

/// Windows of a data set's shards. See the [module](self).
pub struct Stream {
    shared: Arc<Shared>,
    identity: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// Prepares a stream; nothing is fetched before the first window is asked for.
    ///
    /// # Errors
    /// [`super::StackError`] for shards that cannot be drawn or never fit; options that make no sense; a folder that another run has or that cannot be written.
    pub fn open(
        options: StreamOptions,
        tokenizer: Arc<Tokenizer>,
        fetch: Arc<dyn Fetch>,
        observe: Observer,
    ) -> Result<Self> {
        Self::on(Arc::new(Disk), options, tokenizer, fetch, observe)
    }

    /// [`Stream::open`], on a disk whose free space `storage` tells.
    ///
    /// # Errors
    /// As there.
    pub fn on(
        storage: Arc<dyn Storage>,
        options: StreamOptions,
        tokenizer: Arc<Tokenizer>,
        fetch: Arc<dyn Fetch>,
        observe: Observer,
    ) -> Result<Self> {
        let sampler = Sampler::new(&options.shards, options.sampler.clone())?;
        let cache = Cache::open(&options.root, options.budget, storage)?;
        cache.check(sampler.shards().map(|i| &options.shards[i]))?;
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tokens-{i}"))
            .build()
            .map_err(|e| TrainError::Runtime(format!("threads for the tokens: {e}")))?;
        let identity = identity(&options, &tokenizer);
        let shared = Shared {
            memory: Mutex::new(Memory::new(&options.filters)),
            encoder: Encoder {
                tokenizer,
                filters: options.filters.clone(),
                pool: Arc::new(pool),
            },
            queue: Queue::new(options.windows_ahead),
            downloads: downloads::Downloads::new(VISITS_AHEAD),
            options,
            sampler,
            fetch,
            cache,
            observe,
            stop: AtomicBool::new(false),
        };
        Ok(Stream {
            shared: Arc::new(shared),
            identity,
            threads: Mutex::default(),
        })
    }

    /// Starts the threads, once.
    fn start(&self) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.is_empty() {
            return Ok(());
        }
        let works: [(&str, fn(&Shared, Cursor) -> Result<()>); 2] =
            [("fetch", downloads::run), ("read", producer::run)];
        let (base, _) = self.shared.queue.base();
        for (name, work) in works {
            let (shared, cursor) = (self.shared.clone(), base.clone());
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                let guarded = std::panic::AssertUnwindSafe(|| work(&shared, cursor));
                let outcome = std::panic::catch_unwind(guarded)
                    .unwrap_or_else(|_| Err(TrainError::Runtime("a thread of the stream of shards panicked".into())));
                if let Err(error) = outcome {
                    shared.queue.fail(error);
                }
            });
            threads.push(thread.map_err(|e| TrainError::Runtime(format!("a thread for the shards: {e}")))?);
        }
        Ok(())
    }
}

/// What tells one stream from another.
fn identity(options: &StreamOptions, tokenizer: &Tokenizer) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(&tokenizer.fingerprint());
    // Where shards are kept, and how much room they have, changes nothing.
    let said = serde_json::json!({
        "shards": options.shards,
        "weights": options.sampler.weights,
        "seed": options.sampler.seed,
        "replay": [options.sampler.replay as f64, f64::from(options.sampler.replay_share)],
        "visits": options.sampler.max_visits,
        "filters": options.filters,
        "tokens_per_visit": options.tokens_per_visit,
        "skip_damaged": options.skip_damaged,
        "seq_len": options.seq_len,
    });
    hash.update(said.to_string().as_bytes());
    format!("{} shards, {}", options.shards.len(), hash.finalize().to_hex())
}

impl WindowStream for Stream {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn seq_len(&self) -> usize {
        self.shared.options.seq_len
    }

    fn window(&self, index: u64, into: &mut Vec<u32>) -> Result<bool> {
        self.start()?;
        self.shared.queue.window(index, into)
    }

    fn wait(&self, index: u64, stop: &AtomicBool) -> Result<Arrival> {
        self.start()?;
        self.shared.queue.wait(index, stop)
    }

    fn epoch(&self, index: u64) -> u64 {
        self.shared.queue.epoch(index)
    }

    fn state(&self, index: u64) -> Result<StreamState> {
        let cursor = self.shared.queue.cursor(index)?;
        let memory = self.shared.memory().bytes(cursor.documents);
        Ok(StreamState {
            cursor: cursor.to_json()?,
            memory,
        })
    }

    fn go_on(&self, index: u64, state: &StreamState) -> Result<()> {
        let cursor = Cursor::from_json(&state.cursor, self.shared.options.shards.len())?;
        self.shared.memory().restore(cursor.documents, &state.memory)?;
        self.shared.queue.begin(index, cursor);
        Ok(())
    }

    fn forget(&self, index: u64) {
        let documents = self.shared.queue.forget(index);
        self.shared.memory().forget(documents);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.shared.queue.close();
        self.shared.downloads.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // Its error was told to the queue.
            let _ = thread.join();
        }
    }
}
