//! The command for boards: it generates and scores without the trainer, and refuses the rest by name.
#![cfg(not(feature = "train"))]

use std::process::{Command, Output};

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../models/wikitext2-25m/wikitext2-25m.1bit"
);

fn onebit(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onebit"));
    command.args(args).output().expect("the program runs")
}

/// Standard output of a command that does its work.
fn done(args: &[&str]) -> String {
    let output = onebit(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The first line on standard error of a command that is refused with `status`.
fn refused(args: &[&str], status: i32) -> String {
    let output = onebit(args);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{args:?}: {told}");
    told.lines().next().expect("a line").to_string()
}

#[test]
fn a_file_generates_the_text_of_every_build() {
    let args = ["--prompt", "A small boat", "--temperature", "0", "--max-tokens", "24"];
    // As in `bundled.rs`, where the trainer and the `tokenizers` crate are part of the program.
    let expected = "A small boat , which was built in the late 19th century . The ship was built by the Royal Navy in 1876 and was built in\n";
    assert_eq!(done(&[&["generate", "--model", MODEL][..], &args].concat()), expected);
}

#[test]
fn a_text_is_scored() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = dir.path().join("text.txt");
    std::fs::write(&text, "The ship was built in the 19th century .\n").expect("a file");
    let told = done(&[
        "eval",
        "--model",
        MODEL,
        "--data",
        text.to_str().expect("UTF-8"),
        "--json",
    ]);
    let score: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(score["words"], 10, "{told}");
    let loss = score["loss"].as_f64().expect("a number");
    assert!((2.0..6.0).contains(&loss), "{told}");
}

#[test]
fn what_needs_the_trainer_is_refused_by_name() {
    for args in [
        &["train"][..],
        &["quickstart"],
        &["tokenizer", "train"],
        &["tokenize"],
        &["data"],
        &["plot"],
        &["bench", "train"],
        &["eval", "--model", MODEL, "--stories"],
        &["eval", "--model", MODEL, "--data", MODEL, "--dynamic", "64"],
        &[
            "eval",
            "--model",
            MODEL,
            "--data",
            concat!(env!("CARGO_MANIFEST_DIR"), "/src"),
        ],
    ] {
        let told = refused(args, 2);
        assert!(
            told.contains("this build has no trainer") && told.contains("cargo build -p onebit-cli"),
            "{args:?}: {told}"
        );
    }
    let told = refused(&["generate", "--model", "wikitext2-25m", "--prompt", "a"], 1);
    assert!(told.contains("does not exist") && !told.contains("bundled"), "{told}");
    if !cfg!(feature = "cuda") {
        let told = refused(&["generate", "--model", MODEL, "--device", "cuda"], 1);
        assert!(
            told.contains("this build has no CUDA") && told.contains("--device cpu"),
            "{told}"
        );
    }
}

#[test]
#[cfg(not(feature = "tokenizers"))]
fn what_needs_tokenizers_of_every_scheme_is_refused_by_name() {
    for args in [&["export"][..], &["import", MODEL]] {
        let told = refused(args, 2);
        assert!(told.contains("this build runs .1bit files alone"), "{args:?}: {told}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("model.gguf");
    std::fs::write(&file, b"GGUF\x03\0\0\0and more that nobody reads").expect("a file");
    let told = refused(
        &["generate", "--model", file.to_str().expect("UTF-8"), "--prompt", "a"],
        1,
    );
    assert!(
        told.contains(".gguf takes a build with the feature `tokenizers`"),
        "{told}"
    );
}
