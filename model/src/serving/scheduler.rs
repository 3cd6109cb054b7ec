//! The loop: who reads what in a step.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use onebit_kernels_cpu::Isa;

use super::answer::{Answer, Next};
use super::engine::Engine;
use super::job::{Event, Failure, Job};
use super::places::{Choice, Place, choose};
use crate::generation::Finish;
use crate::runtime::{Batch, Executor, KvType, PackedModel, RuntimeError, SessionOptions, Top, Turn, Wanted};
use crate::sampling::Sampler;
use crate::tokenizer::Tokenizer;

/// How answers are computed. Nothing but `kv` changes them.
#[derive(Clone, Debug)]
pub struct Options {
    /// The CPU path.
    pub isa: Isa,
    /// Answers that are written side by side.
    pub sequences: usize,
    /// Tokens of an answer and its prompt; at most the model's `max_position_embeddings`.
    pub context: usize,
    /// Tokens of prompts that a step takes at most: more of them share each reading of the weights, and the answers that are being written wait for them.
    pub prefill: usize,
    /// How keys and values are kept.
    pub kv: KvType,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    /// Tokens that are never drawn, besides ids that stand for no token.
    pub suppress: Vec<u32>,
}

impl Options {
    /// The sizes of the batch.
    pub fn session(&self) -> SessionOptions {
        SessionOptions {
            context: self.context,
            chunk: (self.prefill.max(1)).saturating_add(self.sequences),
            logit_rows: self.sequences.max(1),
            kv: self.kv,
        }
    }
}

/// What the scheduler is at, for whoever watches.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers that are being written.
    pub active: AtomicUsize,
    /// Jobs that wait for a sequence.
    pub waiting: AtomicUsize,
    /// Steps so far.
    pub steps: AtomicU64,
    /// Tokens of answers that are done.
    pub generated: AtomicU64,
    /// Tokens of prompts that were read.
    pub read: AtomicU64,
    /// Tokens of prompts that need not be read.
    pub reused: AtomicU64,
}

/// A sequence of the batch.
struct Sequence<'t> {
    /// What its cache holds.
    held: Vec<u32>,
    used: u64,
    answer: Option<Answer<'t>>,
}

/// The loop's state.
struct Scheduler<'t, E> {
    batch: E,
    tokenizer: &'t Tokenizer,
    options: Options,
    unused: Vec<u32>,
    sequences: Vec<Sequence<'t>>,
    waiting: VecDeque<Job>,
    load: &'t Load,
    clock: u64,
}

/// Answers the jobs that come, until nobody can send any more and the last answer is given.
///
/// # Errors
/// [`RuntimeError`] for options outside their range, and where memory is missing.
pub fn serve<M: Deref<Target = PackedModel>, E: Executor>(
    model: M,
    executor: E,
    tokenizer: &Tokenizer,
    options: Options,
    jobs: Receiver<Job>,
    load: &Load,
) -> Result<(), RuntimeError> {
    let mut batch = Batch::new(model, executor, options.isa, options.session(), options.sequences)?;
    batch.add_shortlist()?;
    serve_with(batch, tokenizer, options, jobs, load)
}

/// The same over a batch that is open, of [`Options::session`] and as many sequences.
///
/// # Errors
/// What the batch refuses.
pub fn serve_with<E: Engine>(
    batch: E,
    tokenizer: &Tokenizer,
    options: Options,
    jobs: Receiver<Job>,
    load: &Load,
) -> Result<(), E::Error> {
    let vocab = batch.vocab_size() as u32;
    let mut unused: Vec<u32> = (0..vocab).filter(|&id| !tokenizer.has_id(id)).collect();
    unused.extend(options.suppress.iter().filter(|&&id| id < vocab));
    unused.sort_unstable();
    unused.dedup();
    let sequence = || Sequence {
        held: Vec::new(),
        used: 0,
        answer: None,
    };
    let mut scheduler = Scheduler {
        sequences: (0..options.sequences).map(|_| sequence()).collect(),
        batch,
        tokenizer,
        options,
        unused,
        waiting: VecDeque::new(),
        load,
        clock: 0,
    };
    while scheduler.receive(&jobs) {
        scheduler.admit();
        scheduler.step()?;
    }
    Ok(())
}

