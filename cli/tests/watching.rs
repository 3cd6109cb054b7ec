//! What is told of a run: the record, events for TensorBoard, the page of a report, lines where there is no terminal.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::Path;

use common::{fixture, onebit, onebit_with};

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Bodies of the records of all event files, by the lengths alone: that their checksums are right is tested where they are written.
fn records(directory: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            found.push(rest[12..12 + length].to_vec());
            rest = &rest[16 + length..];
        }
    }
    found
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_resumed_run_tells_every_step_once() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (run, events) = (dir.path().join("run"), dir.path().join("events"));
    let at = events.to_str().unwrap();
    let more = [
        "--max-steps",
        "6",
        "--save-every",
        "2",
        "--keep",
        "3",
        "--log-every",
        "1",
        "--tensorboard",
        at,
    ];
    onebit(&f.train(&run, &more)).ok();
    let losses = |all: &[Vec<u8>]| all.iter().filter(|body| has(body, "loss/training")).count();
    assert_eq!(losses(&records(&events)), 6);
    assert!(
        records(&events)
            .iter()
            .any(|body| has(body, "zeros/0.mlp.up_proj") && has(body, "flips/0.mlp.up_proj"))
    );
    // As if it had been killed behind step 4.
    fs::remove_dir_all(run.join("checkpoints/step-6")).unwrap();
    onebit(&f.train(&run, &[&more[..], &["--resume"]].concat())).ok();
    assert_eq!(losses(&records(&events)), 6);
    let record = json(&run.join("run.json"));
    let sessions = record["sessions"].as_array().unwrap();
    let steps: Vec<_> = sessions
        .iter()
        .map(|s| (s["from_step"].as_u64(), s["to_step"].as_u64()))
        .collect();
    assert_eq!(steps, [(Some(0), Some(6)), (Some(4), Some(6))]);
    assert!(sessions[0]["device"].as_str().unwrap().starts_with("cpu"), "{record}");
    // Another run stays away from them, unless it may replace them.
    let other = dir.path().join("other");
    onebit(&f.train(&other, &more)).refused(1, &["--tensorboard", "events", "--force"]);
    onebit(&f.train(&other, &[&more[..], &["--force"]].concat())).ok();
    assert_eq!(losses(&records(&events)), 6);
}

#[test]
fn a_report_is_one_page_with_samples() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let report = |output: &str| {
        let model = f.path("model");
        onebit(&[
            "report",
            &model,
            "--output",
            output,
            "--samples",
            "2",
            "--prompt",
            "the",
            "--threads",
            "1",
            "--json",
        ])
    };
    let made = report(&at("a.html")).json();
    let page = fs::read_to_string(at("a.html")).unwrap();
    assert_eq!(made["bytes"], page.len());
    for part in [
        "<!doctype html>",
        "seed 42",
        "seed 43",
        "hidden_size",
        "batch_size",
        "tokens a second",
        "0.mlp.up_proj",
        "<svg",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains(" href=") && !page.contains(" src="));
    // The same again, but for the minute that it was made in.
    report(&at("b.html")).json();
    let texts = |name: &str| -> Vec<String> {
        let page = fs::read_to_string(at(name)).unwrap();
        page.split("<pre>")
            .skip(1)
            .map(|part| part.split("</pre>").next().unwrap().to_string())
            .collect()
    };
    assert_eq!(texts("a.html"), texts("b.html"));
    assert_eq!(texts("a.html").len(), 2);
}

#[test]
fn a_screen_needs_a_terminal_and_without_one_there_are_lines() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let ran = onebit_with(&f.train(&dir.path().join("run"), &["--tui"]), "TERM", "xterm");
    assert!(ran.stderr.contains("--tui needs a terminal"), "{}", ran.stderr);
    assert!(ran.ok().contains("steps"));
}

#[test]
fn what_a_model_says_while_it_is_trained_is_kept_and_shown() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let said = |run: &Path| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(run.join("samples.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let run = dir.path().join("run");
    let report = |name: &str| {
        let output = dir.path().join(name);
        let ran = onebit(&[
            "report",
            run.to_str().unwrap(),
            "--samples",
            "0",
            "--output",
            output.to_str().unwrap(),
        ]);
        ran.ok();
        fs::read_to_string(output).unwrap()
    };
    // Nobody asked.
    onebit(&f.train(&run, &[])).ok();
    assert!(!run.join("samples.jsonl").exists() && !report("none.html").contains("What it said"));
    // One checkpoint, of a model that is in full precision still.
    let more = ["--samples", "--force", "--save-every", "0", "--quant-anneal-steps", "0"];
    onebit(&f.train(&run, &[&more[..], &["--quant-warmup-steps", "3"]].concat())).ok();
    let first = said(&run);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(
        (&first[0]["step"], &first[0]["full_precision"]),
        (&3.into(), &true.into())
    );
    assert!(!first[0]["text"].as_str().unwrap().is_empty(), "{first:?}");
    assert!(report("first.html").contains("step 3 <span class=\"soft\">in full precision</span>"));
    // Another in its place, ternary, whose text is that of the packed model.
    onebit(&f.train(&run, &[&more[..], &["--quant-warmup-steps", "1"]].concat())).ok();
    let second = said(&run);
    assert_eq!((second.len(), &second[0]["full_precision"]), (1, &false.into()));
    assert_ne!(first[0]["text"], second[0]["text"]);
    assert!(report("second.html").contains("step 3 <span class=\"soft\">packed</span>"));
}
