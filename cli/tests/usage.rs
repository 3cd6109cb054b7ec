//! Help, exit statuses, and every kind of bad input: one line that says what, where and what to do.
#![cfg(feature = "train")]

mod common;

use std::fs;

use common::{CONFIG, fixture, onebit, onebit_with};

const COMMANDS: [&[&str]; 21] = [
    &["quickstart"],
    &["data", "wikitext2"],
    &["tokenizer", "train"],
    &["tokenize"],
    &["train"],
    &["search"],
    &["eval"],
    &["generate"],
    &["chat"],
    &["export"],
    &["inspect"],
    &["bench"],
    &["plot"],
    &["report"],
    &["serve"],
    &["completions"],
    &["doctor"],
    &["data"],
    &["stack"],
    &["stack", "manifest"],
    &["stack", "train"],
];

#[test]
fn every_command_has_help_with_defaults_and_an_example() {
    let top = onebit(&["--help"]).ok();
    for command in COMMANDS {
        assert!(top.contains(command[0]), "{command:?} is in the list");
        let text = onebit(&[command, &["--help"]].concat()).ok();
        let group = command == ["data"] || command == ["stack"];
        assert!(
            group || text.contains("Examples:\n  onebit "),
            "{command:?} has an example: {text}"
        );
        // Each option says what it does; one that may be left out and is no switch says its default.
        for option in ["--threads", "--seed", "--device", "--output-dir"] {
            if let Some(at) = text.find(&format!("\n  {option} ")) {
                let help: String = text[at..].chars().take(160).collect();
                assert!(
                    help.contains("default") || command == ["train"] && option == "--output-dir",
                    "{command:?} {option}: {help}"
                );
            }
        }
    }
    assert!(onebit(&["--version"]).ok().starts_with("onebit "));
}

