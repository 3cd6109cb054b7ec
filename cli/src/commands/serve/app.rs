//! What all requests share, and how a prompt becomes answers on their way.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onebit_model::chat::{ChatTemplate, Message};
use onebit_model::generation::TokenLogprob;
use onebit_model::sampling::SamplingParams;
use onebit_model::serving::{Event, Job, Load, Sink};
use onebit_model::tokenizer::Tokenizer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, ApiResult};
use super::metrics::Metrics;
use super::request::Drawing;

/// What the command line settled.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Bytes of a request.
    pub body: usize,
    /// Answers of one request.
    pub samples: usize,
    /// Prompts of one request.
    pub prompts: usize,
    /// Tokens of an answer where the request does not say.
    pub default_tokens: usize,
    /// How long an answer may take, waiting included.
    pub answer: Duration,
    /// How long a request's body may take to come.
    pub receive: Duration,
}

/// What all requests share.
pub(super) struct App {
    /// The model's name.
    pub name: String,
    pub created: u64,
    pub tokenizer: Arc<Tokenizer>,
    pub template: ChatTemplate,
    pub begin: Option<u32>,
    pub context: usize,
    pub sampling: SamplingParams,
    pub limits: Limits,
    pub key: Option<String>,
    /// Whether it listens to this machine alone, and answers to the names of that alone.
    pub loopback: bool,
    pub jobs: Sender<Job>,
    /// Places for answers, waiting ones included.
    pub room: Arc<Semaphore>,
    pub load: Arc<Load>,
    pub metrics: Metrics,
    pub ending: AtomicBool,
    pub fresh: Fresh,
}

/// Names and seeds that nobody else has.
#[derive(Default)]
pub(super) struct Fresh {
    given: AtomicU64,
    random: RandomState,
}

impl Fresh {
    /// A name for an answer.
    pub fn id(&self, kind: &str) -> String {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{:016x}{number:x}", self.random.hash_one(("id", number)))
    }

    /// A seed.
    fn seed(&self) -> u64 {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        self.random.hash_one(("seed", number))
    }
}

/// An event of the answer with this number.
pub(super) type Told = (usize, Event);

/// Hands events to the request's task. The answer's place is free again when the scheduler drops this.
struct Handed {
    number: usize,
    to: UnboundedSender<Told>,
    _place: OwnedSemaphorePermit,
}

impl Sink for Handed {
    fn tell(&mut self, event: Event) -> bool {
        self.to.send((self.number, event)).is_ok()
    }
}

/// Answers on their way.
pub(super) struct Answers {
    pub told: UnboundedReceiver<Told>,
    /// How many there are.
    pub count: usize,
    /// How many of them each prompt has, one after the other.
    pub samples: usize,
    /// When the request was read.
    pub asked: Instant,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs())
}

impl App {
    /// Checks that a request means the model that is here.
    pub fn check_model(&self, asked: Option<&str>) -> ApiResult<()> {
        match asked {
            Some(other) if other != self.name => Err(ApiError::not_found(
                "model_not_found",
                format!("there is no model {other:?} here; this server has {:?}", self.name),
            )),
            _ => Ok(()),
        }
    }

    /// The ids of a text, the token before a text in front.
    pub fn encode(&self, text: &str, begin: bool) -> ApiResult<Vec<u32>> {
        let mut ids = self
            .tokenizer
            .encode(text)
            .map_err(|error| ApiError::invalid(None, error.to_string()))?;
        if let Some(begin) = self.begin.filter(|_| begin)
            && ids.first() != Some(&begin)
        {
            ids.insert(0, begin);
        }
        Ok(ids)
    }

    /// The ids of a conversation, up to where the model answers.
    pub fn conversation(&self, messages: &[Message]) -> ApiResult<Vec<u32>> {
        let text = self
            .template
            .render(messages, true)
            .map_err(|error| ApiError::invalid(Some("messages"), error.to_string()))?;
        self.encode(
            &text,
            self.template.is_default() || self.template.bos_token().is_empty(),
        )
    }

    /// Sends the prompts to the scheduler, `samples` answers each; answer `i` is number `i % samples` of prompt `i / samples`.
    pub fn start(
        &self,
        prompts: &[Vec<u32>],
        samples: usize,
        drawing: &Drawing,
        stops: &[&str],
        logprobs: Option<usize>,
    ) -> ApiResult<Answers> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(ApiError::ending());
        }
        let asked = Instant::now();
        let sampling = drawing.sampling(self.sampling, || self.fresh.seed())?;
        let stops = drawing.stops(stops)?;
        let max_tokens = drawing.tokens(self.limits.default_tokens)?;
        let count = prompts.len() * samples;
        // All or nothing: half of a request is of no use.
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let place = Arc::clone(&self.room).try_acquire_owned();
            places.push(place.map_err(|_| ApiError::busy())?);
        }
        let (to, told) = unbounded_channel();
        for (number, place) in places.into_iter().enumerate() {
            let job = Job {
                prompt: prompts[number / samples].clone(),
                max_tokens,
                sampling: sampling.for_sample((number % samples) as u64),
                stops: stops.clone(),
                logprobs,
                deadline: asked.checked_add(self.limits.answer),
                sink: Box::new(Handed {
                    number,
                    to: to.clone(),
                    _place: place,
                }),
            };
            self.jobs.send(job).map_err(|_| ApiError::ending())?;
        }
        Ok(Answers {
            told,
            count,
            samples,
            asked,
        })
    }

    /// A token by itself: its text, or what stands for it in the vocabulary if it is none; and its bytes.
    pub fn spelling(&self, token: &TokenLogprob) -> (String, Vec<u8>) {
        let bytes = self.tokenizer.decode_bytes(&[token.id]).unwrap_or_default();
        let text = match bytes.is_empty() || self.tokenizer.is_special(token.id) {
            true => self.tokenizer.token_of(token.id).unwrap_or_default(),
            false => String::from_utf8_lossy(&bytes).into_owned(),
        };
        (text, bytes)
    }
}
