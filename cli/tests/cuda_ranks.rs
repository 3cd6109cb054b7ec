//! `onebit train --gpus`: ranks on GPUs, which the command starts itself. Needs two GPUs, or the emulator (`kernels-cuda/emulator`), which has as many as it is told to have.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{CONFIG, fixture};
use onebit_kernels_cuda::driver;

/// A configuration with heads that the GPU has a kernel for and matrices that can be divided; none with fewer than two GPUs, which test `name` tells.
fn config(name: &str) -> Option<PathBuf> {
    let found = driver().map_or(Vec::new(), |driver| driver.devices);
    let emulated = found.iter().any(|(name, _)| name == "emulated");
    if !emulated && found.len() < 2 {
        println!("SKIPPED ({} GPUs): {name}", found.len());
        return None;
    }
    static CONFIGS: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = CONFIGS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = CONFIG
            .replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 2")
            .replace("\"hidden_size\": 32", "\"hidden_size\": 64")
            .replace("\"intermediate_size\": 64", "\"intermediate_size\": 128");
        fs::write(&path, text).unwrap();
        (dir, path)
    });
    Some(path.clone())
}

/// Twelve steps through all phases.
const TWELVE: [&str; 14] = [
    "--max-steps",
    "12",
    "--quant-warmup-steps",
    "4",
    "--quant-anneal-steps",
    "4",
    "--lr",
    "5e-4",
    "--dropout",
    "0",
    "--save-every",
    "3",
    "--eval-every",
    "5",
];

/// `onebit train` on so many GPUs into `run`.
fn train(config: &Path, gpus: usize, run: &Path, more: &[&str]) -> Command {
    let (config, gpus_text) = (config.to_str().unwrap(), gpus.to_string());
    let val = fixture().path("text.tokens");
    let mut args = vec![
        "--config", config, "--device", "cuda", "--val", &val, "--gpus", &gpus_text,
    ];
    let pairs = TWELVE.chunks(2).filter(|pair| !more.contains(&pair[0]));
    args.extend(pairs.flatten());
    args.extend(more);
    let mut command = common::command(&fixture().train(run, &args));
    command
        .env("ONEBIT_EMULATOR_GPUS", "4")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must be `status`; what it said.
fn ended(mut command: Command, status: i32) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    said
}

/// Weights, metrics and moments.
fn bytes(run: &Path) -> Vec<Vec<u8>> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    let all = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (_, last) = all.filter_map(|path| Some((step(&path)?, path))).max().unwrap();
    let mut files = vec![run.join("model.safetensors"), run.join("metrics.jsonl")];
    files.extend(["model.safetensors", "optimizer.safetensors"].map(|name| last.join(name)));
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Losses of steps and validations.
fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let of = |line: serde_json::Value| line.get("loss").or(line.get("val_loss"))?.as_f64();
    text.lines().map(line).filter_map(of).collect()
}

fn steps(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn ranks_are_one_rank_with_a_larger_batch() {
    let Some(config) = config("ranks with a larger batch") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let run = |gpus: usize, name: &str, more: &[&str]| {
        ended(train(&config, gpus, &path(name), more), 0);
    };
    run(1, "twice the batch", &["--batch-size", "4"]);
    run(2, "two", &[]);
    run(2, "two again", &[]);
    let apart = losses(&path("two"))
        .iter()
        .zip(losses(&path("twice the batch")))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert!(apart < 1e-3, "{apart}");
    assert_eq!(losses(&path("two")).len(), 15);
    assert!(bytes(&path("two")) == bytes(&path("two again")));
    for shard in ["optimizer", "parameters"] {
        run(2, shard, &["--shard", shard]);
        assert!(
            bytes(&path("two")) == bytes(&path(shard)),
            "--shard {shard} has other bytes"
        );
    }
}

/// Ranks that `command` started.
fn children(of: &Child) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let stat = fs::read_to_string(entry.unwrap().path().join("stat")).unwrap_or_default();
        // The name is in parentheses, and may hold anything.
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        let parent = tail.split_whitespace().nth(1).and_then(|word| word.parse::<u32>().ok());
        if parent == Some(of.id()) {
            found.extend(head.split_whitespace().next().and_then(|word| word.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    found
}

fn kill(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_killed_rank_ends_all_and_a_resume_makes_up_for_it() {
    let Some(config) = config("killed ranks") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    ended(train(&config, 2, &whole, &["--shard", "optimizer"]), 0);
    for (round, victim) in [1, 0].into_iter().enumerate() {
        let more = ["--shard", "optimizer", "--resume"];
        let child = train(&config, 2, &run, &more).spawn().unwrap();
        let began = Instant::now();
        while steps(&run) < 4 + 3 * round {
            assert!(began.elapsed() < Duration::from_secs(300), "it does not come so far");
            std::thread::sleep(Duration::from_millis(2));
        }
        let ranks = children(&child);
        assert_eq!(ranks.len(), 2);
        kill("-KILL", ranks[victim]);
        let killed = Instant::now();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(killed.elapsed() < Duration::from_secs(60), "{said}");
        assert!(
            said.contains("--resume") && said.contains(&format!("rank {victim}")),
            "{said}"
        );
        for rank in ranks {
            let alive = fs::read_to_string(format!("/proc/{rank}/cmdline")).is_ok_and(|line| line.contains("onebit"));
            assert!(!alive, "a rank goes on");
        }
    }
    // As one rank, and as two again: another order of sums, so not the same bytes.
    let more = ["--accumulation-steps", "2", "--resume"];
    let mut alone = train(&config, 1, &run, &more).spawn().unwrap();
    while alone.try_wait().unwrap().is_none() && steps(&run) < 9 {
        std::thread::sleep(Duration::from_millis(2));
    }
    kill("-TERM", alone.id());
    assert_eq!(alone.wait().unwrap().code(), Some(130));
    ended(train(&config, 2, &run, &["--resume"]), 0);
    let apart = losses(&whole)
        .iter()
        .zip(losses(&run))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    // Where it was ended is a chance, and with it which sums had which order: a trit at its threshold may fall to either side.
    assert!(apart < 5e-3, "{apart}");
}

#[test]
fn a_resumed_run_has_the_bytes_of_one_that_was_not_ended() {
    let Some(config) = config("resumed ranks") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    // Long enough to be ended on the way.
    let more = ["--shard", "parameters", "--max-steps", "40", "--resume"];
    ended(train(&config, 2, &whole, &more), 0);
    for (signal, all_ranks) in [("-TERM", false), ("-INT", true)] {
        let begun = steps(&run);
        let child = train(&config, 2, &run, &more).spawn().unwrap();
        while steps(&run) < begun + 3 {
            std::thread::sleep(Duration::from_millis(2));
        }
        // One rank alone, or the command that started all.
        kill(signal, if all_ranks { child.id() } else { children(&child)[1] });
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{said}");
    }
    ended(train(&config, 2, &run, &more), 0);
    assert!(bytes(&whole) == bytes(&run));
}

#[test]
fn more_ranks_than_gpus_are_refused() {
    let Some(config) = config("too many ranks") else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let said = ended(train(&config, 64, &run, &[]), 1);
    assert!(said.contains("64 GPUs") && said.contains("ask for no more"), "{said}");
    let said = ended(
        train(&config, 2, &run, &["--optimizer", "muon", "--shard", "optimizer"]),
        1,
    );
    assert!(said.contains("Muon's products need whole matrices"), "{said}");
    assert!(!run.join("metrics.jsonl").exists());
}