#[test]
fn wrong_usage_ends_with_2() {
    let f = fixture();
    let (model, text) = (f.path("model"), f.path("text.txt"));
    onebit::<&str>(&[]).refused(2, &["subcommands"]);
    onebit(&["tran"]).refused(2, &["tran"]);
    onebit(&["train", "--bogus", "1"]).refused(2, &["--bogus"]);
    onebit(&["train"]).refused(2, &["--tokenizer"]);
    onebit(&["train", "--batch-size", "x", "--tokenizer", "t"]).refused(2, &["--batch-size"]);
    onebit(&["generate", "--model", &model, "--temperature", "-1"]).refused(2, &["temperature", "0 or more"]);
    onebit(&["generate", "--model", &model, "--stop="]).refused(2, &["--stop"]);
    onebit(&["generate", "--model", &model, "--model-dir", &model]).refused(2, &["--model and --model-dir"]);
    onebit(&["generate", "--prompt", "x"]).refused(2, &["--model"]);
    onebit(&["generate", "--model", &model, "--device", "gpu"]).refused(2, &["gpu", "auto, cpu, cuda"]);
    onebit(&["generate", "--model", &model, "--threads", "0"]).refused(2, &["--threads"]);
    onebit(&["eval", "--model", &model]).refused(2, &["--data"]);
    onebit(&["eval", "--model", &model, "--ids", "1,x"]).refused(2, &["--ids", "1,x"]);
    onebit(&["eval", "--model", &model, "--data", &text, "--stride", "33"]).refused(2, &["--stride", "32"]);
    onebit(&["eval", "--model", &model, "--data", &text, "--context", "33"]).refused(2, &["--context", "32"]);
    onebit(&["eval", "--model", &model, "--data", &text, "--max-tokens", "0"]).refused(2, &["--max-tokens"]);
    onebit(&["eval", "--model", &model, "--stories", "--max-tokens", "9"]).refused(2, &["--max-tokens"]);
    onebit(&[
        "eval",
        "--model",
        &model,
        "--data",
        &text,
        "--dynamic",
        "8",
        "--context",
        "9",
    ])
    .refused(2, &["--context"]);
    onebit(&["eval", "--model", &model, "--ids", "1,2", "--logits", "--context", "9"]).refused(2, &["--context"]);
    onebit(&["bench", "prefill", "--exact-head"]).refused(2, &["--exact-head", "bench decode"]);
    onebit(&["bench", "prefill", "--streams", "4"]).refused(2, &["--streams", "bench decode"]);
    onebit(&["bench", "decode", "--streams", "0"]).refused(2, &["--streams", "at least 1"]);
    onebit(&["bench", "sort"]).refused(2, &["decode, prefill, train or scaling"]);
    onebit(&["bench", "decode", "--gpus", "2"]).refused(2, &["--gpus", "bench train", "bench scaling"]);
    onebit(&["bench", "train", "--shard", "optimizer"]).refused(2, &["--shard", "--gpus"]);
    onebit(&["bench", "train", "--gpus", "2,8"]).refused(2, &["--gpus"]);
    onebit(&["bench", "scaling", "--model", &model]).refused(2, &["--model", "measures nothing"]);
    onebit(&["bench", "scaling", "--gpus", "2,0"]).refused(2, &["--gpus", "2,0"]);
    onebit(&["bench", "scaling", "--shard", "all"]).refused(2, &["--shard", "none, optimizer or parameters"]);
    onebit(&["bench", "scaling", "--rate", "0"]).refused(2, &["--rate", "more than 0"]);
    onebit(&["bench", "scaling", "--seq-len", "4096"]).refused(2, &["--seq-len", "2048"]);
    onebit(&["bench", "scaling", "--shard", "optimizer", "--optimizer", "muon"]).refused(1, &["muon", "--shard"]);
    onebit(&["bench", "decode", "--shape", "9b"]).refused(2, &["--shape", "25m"]);
    onebit(&["tokenizer", "train", "--input", &text, "--output", "x"]).refused(2, &["--vocab-size"]);
    onebit(&[
        "tokenizer",
        "train",
        "--input",
        &text,
        "--output",
        "x",
        "--kind",
        "char",
    ])
    .refused(2, &["bpe or word"]);
    onebit(&["quickstart", "--minutes", "1", "--steps", "5"]).refused(2, &["--minutes and --steps"]);
    onebit(&["quickstart", "--config", "2b4t"]).refused(2, &["config", "stories-3m", "2b4t"]);
    onebit(&["plot", "--output", "x.svg"]).refused(2, &["metrics"]);
    onebit(&["plot", &model, "--output", "x.svg", "--theme", "red"]).refused(2, &["--theme", "auto, light or dark"]);
    onebit(&["report", &model, "--output", "x", "--samples", "101"]).refused(2, &["--samples"]);
    onebit(&["report", &model, "--output", "x", "--max-tokens", "0"]).refused(2, &["--max-tokens"]);
    let out = std::path::PathBuf::from("never-made");
    onebit(&f.train(&out, &["--lr-decay", "cos"])).refused(2, &["--lr-decay", "cosine"]);
    onebit(&f.train(&out, &["--optimizer", "sgd"])).refused(2, &["--optimizer", "muon"]);
    onebit(&f.train(&out, &["--init", "zero"])).refused(2, &["--init", "mimetic"]);
    onebit(&f.train(&out, &["--init", "normal", "--init-from", &model])).refused(2, &["--init and --init-from"]);
    onebit(&f.train(&out, &["--lr", "0"])).refused(2, &["--lr", "positive"]);
    onebit(&f.train(&out, &["--attention-dropout", "1"])).refused(2, &["--attention-dropout", "below 1"]);
    for bad in ["0", "-30", "nan", "inf", "1e9"] {
        onebit(&f.train(&out, &["--logit-softcap", bad])).refused(2, &["--logit-softcap", "positive"]);
    }
    onebit(&f.train(&out, &["--data-dir", "x"])).refused(2, &["--data and --data-dir"]);
    onebit(&f.train(&out, &["--init-from", "nowhere"])).refused(1, &["nowhere"]);
    assert!(!out.exists(), "a refusal makes nothing");
}

