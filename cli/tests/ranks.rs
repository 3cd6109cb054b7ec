//! Several ranks on CPUs: the built command under `mpirun`. Skipped where the command was built without MPI; `.ci/mpi` builds it with.
#![cfg(feature = "mpi")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{fixture, onebit};

/// One thread in each rank, whatever else is at work.
fn mpirun(ranks: usize, args: &[String]) -> Command {
    let mut command = Command::new("mpirun");
    command
        .args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n"])
        .arg(ranks.to_string())
        .arg(env!("CARGO_BIN_EXE_onebit"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a run said, which must have ended with `status`.
fn ended(command: &mut Command, status: i32) -> String {
    let output = command.output().expect("mpirun is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    said
}

/// Trains on `ranks` ranks into `run`.
fn train(ranks: usize, run: &Path, more: &[&str]) -> String {
    ended(&mut mpirun(ranks, &fixture().train(run, more)), 0)
}

/// Weights, metrics and moments. What `state.json` says of ranks differs between their numbers.
fn bytes(run: &Path) -> Vec<Vec<u8>> {
    let mut files = vec![fs::read(run.join("model.safetensors")).unwrap()];
    files.push(fs::read(run.join("metrics.jsonl")).unwrap());
    let newest = newest(run);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        files.push(fs::read(newest.join(name)).unwrap());
    }
    files
}

fn newest(run: &Path) -> std::path::PathBuf {
    let step = |path: &Path| path.file_name().unwrap().to_str().unwrap()[5..].parse::<u64>().unwrap();
    let all = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let whole = all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("step-"));
    whole.max_by_key(|path| step(path)).expect("a checkpoint")
}

/// Losses of steps and validations.
fn losses(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines
        .filter_map(|line| line.get("loss").or(line.get("val_loss"))?.as_f64())
        .collect()
}

fn assert_close(one: &Path, other: &Path, bound: f64) {
    let (one, other) = (losses(one), losses(other));
    assert_eq!(one.len(), other.len());
    for (i, (a, b)) in one.iter().zip(&other).enumerate() {
        assert!((a - b).abs() < bound, "{i}: {a} {b}");
    }
}

/// Fifty steps through all phases.
const FIFTY: [&str; 14] = [
    "--max-steps",
    "50",
    "--quant-warmup-steps",
    "20",
    "--quant-anneal-steps",
    "20",
    "--lr",
    "1e-3",
    "--dropout",
    "0",
    "--save-every",
    "10",
    "--precision",
    "f32",
];

#[test]
fn two_ranks_are_one_with_twice_the_batch() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let val = f.path("text.tokens");
    let with = |more: &[&'static str]| [&FIFTY[..], more].concat();
    let validated = |more: &[&'static str]| {
        with(more)
            .into_iter()
            .map(String::from)
            .chain(["--val".into(), val.clone()])
            .collect::<Vec<_>>()
    };
    let run = |n: usize, name: &str, more: &[&'static str]| {
        let more = validated(more);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        match n {
            1 => drop(onebit(&f.train(&path(name), &more)).ok()),
            n => drop(train(n, &path(name), &more)),
        }
    };
    run(
        1,
        "twice the batch",
        &["--accumulation-steps", "1", "--batch-size", "4"],
    );
    run(1, "accumulated", &["--accumulation-steps", "2"]);
    run(2, "two", &["--accumulation-steps", "1"]);
    run(2, "two again", &["--accumulation-steps", "1"]);
    assert_close(&path("two"), &path("twice the batch"), 1e-3);
    assert_close(&path("two"), &path("accumulated"), 1e-3);
    // Each rank has one micro-batch, so even the sums have one order.
    assert!(bytes(&path("two")) == bytes(&path("accumulated")));
    assert!(bytes(&path("two")) == bytes(&path("two again")));
    // Three ranks, and moments divided among them.
    for optimizer in ["adamw", "adamw8bit", "muon"] {
        let (whole, divided) = (format!("three {optimizer}"), format!("divided {optimizer}"));
        run(3, &whole, &["--optimizer", optimizer]);
        run(3, &divided, &["--optimizer", optimizer, "--shard", "optimizer"]);
        assert!(bytes(&path(&whole)) == bytes(&path(&divided)), "{optimizer}");
    }
}

#[test]
fn a_run_goes_on_with_other_numbers_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    // A small rate, by which a trit at its threshold moves little.
    let six = [&FIFTY[..], &["--accumulation-steps", "3"]].concat();
    let six: Vec<&str> = six
        .iter()
        .map(|word| if *word == "1e-3" { "3e-4" } else { word })
        .collect();
    train(2, &whole, &six);
    // Parts of the run: `--max-steps` is part of it, so each is ended by a signal.
    for ranks in [2, 3, 1, 2] {
        let args = fixture().train(&run, &[&six[..], &["--resume"]].concat());
        let mut child = match ranks {
            1 => common::command(&args)
                .stderr(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
            n => mpirun(n, &args).spawn().unwrap(),
        };
        let before = lines(&run);
        while child.try_wait().unwrap().is_none() && lines(&run) < before + 8 {
            std::thread::sleep(Duration::from_millis(2));
        }
        // One of the ranks, if it did not come to its end before.
        let pids = ranks_of(&run);
        if let Some(pid) = pids.last() {
            kill("-TERM", *pid);
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!([Some(130), Some(0)].contains(&output.status.code()), "{said}");
        assert!(
            output.status.success() || said.contains("interrupted at step"),
            "{said}"
        );
    }
    train(3, &run, &[&six[..], &["--resume"]].concat());
    // Where it was ended is a chance, and with it which sums had which order: a trit at its threshold may fall to either side.
    assert_close(&whole, &run, 5e-3);
    let said = ended(
        &mut mpirun(4, &fixture().train(&run, &[&six[..], &["--resume"]].concat())),
        1,
    );
    assert!(said.contains("go on with 1, 2, 3, 6"), "{said}");
}

/// Lines of the metrics so far.
fn lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Processes of the command that train into `run`, `mpirun` itself left out, in order of their numbers.
fn ranks_of(run: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        let is_ours = words.next().is_some_and(|program| program.ends_with(b"onebit"));
        if is_ours && words.any(|word| word == run.to_str().unwrap().as_bytes()) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

fn kill(signal: &str, pid: u32) {
    // It may just have ended.
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}

#[test]
fn one_rank_asked_to_stop_stops_all_at_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    let long = [&FIFTY[..], &["--accumulation-steps", "2"]].concat();
    let long: Vec<&str> = long
        .iter()
        .map(|word| if *word == "50" { "400" } else { *word })
        .collect();
    train(3, &whole, &long);
    let args = fixture().train(&run, &[&long[..], &["--resume"]].concat());
    let child = mpirun(3, &args).spawn().unwrap();
    while lines(&run) < 20 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pids = ranks_of(&run);
    assert_eq!(pids.len(), 3);
    kill("-TERM", pids[1]);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert_eq!(said.matches("interrupted at step").count(), 1, "{said}");
    let step = newest(&run);
    assert!(said.contains(&step.display().to_string()), "{said}");
    train(3, &run, &[&long[..], &["--resume"]].concat());
    assert!(bytes(&whole) == bytes(&run));
}

#[test]
fn a_killed_rank_ends_all_and_a_resume_makes_up_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, run) = (dir.path().join("whole"), dir.path().join("run"));
    let long: Vec<&str> = FIFTY
        .iter()
        .map(|word| if *word == "50" { "300" } else { *word })
        .collect();
    train(2, &whole, &long);
    for (round, victim) in [1, 0, 1].into_iter().enumerate() {
        let args = fixture().train(&run, &[&long[..], &["--resume"]].concat());
        let mut child = mpirun(2, &args).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && lines(&run) < 25 + 60 * round {
            std::thread::sleep(Duration::from_millis(2));
        }
        let pids = ranks_of(&run);
        assert_eq!(pids.len(), 2, "it ended too soon");
        kill("-KILL", pids[victim]);
        let began = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success());
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(ranks_of(&run), [0u32; 0], "a rank went on");
    }
    train(2, &run, &[&long[..], &["--resume"]].concat());
    assert!(bytes(&whole) == bytes(&run));
}

