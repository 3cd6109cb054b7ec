//! A bit-width search: what it promises is what the files are, and its limits bind.
#![cfg(feature = "train")]

#[path = "../common/mod.rs"]
mod common;
mod going_on;
mod limits;
mod promises;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{CONFIG, fixture, onebit};
use serde_json::Value;

/// A model in full precision that has learnt the text, made once.
fn twin() -> &'static Path {
    static DIR: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("twin");
        let f = fixture();
        let (data, tokenizer) = (f.path("text.tokens"), f.path("tokenizer.json"));
        // Wide enough that no width is mostly padding.
        let config = CONFIG
            .replace("\"hidden_size\": 32", "\"hidden_size\": 128")
            .replace("\"intermediate_size\": 64", "\"intermediate_size\": 256");
        let wide = dir.path().join("config.json");
        fs::write(&wide, config).unwrap();
        let config = wide.to_str().unwrap();
        onebit(&[
            "train",
            "--quant",
            "none",
            "--config",
            config,
            "--data",
            &data,
            "--tokenizer",
            &tokenizer,
            "--output-dir",
            path.to_str().unwrap(),
            "--max-steps",
            "120",
            "--batch-size",
            "4",
            "--seq-len",
            "16",
            "--lr",
            "0.01",
            "--device",
            "cpu",
            "--threads",
            "1",
        ])
        .ok();
        (dir, path)
    });
    path
}

/// The arguments of a search of `model` in `dir`, results in `name`.json and `name`.1bit.
fn search(model: &Path, dir: &Path, name: &str, more: &[&str]) -> Vec<String> {
    let of = |end: &str| dir.join(format!("{name}.{end}")).to_str().unwrap().to_string();
    let mut args: Vec<String> = ["search", "--device", "cpu", "--tokens", "512", "--context", "16"]
        .map(Into::into)
        .into();
    for (option, value) in [
        ("--model", model.to_str().unwrap().to_string()),
        ("--data", fixture().path("text.txt")),
        ("--output", of("json")),
        ("--packed", of("1bit")),
    ] {
        if !more.contains(&option) {
            args.extend([option.into(), value]);
        }
    }
    args.extend(more.iter().map(|s| s.to_string()));
    args
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// What `onebit eval` says of a file.
fn evaluated(file: &Path, more: &[&str]) -> f64 {
    let (file, text) = (file.to_str().unwrap(), fixture().path("text.txt"));
    let args = [
        "eval",
        "--device",
        "cpu",
        "--json",
        "--model",
        file,
        "--data",
        &text,
        "--context",
        "16",
        "--stride",
        "16",
    ];
    onebit(&[&args, more].concat()).json()["loss"].as_f64().unwrap()
}
