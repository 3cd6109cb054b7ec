//! A stream of shards in the place of a token file.

use std::sync::{Arc, OnceLock, Weak};

use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::TrainOptions;
use onebit_trainer::parallel::World;
use onebit_trainer::run::WindowStream;
use onebit_trainer::stack::fetch::Fetch;
use onebit_trainer::stack::stream::{Observer, StackEvent, Stream, StreamOptions};

use crate::progress::Progress;
use crate::{Result, output};

/// Steps whose windows are made ahead.
const STEPS_AHEAD: u64 = 4;

/// The shards of a run, before it is known what its windows are.
pub(in crate::commands) struct Shards {
    /// What the command line says; what follows from the run's own options is filled in when it is opened.
    pub options: StreamOptions,
    /// Steps of a visit at most; 0: no limit.
    pub steps_per_shard: u64,
    pub fetch: Arc<dyn Fetch>,
    /// The bar that what is told must not write into, once there is one.
    pub bar: Arc<OnceLock<Weak<Progress>>>,
}

impl Shards {
    /// Opens the stream for a run, as one of the ranks of `world`: each reads all of it, in a folder of its own, with its share of the budget.
    pub fn open(&self, tokenizer: &Tokenizer, run: &TrainOptions, world: &World) -> Result<Box<dyn WindowStream>> {
        let root = match world.is_single() {
            true => self.options.root.clone(),
            false => self.options.root.join(format!("rank-{}", world.rank())),
        };
        let mut options = StreamOptions {
            root,
            budget: self.options.budget / world.size() as u64,
            tokens_per_visit: self.steps_per_shard.saturating_mul(run.tokens_per_step()),
            seq_len: run.seq_len,
            windows_ahead: STEPS_AHEAD * run.windows_per_step(),
            ..self.options.clone()
        };
        options.sampler.seed = run.seed;
        let tokenizer = Arc::new(Tokenizer::from_bytes(tokenizer.json().to_vec())?);
        let bar = self.bar.clone();
        let observe: Observer = Arc::new(move |event| {
            let Some(line) = line(event) else {
                return;
            };
            match bar.get().and_then(Weak::upgrade) {
                Some(progress) => progress.note(&line),
                None => output::note(&line),
            }
        });
        Ok(Box::new(Stream::open(options, tokenizer, self.fetch.clone(), observe)?))
    }

    /// What is told from here on goes beside the bar.
    pub fn tell_beside(&self, progress: &Arc<Progress>) {
        // There is one bar a run.
        let _ = self.bar.set(Arc::downgrade(progress));
    }
}

/// What is said of an event.
fn line(event: StackEvent) -> Option<String> {
    match event {
        StackEvent::Fetching { shard, bytes } => Some(format!("fetching {shard}, {}", output::bytes(bytes))),
        StackEvent::Visiting { .. } => None,
        StackEvent::Visited {
            shard,
            tokens,
            left_out,
        } => {
            let (licenses, duplicates) = (left_out.licenses, left_out.duplicates);
            (licenses + duplicates > 0).then(|| {
                format!("{shard}: {tokens} tokens; left out for their licences: {licenses}, as copies: {duplicates}")
            })
        }
        StackEvent::FetchedAgain { shard, why } => Some(format!("{shard} is damaged and is fetched again: {why}")),
        StackEvent::PassedOver { shard, row, why } => Some(format!(
            "{shard} is damaged and is passed over from row {row} on: {why}"
        )),
    }
}