impl<'t, E: Engine> Scheduler<'t, E> {
    /// Takes what has come, and waits for something where there is nothing to do; false at the end.
    fn receive(&mut self, jobs: &Receiver<Job>) -> bool {
        let idle = self.waiting.is_empty() && self.sequences.iter().all(|sequence| sequence.answer.is_none());
        if idle {
            match jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Gives those who wait a sequence, in their order, as far as there are sequences.
    fn admit(&mut self) {
        let mut left = VecDeque::new();
        while let Some(job) = self.waiting.pop_front() {
            left.extend(self.begin(job));
        }
        self.waiting = left;
        self.load.waiting.store(self.waiting.len(), Ordering::Relaxed);
    }

    /// Begins an answer, refuses it, or gives the job back.
    fn begin(&mut self, mut job: Job) -> Option<Job> {
        let context = self.options.context;
        if job.prompt.is_empty() || job.prompt.len() >= context || job.max_tokens == 0 {
            let failure = match job.prompt.len() {
                0 => Failure::Other("the prompt is empty; give at least one token".into()),
                tokens if tokens >= context => Failure::TooLong { tokens, context },
                _ => Failure::Other("no token is asked for; ask for at least one".into()),
            };
            job.sink.tell(Event::Failed(failure));
            return None;
        }
        let sampler = match Sampler::new(job.sampling, self.batch.vocab_size()) {
            Ok(sampler) => sampler,
            Err(error) => {
                job.sink.tell(Event::Failed(Failure::Other(error.to_string())));
                return None;
            }
        };
        let places: Vec<Place<'_>> = (self.sequences.iter())
            .map(|sequence| Place {
                held: &sequence.held,
                coming: { sequence.answer.as_ref() }
                    .and_then(|answer| answer.history().get(sequence.held.len()..))
                    .unwrap_or_default(),
                busy: sequence.answer.is_some(),
                used: sequence.used,
            })
            .collect();
        let (sequence, reused) = match choose(&places, &job.prompt) {
            Choice::Wait => return Some(job),
            Choice::In { sequence, reused } => (sequence, reused),
            Choice::CopyOf { from, sequence, reused } => match self.batch.copy(from, sequence, reused) {
                Ok(()) => (sequence, reused),
                // It is read instead.
                Err(_) => (sequence, 0),
            },
        };
        self.clock += 1;
        let read = (job.prompt.len() - reused) as u64;
        let held = job.prompt[..reused].to_vec();
        self.batch.truncate(sequence, reused);
        self.sequences[sequence] = Sequence {
            held,
            used: self.clock,
            answer: Some(Answer::new(job, sampler, self.tokenizer, reused, self.clock)),
        };
        self.load.read.fetch_add(read, Ordering::Relaxed);
        self.load.reused.fetch_add(reused as u64, Ordering::Relaxed);
        None
    }

    /// How many tokens each sequence reads: one of each answer that is being written, and of prompts, the oldest first, what the step has room for.
    fn shares(&self) -> Vec<usize> {
        let left = |sequence: &Sequence<'_>| {
            let history = sequence.answer.as_ref().map_or(0, |answer| answer.history().len());
            history.saturating_sub(sequence.held.len())
        };
        let mut shares: Vec<usize> = self.sequences.iter().map(left).collect();
        let mut reading: Vec<usize> = (0..shares.len()).filter(|&i| shares[i] > 1).collect();
        reading.sort_by_key(|&i| self.sequences[i].answer.as_ref().map(|answer| answer.number));
        let mut room = self.options.prefill.max(1);
        for i in reading {
            shares[i] = shares[i].min(room);
            room -= shares[i];
        }
        shares
    }

    /// One pass, and a token of each answer whose prompt has been read.
    fn step(&mut self) -> Result<(), E::Error> {
        let now = Instant::now();
        for sequence in &mut self.sequences {
            if let Some(answer) = sequence.answer.as_mut().filter(|answer| answer.is_late(now)) {
                answer.end(Finish::Interrupted);
                answer.count(self.load);
                sequence.answer = None;
            }
        }
        let shares = self.shares();
        let mut ids = Vec::new();
        for (sequence, &share) in self.sequences.iter().zip(&shares) {
            let history = sequence.answer.as_ref().map_or(&[][..], Answer::history);
            ids.extend_from_slice(
                history
                    .get(sequence.held.len()..)
                    .unwrap_or_default()
                    .get(..share)
                    .unwrap_or_default(),
            );
        }
        // What a repetition penalty lowers may not settle which logits are the largest.
        let excepted: Vec<Option<Vec<u32>>> = (self.sequences.iter())
            .map(|sequence| Some([&self.unused, sequence.answer.as_ref()?.penalised()?].concat()))
            .collect();
        let mut rest = &ids[..];
        let mut turns = Vec::new();
        let mut drawing = Vec::new();
        for (number, (sequence, &share)) in self
            .sequences
            .iter_mut()
            .zip(&shares)
            .enumerate()
            .filter(|(_, (_, share))| **share > 0)
        {
            let (ids, after) = rest.split_at(share);
            rest = after;
            sequence.held.extend_from_slice(ids);
            let mut logits = Wanted::Nothing;
            if let Some(answer) = &sequence.answer
                && sequence.held.len() == answer.history().len()
            {
                logits = match answer.needed() {
                    Some(count) => Wanted::Top(Top {
                        count,
                        except: excepted[number].as_ref().unwrap_or(&self.unused),
                    }),
                    None => Wanted::All,
                };
                drawing.push(&mut sequence.answer);
            }
            turns.push(Turn {
                sequence: number,
                ids,
                logits,
            });
        }
        self.load.active.store(turns.len(), Ordering::Relaxed);
        if turns.is_empty() {
            return Ok(());
        }
        let (unused, options, load) = (&self.unused, &self.options, self.load);
        self.batch.step(&turns, &mut drawing, |drawing, logits| {
            for &id in unused {
                logits[id as usize] = f32::NEG_INFINITY;
            }
            if let Some(answer) = drawing
                && answer.draw(logits, &options.ends, options.context) == Next::Done
            {
                answer.count(load);
                **drawing = None;
            }
        })?;
        self.load.steps.fetch_add(1, Ordering::Relaxed);
        let active = self
            .sequences
            .iter()
            .filter(|sequence| sequence.answer.is_some())
            .count();
        self.load.active.store(active, Ordering::Relaxed);
        Ok(())
    }
}
