//! Decoding and prefill of random ids. The host's speed drifts, so parts of the work and measurements of the machine take turns.

#[cfg(feature = "cuda")]
pub(super) mod cuda;
pub(super) mod streams;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use onebit_model::runtime::{Executor, KvType, PackedModel, Pool, Session, SessionOptions, Top};

use super::report::{Decoding, Machine, Timed, block_weights};
use crate::limits::{self, median};
use crate::{Result, random};

/// Tokens before each round that are not timed: the sweep of the memory has emptied the caches.
pub(super) const WARM: usize = 4;
/// Rounds of decoding from an empty context: as many as take [`SECONDS`], within these.
const ROUNDS: [usize; 2] = [3, 8];
const SECONDS: f64 = 4.0;
/// Readings of the prompt that are timed.
const READINGS: usize = 3;
/// Phases for the cost of one.
const PHASES: usize = 2_000;

/// Nanoseconds of a phase in which all threads of `pool` meet and do nothing else.
fn barrier_ns(pool: &Pool) -> f64 {
    let (threads, arrived) = (pool.threads(), AtomicUsize::new(0));
    let mut out = vec![0u8; threads];
    let mut phase = |i: usize| {
        pool.rows(&mut out, 1, |_, _| {
            arrived.fetch_add(1, Ordering::AcqRel);
            // A thread that does not come in leaves its piece to one that waits here: not for ever.
            for _ in 0..10_000 {
                if arrived.load(Ordering::Acquire) >= i * threads {
                    break;
                }
                std::hint::spin_loop();
            }
        });
    };
    pool.enter(usize::MAX, || {
        // Until every thread is awake.
        (1..=PHASES / 10).for_each(&mut phase);
        let start = Instant::now();
        (PHASES / 10 + 1..=PHASES / 10 + PHASES).for_each(&mut phase);
        start.elapsed().as_secs_f64() * 1e9 / PHASES as f64
    })
}

/// Times the decoding of `tokens` tokens from an empty context, the median of some rounds, of each the likeliest next one with `shortcut`, of each every logit without.
pub(super) fn decode(
    model: &PackedModel,
    tokens: usize,
    kv: KvType,
    machine: &Machine,
    seed: u64,
    shortcut: bool,
) -> Result<Timed> {
    let config = model.config();
    let (threads, isa) = (machine.place.threads, machine.place.isa);
    let ids = random::ids(tokens + WARM, config.vocab_size, seed);
    let mut options = SessionOptions::new(ids.len());
    options.kv = kv;
    let mut session = Session::new(model, Pool::new(threads)?, isa, options)?;
    let pool = Pool::new(threads)?;
    let top = shortcut.then_some(Top { count: 1, except: &[] });
    let (mut rounds, mut sweeps, mut barriers) = (Vec::new(), vec![machine.sweep()], Vec::new());
    while rounds.len() < ROUNDS[0] || (rounds.len() < ROUNDS[1] && rounds.iter().sum::<f64>() < SECONDS) {
        session.reset();
        session.prefill_top(&ids[..WARM], top)?;
        let start = Instant::now();
        for id in &ids[WARM..] {
            session.prefill_top(core::slice::from_ref(id), top)?;
        }
        rounds.push(start.elapsed().as_secs_f64());
        sweeps.push(machine.sweep());
        barriers.push(barrier_ns(&pool));
    }
    let saved = session.bytes_saved() as f64 / (rounds.len() * tokens) as f64;
    let counts = session.sketch_counts();
    let searched = (counts.searched - counts.whole) as f64 / counts.searched.max(1) as f64;
    let head = model.head().values.bytes() as f64;
    let read = match counts.searched {
        0 => head,
        n => counts.bytes as f64 / n as f64 + head * (1.0 - searched),
    };
    // Keys and values of the positions up to each token's own.
    let positions = WARM as f64 + (tokens as f64 + 1.0) / 2.0;
    let values = 2 * config.num_hidden_layers * config.key_value_size();
    let cache = positions * values as f64 * kv.value_bytes() as f64;
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    Ok(Timed {
        tokens,
        seconds: median(&mut rounds),
        bandwidth: Some(median(&mut sweeps)),
        peak_ops: None,
        bytes_per_token: model.bytes_per_token() as f64 - saved - head + read + cache,
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
    let (threads, isa) = (machine.place.threads, machine.place.isa);
    let ids = random::ids(tokens, model.config().vocab_size, seed);
    let mut options = SessionOptions::new(tokens);
    options.kv = kv;
    let mut session = Session::new(model, Pool::new(threads)?, isa, options)?;
    session.decode(ids[0])?;
    let dots = limits::int8_dots(isa, threads);
    let (mut readings, mut peaks) = (Vec::new(), Vec::new());
    let top = Some(Top { count: 1, except: &[] });
    for _ in 0..READINGS {
        session.reset();
        // By halves, so that a peak is measured in the middle too, each for as long as what was timed before it.
        let mut seconds = 0.0;
        for half in ids.chunks(tokens.div_ceil(2 * options.chunk) * options.chunk) {
            let start = Instant::now();
            session.prefill_top(half, top)?;
            let elapsed = start.elapsed().as_secs_f64();
            seconds += elapsed;
            peaks.push(dots.sustained(elapsed));
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