#[test]
fn bpe_dropout_needs_merges_and_a_probability() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (text, output) = (f.path("text.txt"), dir.path().join("o"));
    let words = dir.path().join("words.json");
    let (output, words) = (output.to_str().unwrap(), words.to_str().unwrap());
    let refused = |tokenizer: &str, status: i32, more: &[&str], parts: &[&str]| {
        let args = [
            "tokenize",
            "--input",
            &text,
            "--tokenizer",
            tokenizer,
            "--output",
            output,
        ];
        onebit(&[&args[..], more].concat()).refused(status, parts);
        assert!(!std::path::Path::new(output).exists(), "a refusal writes nothing");
    };
    let bpe = f.path("tokenizer.json");
    for p in ["1", "1.5", "-0.1", "NaN"] {
        refused(
            &bpe,
            2,
            &["--bpe-dropout", p],
            &["--bpe-dropout", "from 0 to below 1", p],
        );
    }
    refused(&bpe, 2, &["--passes", "2"], &["--passes needs --bpe-dropout"]);
    refused(
        &bpe,
        2,
        &["--bpe-dropout", "0", "--seed", "2"],
        &["--seed needs --bpe-dropout"],
    );
    refused(&bpe, 2, &["--bpe-dropout", "0.1", "--passes", "0"], &["--passes"]);
    refused(&bpe, 2, &["--bpe-dropout", "0.1", "--passes", "65536"], &["--passes"]);
    onebit(&[
        "tokenizer",
        "train",
        "--kind",
        "word",
        "--input",
        &text,
        "--output",
        words,
    ])
    .ok();
    refused(
        words,
        1,
        &["--bpe-dropout", "0.1"],
        &["BPE-dropout", "not a plain byte-level BPE"],
    );
}

#[test]
fn missing_and_empty_files_are_named() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    fs::write(at("empty.txt"), "").unwrap();
    fs::write(at("blank.txt"), "").unwrap();
    let (model, tokenizer) = (f.path("model"), f.path("tokenizer.json"));
    onebit(&["generate", "--model", &at("none")]).refused(1, &["none", "check the path"]);
    onebit(&["generate", "--model", dir.path().to_str().unwrap()]).refused(1, &["config.json"]);
    onebit(&["eval", "--model", &model, "--data", &at("none.txt")]).refused(1, &["none.txt"]);
    onebit(&["eval", "--model", &model, "--data", &at("empty.txt")]).refused(1, &["empty.txt", "is empty"]);
    onebit(&[
        "tokenize",
        "--input",
        &at("none.txt"),
        "--tokenizer",
        &tokenizer,
        "--output",
        &at("o"),
    ])
    .refused(1, &["none.txt"]);
    onebit(&[
        "tokenize",
        "--input",
        &at("empty.txt"),
        "--tokenizer",
        &tokenizer,
        "--output",
        &at("o"),
    ])
    .refused(1, &["no text"]);
    onebit(&[
        "tokenize",
        "--input",
        &f.path("text.txt"),
        "--tokenizer",
        &at("none.json"),
        "--output",
        &at("o"),
    ])
    .refused(1, &["none.json"]);
    onebit(&[
        "tokenize",
        "--input",
        &f.path("text.txt"),
        "--tokenizer",
        &f.path("text.txt"),
        "--output",
        &at("o"),
    ])
    .refused(1, &["not a tokenizer.json"]);
    onebit(&["inspect", &at("none")]).refused(1, &["none"]);
    onebit(&["inspect", &f.path("text.txt")]).refused(1, &["not a token file"]);
    onebit(&["plot", &at("none.jsonl"), "--output", &at("x.svg")]).refused(1, &["none.jsonl"]);
    onebit(&["plot", &f.path("text.txt"), "--output", &at("x.svg")]).refused(1, &["line 1"]);
    onebit_with(&["data", "wikitext2"], "HF_ENDPOINT", "hub").refused(1, &["HF_ENDPOINT", "hub"]);
    onebit(&["data", "wikitext2", "--from", dir.path().to_str().unwrap()]).refused(1, &["train.txt"]);
    assert!(!dir.path().join("o").exists() && !dir.path().join("x.svg").exists());
}

