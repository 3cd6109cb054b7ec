//! Puts a server under load: one stream for a while, then many, and what each of their tokens took.
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

/// `streams` at a time for so long; tokens a second.
fn run(load: &Load, streams: u64, time: Duration, seen: &Seen) -> f64 {
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for stream in 0..streams {
            let stop = &stop;
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(error) = answer(load, stream + 10_000 * round, seen) {
                        seen.errors.lock().unwrap().push(error);
                    }
                }
            });
        }
        while start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(100).min(time));
        }
        stop.store(true, Ordering::Relaxed);
    });
    seen.tokens.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
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
    let time = Duration::from_secs_f64(60.0 * load.minutes);
    let alone = Seen::default();
    let one = run(&load, 1, (time / 10).min(Duration::from_secs(30)), &alone);
    let warm = Seen::default();
    run(&load, load.streams, (time / 10).min(Duration::from_secs(30)), &warm);
    let before = resident(load.pid);
    let seen = Seen::default();
    let many = run(&load, load.streams, time, &seen);
    let after = resident(load.pid);
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
        "seconds": time.as_secs_f64(),
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
