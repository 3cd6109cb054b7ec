//! Decoding and prefill of random ids. The host's speed drifts, so parts of the work and measurements of the machine take turns.

use std::time::Instant;

use onebit_model::runtime::{Executor, KvType, PackedModel, Pool, Session, SessionOptions, Top};

use super::report::{Decoding, Machine, Timed, block_weights};
use crate::limits::{self, median};
use crate::{Result, random};

/// Parts of the decoding, and one token before each that is not timed: the sweep of the memory has emptied the caches.
pub(super) const PARTS: usize = 8;
/// Readings of the prompt that are timed.
const READINGS: usize = 3;
/// Phases for the cost of one.
const PHASES: u32 = 2_000;

/// Nanoseconds of a phase that does nothing, all threads of `pool` taking part.
fn barrier_ns(pool: &Pool) -> f64 {
    let mut out = vec![0u8; pool.threads()];
    pool.enter(usize::MAX, || {
        // Until every thread is awake.
        (0..PHASES / 10).for_each(|_| pool.rows(&mut out, 1, |_, _| {}));
        let start = Instant::now();
        (0..PHASES).for_each(|_| pool.rows(&mut out, 1, |_, _| {}));
        start.elapsed().as_secs_f64() * 1e9 / f64::from(PHASES)
    })
}

/// Times the decoding of `tokens` tokens, of each the likeliest next one with `shortcut`, of each every logit without.
pub(super) fn decode(
    model: &PackedModel,
    tokens: usize,
    kv: KvType,
    machine: &Machine,
    seed: u64,
    shortcut: bool,
) -> Result<Timed> {
    let config = model.config();
    let (threads, isa) = (machine.place.threads, machine.place.device.isa());
    let parts = PARTS.min(tokens);
    let ids = random::ids(tokens + parts, config.vocab_size, seed);
    let mut options = SessionOptions::new(ids.len());
    options.kv = kv;
    let mut session = Session::new(model, Pool::new(threads)?, isa, options)?;
    let pool = Pool::new(threads)?;
    let top = shortcut.then_some(Top { count: 1, except: &[] });
    let mut seconds = 0.0;
    let (mut sweeps, mut barriers) = (vec![machine.sweep()], Vec::new());
    let mut rest = ids.as_slice();
    for part in 0..parts {
        let (ids, after) = rest.split_at(rest.len() / (parts - part));
        rest = after;
        session.prefill_top(&ids[..1], top)?;
        let start = Instant::now();
        for id in &ids[1..] {
            session.prefill_top(core::slice::from_ref(id), top)?;
        }
        seconds += start.elapsed().as_secs_f64();
        sweeps.push(machine.sweep());
        barriers.push(barrier_ns(&pool));
    }
    let counts = session.sketch_counts();
    let searched = (counts.searched - counts.whole) as f64 / counts.searched.max(1) as f64;
    let head = model.head().values.bytes() as f64;
    let read = match counts.searched {
        0 => head,
        n => counts.bytes as f64 / n as f64 + head * (1.0 - searched),
    };
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    Ok(Timed {
        tokens,
        seconds,
        bandwidth: Some(median(&mut sweeps)),
        peak_ops: None,
        bytes_per_token: model.bytes_per_token() as f64 - head + read,
        ops_per_token: 2.0 * weights,
        decoding: Some(Decoding {
            barrier_ns: median(&mut barriers),
            head_bytes_per_token: read,
            head_rows_per_token: match counts.searched {
                0 => config.vocab_size as f64,
                n => (counts.rows + counts.whole * config.vocab_size) as f64 / n as f64,
            },
            tok_s_per_gb_s: 0.0,
        }),
        training: None,
    })
}

/// Times the reading of a prompt of `tokens` tokens.
pub(super) fn prefill(model: &PackedModel, tokens: usize, kv: KvType, machine: &Machine, seed: u64) -> Result<Timed> {
    let (threads, isa) = (machine.place.threads, machine.place.device.isa());
    let ids = random::ids(tokens, model.config().vocab_size, seed);
    let mut options = SessionOptions::new(tokens);
    options.kv = kv;
    let mut session = Session::new(model, Pool::new(threads)?, isa, options)?;
    session.decode(ids[0])?;
    let dots = limits::int8_dots(isa, threads);
    let (mut readings, mut peaks) = (Vec::new(), vec![dots.round()]);
    let top = Some(Top { count: 1, except: &[] });
    for _ in 0..READINGS {
        session.reset();
        // By halves, so that a peak is measured in the middle too.
        let mut seconds = 0.0;
        for half in ids.chunks(tokens.div_ceil(2 * options.chunk) * options.chunk) {
            let start = Instant::now();
            session.prefill_top(half, top)?;
            seconds += start.elapsed().as_secs_f64();
            peaks.push(dots.round());
        }
        readings.push(seconds);
    }
    let chunks = tokens.div_ceil(options.chunk) as f64;
    Ok(Timed {
        tokens,
        seconds: median(&mut readings),
        bandwidth: None,
        peak_ops: Some(median(&mut peaks)),
        bytes_per_token: model.bytes_per_token() as f64 * chunks / tokens as f64,
        ops_per_token: 2.0 * block_weights(model.config()),
        decoding: None,
        training: None,
    })
}