#[test]
fn training_data_must_fit() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let refused = |more: &[&str], parts: &[&str]| {
        onebit(&f.train(&out, more)).refused(1, parts);
        assert!(!out.exists(), "a refusal makes nothing");
    };
    refused(&["--data", &at("none.tokens")], &["none.tokens"]);
    refused(
        &["--data", &f.path("text.txt")],
        &["not a token file", "onebit tokenize"],
    );
    refused(&["--tokenizer", &f.path("other.json")], &["was made with tokenizer"]);
    let bytes = fs::read(f.path("text.tokens")).unwrap();
    fs::write(at("cut.tokens"), &bytes[..bytes.len() - 7]).unwrap();
    refused(&["--data", &at("cut.tokens")], &["cut.tokens", "cut off"]);
    let mut bent = bytes.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    fs::write(at("bent.tokens"), &bent).unwrap();
    refused(&["--data", &at("bent.tokens")], &["bent.tokens", "damaged"]);
    fs::write(at("short.txt"), "a cow.\n").unwrap();
    onebit(&[
        "tokenize",
        "--input",
        &at("short.txt"),
        "--tokenizer",
        &f.path("tokenizer.json"),
        "--output",
        &at("short.tokens"),
    ])
    .ok();
    refused(&["--data", &at("short.tokens")], &["window", "--seq-len 16"]);
    refused(&["--val", &at("short.tokens")], &["window"]);
    refused(&["--seq-len", "33"], &["--seq-len", "context of 32"]);
    onebit(&[
        "tokenize",
        "--input",
        &at("short.txt"),
        "--tokenizer",
        &f.path("tokenizer.json"),
        "--output",
        &at("x.tokens"),
        "--seq-len",
        "500",
    ])
    .refused(1, &["--seq-len 500"]);
    onebit(&["eval", "--model", &f.path("model"), "--data", &at("cut.tokens")]).refused(1, &["cut.tokens"]);
}

#[test]
fn configurations_are_checked() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let config = |text: String| {
        let path = dir.path().join("bad.json");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let refused = |config: &str, parts: &[&str]| onebit(&f.train(&out, &["--config", config])).refused(1, parts);
    refused("quikstart", &["quikstart", "did you mean `quickstart`"]);
    refused(
        &config(CONFIG.replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 5")),
        &["num_"],
    );
    refused(
        &config(CONFIG.replace("\"hidden_size\"", "\"hiden_size\"")),
        &["hiden_size", "did you mean `hidden_size`"],
    );
    refused(
        &config(CONFIG.replace("\"vocab_size\": 320", "\"vocab_size\": 100")),
        &["100 tokens", "vocab_size"],
    );
    refused(&config("{".into()), &["not valid JSON"]);
    refused(&f.path("text.txt"), &["not valid JSON"]);
    let huge = CONFIG
        .replace("\"hidden_size\": 32", "\"hidden_size\": 16384")
        .replace("\"intermediate_size\": 64", "\"intermediate_size\": 262144");
    refused(&config(huge), &["memory", "smaller model"]);
    assert!(!out.exists());
}

#[test]
fn nothing_is_written_over_and_directories_must_be_writable() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    fs::write(at("here"), "mine").unwrap();
    let (text, tokenizer) = (f.path("text.txt"), f.path("tokenizer.json"));
    let (model, metrics) = (f.path("model"), f.path("model/metrics.jsonl"));
    let writers: [&[&str]; 4] = [
        &["tokenize", "--input", &text, "--tokenizer", &tokenizer],
        &["tokenizer", "train", "--input", &text, "--vocab-size", "300"],
        &["plot", &metrics],
        &["report", &model],
    ];
    for writer in writers {
        let to = |output: &str| onebit(&[writer, &["--output", output]].concat());
        to(&at("here")).refused(1, &["here exists already", "--force"]);
        to(&at("no/such/file")).refused(1, &["no/such", "can be written"]);
        to(&at("here/below")).refused(1, &["here"]);
        assert_eq!(fs::read_to_string(at("here")).unwrap(), "mine");
    }
    onebit(&["plot", &metrics, "--output", &at("here"), "--force"]).ok();
    assert!(fs::read_to_string(at("here")).unwrap().starts_with("<svg"));
    onebit(&f.train(&dir.path().join("here/run"), &[])).refused(1, &["--output-dir"]);
    onebit(&f.train(std::path::Path::new(&f.path("model")), &[])).refused(1, &["already holds", "--resume"]);
    onebit(&["quickstart", "--steps", "1", "--output-dir", &f.path("model")]).refused(1, &["not empty", "--force"]);
}

#[test]
fn values_may_follow_an_equals_sign_and_aliases_work() {
    let f = fixture();
    let model = f.path("model");
    let a = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "the",
        "--max-tokens",
        "4",
        "--json",
    ])
    .json();
    let b = onebit(&[
        "generate",
        &format!("--model-dir={model}"),
        "--prompt=the",
        "--max-tokens=4",
        "--json",
    ])
    .json();
    assert_eq!(a["ids"], b["ids"]);
}
