//! The command for boards: it generates and scores without the trainer, and refuses the rest by name.
#![cfg(not(feature = "train"))]

use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/stories-mcu/stories-mcu.1bit");

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

/// The error of a command that is refused with `status`.
fn refused(args: &[&str], status: i32) -> String {
    let output = onebit(args);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(status), "{args:?}: {told}");
    told.lines()
        .find(|line| line.starts_with("error:"))
        .expect("an error")
        .to_string()
}

/// The likeliest text that begins with "Once".
fn likeliest() -> String {
    let args = ["--prompt", "Once", "--temperature", "0", "--max-tokens", "40"];
    done(&[&["generate", "--model", MODEL][..], &args].concat())
}

#[test]
fn a_file_generates_a_text() {
    // Which text it is, `.ci/linux-boards` compares with the golden file.
    let text = likeliest();
    assert!(
        text.starts_with("Once ") && text.split_whitespace().count() > 10,
        "{text:?}"
    );
}

#[test]
fn a_text_is_scored() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("text.txt");
    let text = likeliest();
    std::fs::write(&file, &text).expect("a file");
    let told = done(&[
        "eval",
        "--model",
        MODEL,
        "--data",
        file.to_str().expect("UTF-8"),
        "--json",
    ]);
    let score: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    // With one for the end of each line.
    let words = text.split_whitespace().count() + text.lines().count();
    assert_eq!(score["words"], words, "{told}");
    assert_eq!(score["bytes"], text.len(), "{told}");
    let loss = score["loss"].as_f64().expect("a number");
    // A guess among all tokens would be ln 1024 = 6.9.
    assert!((0.0..5.0).contains(&loss), "{told}");
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
        &["bench", "scaling"],
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
