//! `stack train` against a Hub on this machine: killed again and again, on a disk that has room for three shards of twenty, it ends as the run that was left alone.
#![cfg(feature = "train")]
#![cfg(unix)]

mod common;
#[path = "../../trainer/src/hub/fake.rs"]
mod fake;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{fixture, onebit, text};
use fake::FakeHub;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const SHARDS: usize = 20;

/// A shard of some texts that are no other's.
fn shard(number: usize) -> Vec<u8> {
    let schema = "message m { optional binary hexsha (UTF8); optional binary content (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties).unwrap();
    for rows in 0..2 {
        let texts: Vec<String> = (0..6)
            .map(|row| format!("{number} {rows} {row}\n{}", text(3 + (number + row) % 7)))
            .collect();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, Some(&[1; 6]), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    file
}

fn hub() -> FakeHub {
    let shards = (0..SHARDS).map(|i| {
        let language = ["c", "rust"][i % 2];
        (format!("data/{language}/train-{i:05}-of-{SHARDS:05}.parquet"), shard(i))
    });
    let hub = FakeHub::start("some/code", shards);
    hub.contents().token = Some("hf_right".into());
    hub
}

fn start(hub: &FakeHub, args: &[String]) -> Child {
    let mut command = common::command(args);
    command.env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", "hf_right");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for its end: its status, and what it said.
fn ended(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

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
                found.insert(
                    path.strip_prefix(directory).unwrap().to_path_buf(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

/// Bytes of the files in a folder; one that is being renamed counts once.
fn size(folder: &Path) -> u64 {
    let mut files: BTreeMap<String, u64> = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry
            .file_name()
            .to_string_lossy()
            .trim_end_matches(".part")
            .to_string();
        let bytes = entry.metadata().map_or(0, |about| about.len());
        let seen = files.entry(name).or_default();
        *seen = bytes.max(*seen);
    }
    files.values().sum()
}

/// The most bytes that a folder was seen to hold until `over`. While it is looked through it may change, so that what went and what came are both seen: the least of some
/// looks in a row counts.
fn watch(folder: &Path, over: &AtomicBool, most: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        let seen = (0..4).map(|_| size(folder)).min().unwrap();
        most.fetch_max(seen, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Setting {
    hub: FakeHub,
    folder: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        let s = Setting {
            hub: hub(),
            folder: tempfile::tempdir().unwrap(),
        };
        let args = ["stack", "manifest", "--dataset-id", "some/code", "--output"].map(String::from);
        let (status, said) = ended(start(&s.hub, &[&args[..], &[s.path("stack.jsonl")]].concat()));
        assert_eq!(status, Some(0), "{said}");
        s
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    /// The arguments of a run whose shards have room for so many bytes.
    fn train(&self, name: &str, bytes: u64, more: &[&str]) -> Vec<String> {
        let f = fixture();
        let mut args: Vec<String> = ["stack", "train", "--threads", "1", "--device", "cpu"]
            .map(String::from)
            .into();
        for (option, value) in [
            ("--manifest", self.path("stack.jsonl")),
            ("--config", f.path("config.json")),
            ("--tokenizer", f.path("tokenizer.json")),
            ("--local-root", self.path(&format!("{name}-shards"))),
            ("--output-dir", self.path(name)),
            ("--disk-budget-gb", format!("{:.9}", bytes as f64 / 1e9)),
            ("--max-global-steps", "150".into()),
            ("--steps-per-shard", "4".into()),
            ("--batch-size", "2".into()),
            ("--seq-len", "16".into()),
            ("--accumulation-steps", "2".into()),
            ("--quant-warmup-steps", "40".into()),
            ("--quant-anneal-steps", "40".into()),
            ("--save-every", "4".into()),
            ("--duplicates", "exact".into()),
            ("--replay", "2".into()),
        ] {
            if !more.contains(&option) {
                args.extend([option.to_string(), value]);
            }
        }
        args.extend(more.iter().map(|s| s.to_string()));
        args
    }
}

#[test]
fn ten_kills_change_nothing() {
    let s = Setting::new();
    let (status, said) = ended(start(&s.hub, &s.train("whole", 1 << 30, &[])));
    assert_eq!(status, Some(0), "{said}");
    let expected = contents(&s.folder.path().join("whole"));

    let largest = s.hub.contents().files.values().map(Vec::len).max().unwrap() as u64;
    // And the lock.
    let budget = 3 * largest + 10;
    let args = s.train("killed", budget, &["--resume"]);
    let (run, shards) = (s.folder.path().join("killed"), s.folder.path().join("killed-shards"));
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let lines = || fs::read(run.join("metrics.jsonl")).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count());
    let mut resumed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&shards, &over, &most));
        for kill in 1..=10 {
            let mut child = start(&s.hub, &args);
            // Further than the time before, at some moment of a step.
            while lines() < 12 * kill && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300 * kill as u64));
            }
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it was killed: {}",
                ended(child).1
            );
            child.kill().unwrap();
            let (_, said) = ended(child);
            resumed += usize::from(said.contains("resumed from"));
        }
        let (status, said) = ended(start(&s.hub, &args));
        over.store(true, Ordering::Relaxed);
        assert_eq!(status, Some(0), "{said}");
    });
    assert!(resumed >= 8, "{resumed} of ten went on");
    let found = contents(&run);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{} differs", name.display());
    }
    let most = most.load(Ordering::Relaxed);
    println!("at most {most} of {budget} bytes were on the disk");
    assert!(most <= budget && most > largest);
    let asked: HashSet<String> = s
        .hub
        .log()
        .into_iter()
        .filter(fake::Asked::is_file)
        .map(|asked| asked.path)
        .collect();
    assert!(asked.len() > SHARDS / 2, "{} files were asked for", asked.len());
}

