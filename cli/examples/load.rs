//! Puts a server under load: by turns one stream and many, and what each of their tokens took.
//!
//! Machines are not always equally fast, so one stream and many are measured in turns, each turn over the time in which all of its streams are being written; how fast they are is the median of
//! the turns.
//!
//! ```sh
//! onebit serve --model wikitext2-25m &
//! cargo run --release -p onebit-cli --example load -- --streams 64 --minutes 10 --pid $!
//! ```

use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use argh::FromArgs;
use serde_json::{Value, json};

/// Asks a server for many streams at a time.
#[derive(FromArgs)]
struct Load {
    /// the server (default: http://127.0.0.1:8080)
    #[argh(option, default = "\"http://127.0.0.1:8080\".into()")]
    url: String,
    /// streams at a time (default: 64)
    #[argh(option, default = "64")]
    streams: u64,
    /// minutes of many streams (default: 1)
    #[argh(option, default = "1.0")]
    minutes: f64,
    /// turns of one stream and of many that this is cut into (default: 4)
    #[argh(option, default = "4")]
    turns: u32,
    /// tokens of an answer (default: 100)
    #[argh(option, default = "100")]
    tokens: u64,
    /// the server's process, whose memory is looked at (Linux)
    #[argh(option)]
    pid: Option<u32>,
}

/// What streams had to say.
#[derive(Default)]
struct Seen {
    /// Pieces of text as they come, and tokens as the answers say at their end.
    pieces: AtomicU64,
    tokens: AtomicU64,
    answers: AtomicU64,
    errors: Mutex<Vec<String>>,
    first: Mutex<Vec<f32>>,
    between: Mutex<Vec<f32>>,
}

/// One answer, as a stream.
fn answer(load: &Load, seed: u64, seen: &Seen) -> Result<(), String> {
    let body = json!({
        "messages": [{"role": "user", "content": format!("The {seed} th ship of the fleet")}],
        "max_tokens": load.tokens,
        "seed": seed,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let asked = Instant::now();
    let response = ureq::post(format!("{}/v1/chat/completions", load.url))
        .content_type("application/json")
        .send(body.to_string())
        .map_err(|error| error.to_string())?;
    let (mut before, mut done) = (None, false);
    let (mut first, mut between) = (None, Vec::new());
    for line in BufReader::new(response.into_body().into_reader()).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        if data == "[DONE]" {
            done = true;
            break;
        }
        let value: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        if value.get("error").is_some() {
            return Err(data.into());
        }
        if let Some(tokens) = value["usage"]["completion_tokens"].as_u64() {
            seen.tokens.fetch_add(tokens, Ordering::Relaxed);
        }
        if value["choices"][0]["delta"]["content"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
        {
            let now = Instant::now();
            seen.pieces.fetch_add(1, Ordering::Relaxed);
            match before.replace(now) {
                None => first = Some((now - asked).as_secs_f32()),
                Some(before) => between.push((now - before).as_secs_f32()),
            }
        }
    }
    if !done {
        return Err("a stream ended without [DONE]".into());
    }
    seen.answers.fetch_add(1, Ordering::Relaxed);
    seen.first.lock().unwrap().extend(first);
    seen.between.lock().unwrap().extend(between);
    Ok(())
}

/// `streams` at a time, and what comes in the `time` after each of them has begun: pieces a second.
fn turn(load: &Load, streams: u64, number: u32, time: Duration, seen: &Seen) -> f64 {
    let stop = AtomicBool::new(false);
    let seeds = 1_000_000 * u64::from(number);
    std::thread::scope(|scope| {
        for stream in 0..streams {
            let stop = &stop;
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(error) = answer(load, seeds + stream + 1_000 * round, seen) {
                        seen.errors.lock().unwrap().push(error);
                    }
                }
            });
        }
        // So many beginnings there are when every stream has one, or nearly.
        let begun = || seen.pieces.load(Ordering::Relaxed);
        let (before, limit) = (begun(), Instant::now() + time);
        while begun() < before + streams && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (start, before) = (Instant::now(), begun());
        std::thread::sleep(time);
        let rate = (begun() - before) as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Tokens a second, from pieces a second in several turns.
fn rate(mut turns: Vec<f64>, seen: &Seen) -> f64 {
    turns.sort_by(f64::total_cmp);
    let (low, high) = (turns[(turns.len() - 1) / 2], turns[turns.len() / 2]);
    let each = seen.tokens.load(Ordering::Relaxed) as f64 / seen.pieces.load(Ordering::Relaxed).max(1) as f64;
    (low + high) / 2.0 * each
}

/// Megabytes of the server's memory.
fn resident(pid: Option<u32>) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Milliseconds that so many of a hundred are below.
fn percentile(times: &mut [f32], percent: usize) -> f64 {
    times.sort_by(f32::total_cmp);
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(f64::NAN, |time| 1e3 * f64::from(*time))
}

fn main() {
    let load: Load = argh::from_env();
    let turns = load.turns.max(1);
    let time = Duration::from_secs_f64(60.0 * load.minutes) / turns;
    let (warm, alone, seen) = (Seen::default(), Seen::default(), Seen::default());
    turn(&load, load.streams, 0, time / 10, &warm);
    let before = resident(load.pid);
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for number in 1..=turns {
        one.push(turn(&load, 1, 2 * number, time / 4, &alone));
        many.push(turn(&load, load.streams, 2 * number + 1, time, &seen));
    }
    let after = resident(load.pid);
    let (one, many) = (rate(one, &alone), rate(many, &seen));
    let times = |seen: &Seen| {
        let (mut first, mut between) = (seen.first.lock().unwrap(), seen.between.lock().unwrap());
        json!({
            "first_ms": {"p50": percentile(&mut first, 50), "p99": percentile(&mut first, 99)},
            "between_ms": {"p50": percentile(&mut between, 50), "p99": percentile(&mut between, 99)},
        })
    };
    let errors: Vec<String> = [&alone, &warm, &seen]
        .iter()
        .flat_map(|seen| seen.errors.lock().unwrap().clone())
        .collect();
    let report = json!({
        "streams": load.streams,
        "seconds": (time * turns).as_secs_f64(),
        "answers": seen.answers.load(Ordering::Relaxed),
        "errors": errors.len(),
        "first_error": errors.first(),
        "tok_s": many,
        "tok_s_of_one_stream": one,
        "ratio": many / one,
        "one": times(&alone),
        "many": times(&seen),
        "resident_mb_before": before,
        "resident_mb_after": after,
    });
    println!("{report:#}");
    if !errors.is_empty() {
        std::process::exit(1);
    }
}
