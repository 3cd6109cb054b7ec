//! The process is killed at random moments, over and over, and the run ends with the bytes of one that was left alone.
#![cfg(feature = "train")]
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{command, fixture, onebit};

const RUN: [&str; 10] = [
    "--max-steps",
    "150",
    "--save-every",
    "4",
    "--quant-warmup-steps",
    "40",
    "--quant-anneal-steps",
    "40",
    "--accumulation-steps",
    "2",
];

/// Every file below `directory`, but for the lock, which holds a process's number, and the record of the run, which holds the time.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(at) = directories.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if ![".lock", "run.json"].contains(&path.file_name().unwrap().to_str().unwrap()) {
                let name = path.strip_prefix(directory).unwrap().to_path_buf();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn start(args: &[String]) -> Child {
    command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How often: `ONEBIT_KILLS`, or a few times.
fn kills() -> usize {
    std::env::var("ONEBIT_KILLS").map_or(15, |n| n.parse().expect("a number"))
}

#[test]
fn kills_at_random_moments_lose_nothing() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let began = Instant::now();
    onebit(&f.train(&whole, &RUN)).ok();
    let undisturbed = began.elapsed();
    let expected = contents(&whole);

    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1u64 << 31) as f64
    };
    let (mut killed, mut ended, mut resumed) = (0, 0, 0);
    while killed < kills() {
        let run = dir.path().join(format!("run-{ended}"));
        let args = f.train(&run, &[&RUN[..], &["--resume"]].concat());
        // Until it comes to its end in spite of all.
        loop {
            let mut child = start(&args);
            std::thread::sleep(undisturbed.mul_f64(random() * 0.7).max(Duration::from_millis(1)));
            let finished = child.try_wait().unwrap().is_some() || killed >= kills();
            if !finished {
                child.kill().unwrap();
                killed += 1;
            }
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            resumed += usize::from(said.contains("resumed from"));
            if finished {
                assert!(output.status.success(), "{said}");
                break;
            }
            // Killed, or done just before.
            assert!(!said.contains("error: "), "{said}");
        }
        let found = contents(&run);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, bytes) in &expected {
            assert!(found[name] == *bytes, "{} differs after {killed} kills", name.display());
        }
        fs::remove_dir_all(run).unwrap();
        ended += 1;
    }
    println!("{killed} kills, {resumed} resumptions from a checkpoint, {ended} runs to the end, all equal");
    assert!(
        resumed > killed / 4,
        "the kills came before there was anything to resume"
    );
}

#[test]
fn two_runs_never_share_a_directory() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut first = start(&f.train(&run, &["--max-steps", "100000"]));
    while !run.join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let owner = first.id().to_string();
    for more in ["--resume", "--force"] {
        onebit(&f.train(&run, &["--max-steps", "100000", more])).refused(1, &["another run is at work", &owner]);
    }
    first.kill().unwrap();
    first.wait().unwrap();
    onebit(&f.train(&run, &["--max-steps", "2", "--force"])).ok();
}

/// As Ctrl-C: what asks a service to end.
#[test]
fn a_termination_saves_and_ends() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let child = start(&f.train(&run, &["--max-steps", "100000"]));
    while fs::metadata(run.join("metrics.jsonl")).map_or(0, |m| m.len()) < 1_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("saved in"), "{said}");
    let names = contents(&run.join("checkpoints"));
    assert!(names.keys().any(|name| name.ends_with("manifest.json")));
}
