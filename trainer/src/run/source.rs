//! Where the windows of a run come from: a token file, or a stream.
//!
//! | | token file | stream |
//! |---|---|---|
//! | window `i` | a function of (seed, `i`), see [`Order`] | the `i`-th that comes |
//! | what a checkpoint has of it | nothing | a cursor, and what its filters remember |
//! | length | known, and gone through again and again | known when it ends, if it does |
//!
//! A run asks for windows in growing order, may pass some over, and asks again for those of the last steps: a step that was not finite is looked into, and a GPU's
//! host is ahead of what has been told. It says which ones it will not ask for again.

use std::fmt::Debug;
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use super::batch::{data_identity, windows_ids};
use super::setbacks::Verdict;
use super::{Event, Trainer};
use crate::data::{Order, TokenFile};
use crate::options::TrainOptions;
use crate::{Result, TrainError};

/// What is trained on.
#[derive(Debug)]
pub enum TrainData {
    /// A token file, in shuffled windows.
    Tokens(TokenFile),
    /// Windows that come one after another.
    Stream(Box<dyn WindowStream>),
}

impl From<TokenFile> for TrainData {
    fn from(file: TokenFile) -> Self {
        TrainData::Tokens(file)
    }
}

/// What of a stream's state at one window goes into a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamState {
    /// Where the window begins, for `state.json`: a function of the windows before it, so that equal runs have equal checkpoints.
    pub cursor: Value,
    /// What filters remember, for a file of its own; empty if they remember nothing.
    pub memory: Vec<u8>,
}

/// What became of waiting for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is there.
    Here,
    /// The stream ends before it.
    Never,
    /// Whoever waited was asked to stop.
    Stopped,
}

/// Windows in an order of their own. Window `i` holds `seq_len + 1` tokens, the first of which is the last of window `i − 1`.
pub trait WindowStream: Debug + Send + Sync {
    /// What tells one stream from another: everything that decides which windows come.
    fn identity(&self) -> String;

    /// Tokens of a window's input.
    fn seq_len(&self) -> usize;

    /// Appends the `seq_len + 1` tokens of window `index` to `into`; false if the stream ends before.
    ///
    /// # Errors
    /// What keeps the stream from going on.
    fn window(&self, index: u64, into: &mut Vec<u32>) -> Result<bool>;

    /// Waits until window `index` can be given, or until `stop` is set: shards may be slow to come.
    ///
    /// # Errors
    /// What keeps the stream from going on.
    fn wait(&self, index: u64, stop: &AtomicBool) -> Result<Arrival>;

    /// Passes over the data begun with window `index`, counted from 1.
    fn epoch(&self, index: u64) -> u64;

    /// What [`WindowStream::go_on`] needs to give window `index` first. It is one that may be asked for still, or the one behind the last that was given.
    ///
    /// # Errors
    /// [`TrainError`] if the stream is elsewhere.
    fn state(&self, index: u64) -> Result<StreamState>;

    /// Makes `index` the first window that is given. Called once at most, before any window was asked for.
    ///
    /// # Errors
    /// A state of another stream.
    fn go_on(&self, index: u64, state: &StreamState) -> Result<()>;

    /// Windows before `index` will not be asked for again, nor states at them.
    fn forget(&self, index: u64);
}

/// What is trained on, and in which order.
#[derive(Debug)]
pub(super) enum Source {
    Tokens { file: Box<TokenFile>, order: Order },
    Stream(Box<dyn WindowStream>),
}

impl Source {
    /// # Errors
    /// Data that is too short for a window, or options that a stream cannot have.
    pub fn new(data: TrainData, options: &TrainOptions) -> Result<Self> {
        match data {
            TrainData::Tokens(file) => {
                let order = Order::new(&file, options.seq_len, options.alignment(), options.seed)?;
                Ok(Source::Tokens {
                    file: Box::new(file),
                    order,
                })
            }
            TrainData::Stream(stream) => {
                let refused = |option, why: &str| {
                    Err(TrainError::Option {
                        option,
                        why: why.into(),
                    })
                };
                if options.align_documents {
                    return refused(
                        "align-documents",
                        "is for a token file; a stream has one window after another",
                    );
                }
                if options.max_epochs > 0 {
                    return refused("max-epochs", "is for a token file; give a stream a number of steps");
                }
                if stream.seq_len() != options.seq_len {
                    return refused("seq-len", "is not that of the stream");
                }
                Ok(Source::Stream(stream))
            }
        }
    }