#[test]
fn a_termination_saves_and_ends() {
    let s = Setting::new();
    let run = s.folder.path().join("ended");
    let child = start(&s.hub, &s.train("ended", 1 << 30, &["--max-global-steps", "100000"]));
    while fs::metadata(run.join("metrics.jsonl")).map_or(0, |about| about.len()) < 1_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let (status, said) = ended(child);
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("saved in") && said.contains("fetching "), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let s = Setting::new();
    let refused =
        |status: i32, more: &[&str], parts: &[&str]| onebit(&s.train("refused", 1 << 30, more)).refused(status, parts);
    refused(2, &["--disk-budget-gb", "0"], &["--disk-budget-gb"]);
    refused(2, &["--max-global-steps", "0"], &["--max-shards"]);
    refused(2, &["--language-weights", "rust"], &["LANGUAGE=NUMBER"]);
    refused(2, &["--duplicates", "some"], &["keep, exact or near"]);
    refused(2, &["--replay-capacity", "3"], &["--replay and --replay-capacity"]);
    refused(2, &["--lr-decay", "up"], &["--lr-decay"]);
    refused(1, &["--language-weights", "perl=1"], &["no shard of perl", "c, rust"]);
    refused(1, &["--disk-budget-gb", "0.000001"], &["raise --disk-budget-gb"]);
    refused(1, &["--manifest", "nowhere.jsonl"], &["nowhere.jsonl"]);
    refused(1, &["--from", "nowhere"], &["--from"]);
    // What was refused left no run behind.
    let dry: serde_json::Value = onebit(&s.train("dry", 1 << 30, &["--dry-run", "--json"])).json();
    assert_eq!((&dry["steps"], &dry["tokens"]), (&150.into(), &serde_json::Value::Null));
    assert!(!s.folder.path().join("dry").exists() && !s.folder.path().join("dry-shards").exists());
}

#[test]
fn a_run_ends_with_its_visits() {
    let s = Setting::new();
    // From a folder instead of the Hub.
    let folder = s.folder.path().join("mirror");
    for (path, bytes) in &s.hub.contents().files {
        fs::create_dir_all(folder.join(path).parent().unwrap()).unwrap();
        fs::write(folder.join(path), bytes).unwrap();
    }
    let more = [
        "--from",
        folder.to_str().unwrap(),
        "--max-global-steps",
        "0",
        "--max-shards",
        "5",
        "--json",
    ];
    let before = s.hub.log().len();
    let ran = onebit(&s.train("visits", 1 << 30, &more)).json();
    assert_eq!(s.hub.log().len(), before);
    // Five visits of four steps, if the shards had as much.
    let steps = ran["steps"].as_u64().unwrap();
    assert!((10..=20).contains(&steps), "{ran}");
    assert!(s.folder.path().join("visits/model.safetensors").is_file());
}

/// Each rank reads the whole stream, in a folder of its own with its share of the budget, and takes its micro-batches. Needs two GPUs, or the emulator.
#[test]
fn ranks_on_cuda_see_what_one_that_accumulates_sees() {
    let found = onebit_kernels_cuda::driver().map_or(Vec::new(), |driver| driver.devices);
    let emulated = found.iter().any(|(name, _)| name == "emulated");
    if !emulated && found.len() < 2 {
        return println!("SKIPPED ({} GPUs): ranks of a stream", found.len());
    }
    let s = Setting::new();
    let largest = s.hub.contents().files.values().map(Vec::len).max().unwrap() as u64;
    let budget = 6 * largest + 20;
    let losses = |name: &str, more: &[&str]| -> Vec<f64> {
        let short = [
            "--max-global-steps",
            "24",
            "--quant-warmup-steps",
            "8",
            "--quant-anneal-steps",
            "8",
        ];
        let gpu = ["--device", "cuda", "--lr", "3e-4"];
        let args = s.train(name, budget, &[&short[..], &gpu, more].concat());
        // The first of two: the fixture's is the CPU.
        let args: Vec<String> = match args.iter().position(|word| word == "cpu") {
            Some(at) => [&args[..at - 1], &args[at + 1..]].concat(),
            None => args,
        };
        let mut command = common::command(&args);
        command.env("HF_ENDPOINT", s.hub.endpoint()).env("HF_TOKEN", "hf_right");
        let output = command.env("ONEBIT_EMULATOR_GPUS", "2").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(s.folder.path().join(name).join("metrics.jsonl")).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter_map(|line| line["loss"].as_f64()).collect()
    };
    let one = losses("one", &["--accumulation-steps", "2"]);
    let two = losses("two", &["--accumulation-steps", "1", "--gpus", "2"]);
    assert_eq!((one.len(), two.len()), (24, 24));
    let apart = one.iter().zip(&two).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart < 1e-3, "{apart}");
    for rank in 0..2 {
        let folder = s.folder.path().join("two-shards").join(format!("rank-{rank}"));
        assert!(size(&folder) > 0 && size(&folder) <= budget / 2);
    }
}