#[test]
fn ranks_that_differ_or_make_no_world_are_refused() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // Each rank by a command line of its own, as a launcher allows it.
    let with = |lr: &str| f.train(&run, &["--lr", lr]);
    let mut command = mpirun(1, &with("1e-3"));
    command
        .args([":", "-n", "1", env!("CARGO_BIN_EXE_onebit")])
        .args(with("2e-3"));
    let said = ended(&mut command, 1);
    assert!(said.contains("the option lr differs between ranks"), "{said}");
    assert!(
        said.contains("rank 0 has 0.001") && said.contains("rank 1 has 0.002"),
        "{said}"
    );
    // The directory is as it was: nothing was begun.
    train(2, &run, &[]);
    // A directory that holds a run is refused by rank 0, and ends all.
    let said = ended(&mut mpirun(2, &f.train(&run, &[])), 1);
    assert!(said.contains("already holds"), "{said}");
    let said = ended(&mut mpirun(2, &f.train(&dir.path().join("x"), &["--gpus", "2"])), 2);
    assert!(
        said.contains("--gpus starts ranks, and mpirun has started this one"),
        "{said}"
    );
}

#[test]
fn a_plan_is_told_once_with_all_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let args = fixture().train(
        &dir.path().join("run"),
        &["--dry-run", "--json", "--accumulation-steps", "2"],
    );
    let output = mpirun(3, &args).output().unwrap();
    assert!(output.status.success());
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(plan["options"]["world"], 3);
    assert_eq!(plan["tokens_per_step"], 3 * 2 * 2 * 16);
}