    /// Optimiser steps of a run, if the data does not end before.
    pub fn total_steps(&self, options: &TrainOptions) -> u64 {
        match self {
            Source::Tokens { order, .. } => options.total_steps(order.windows_per_epoch()),
            Source::Stream(_) => options.max_steps,
        }
    }

    /// What tells it from other data.
    pub fn identity(&self) -> Result<String> {
        match self {
            Source::Tokens { file, .. } => data_identity(file),
            Source::Stream(stream) => Ok(stream.identity()),
        }
    }

    /// Inputs and targets of windows `first .. first + count`, one after another.
    pub fn windows(&self, first: u64, count: usize, seq: usize) -> Result<(Vec<u32>, Vec<u32>)> {
        let indices = first..first + count as u64;
        match self {
            Source::Tokens { file, order } => windows_ids(file, indices.map(|i| order.window(i)), seq),
            Source::Stream(stream) => {
                let (mut ids, mut targets, mut window) = (Vec::new(), Vec::new(), Vec::new());
                for index in indices {
                    window.clear();
                    if !stream.window(index, &mut window)? {
                        return Err(TrainError::EndOfStream { window: index });
                    }
                    ids.extend_from_slice(&window[..seq]);
                    targets.extend_from_slice(&window[1..]);
                }
                Ok((ids, targets))
            }
        }
    }

    /// Waits for the windows up to `end`, which is not among them.
    pub fn wait(&self, end: u64, stop: &AtomicBool) -> Result<Arrival> {
        match self {
            Source::Stream(stream) if end > 0 => stream.wait(end - 1, stop),
            _ => Ok(Arrival::Here),
        }
    }

    /// The pass over the data that window `index` belongs to, counted from 1.
    pub fn epoch(&self, index: u64) -> u64 {
        match self {
            Source::Tokens { order, .. } => index / order.windows_per_epoch() + 1,
            Source::Stream(stream) => stream.epoch(index),
        }
    }

    /// What a checkpoint has of it at window `index`.
    pub fn state(&self, index: u64) -> Result<Option<StreamState>> {
        match self {
            Source::Tokens { .. } => Ok(None),
            Source::Stream(stream) => stream.state(index).map(Some),
        }
    }

    /// Goes on with window `index`.
    pub fn go_on(&self, index: u64, state: Option<StreamState>) -> Result<()> {
        match (self, state) {
            (Source::Stream(stream), Some(state)) => stream.go_on(index, &state),
            _ => Ok(()),
        }
    }

    /// Lets go of windows before `index`.
    pub fn forget(&self, index: u64) {
        if let Source::Stream(stream) = self {
            stream.forget(index);
        }
    }
}

impl Trainer {
    /// Waits for the data of the next step. A stream that fails is no reason to lose the steps done.
    pub(super) fn data(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event<'_>)) -> Result<Arrival> {
        let end = self.first_window(self.step + 1);
        self.source.wait(end, stop).or_else(|failed| {
            self.settle(observe)?;
            if self.goes_on()
                && self.step > 0
                && let Err(error) = self.save_now(self.here(), observe)
            {
                observe(Event::SaveFailed(&error));
            }
            Err(failed)
        })
    }

    /// Ends a run whose data has ended: what the last step leads to, unless that was done.
    pub(super) fn end_early(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        self.settle(observe)?;
        if let Verdict::Stop { step, what } = self.verdict {
            return Err(self.stopped(step, what, observe)?);
        }
        // There is nothing to go on with, from wherever.
        self.verdict = Verdict::GoOn;
        self.ended = true;
        let validated = self.options.eval_every > 0 && self.step.is_multiple_of(self.options.eval_every);
        if !validated {
            self.validate_now(observe)?;
        }
        self.metrics.flush()?;
        self.save_now(self.here(), observe)
    }
}
