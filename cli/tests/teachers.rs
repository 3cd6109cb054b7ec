//! Training runs with teachers: given, trained first, and those of presets.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::Path;

use common::{fixture, onebit};

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model.safetensors")).unwrap()
}

/// A run as it was when the teacher `kept` had been trained and nothing after it had begun.
fn leave_alone(run: &Path, kept: &str) {
    for entry in fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with(kept) => {}
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }
}

#[test]
fn a_model_learns_from_teachers() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (teacher, out) = (f.path("model"), dir.path().join("taught"));
    let args = f.train(&out, &["--teacher", &teacher, "--teacher", &teacher, "--json"]);
    assert_eq!(onebit(&args).json()["steps"], 3);
    let alone = dir.path().join("alone");
    onebit(&f.train(&alone, &[])).ok();
    assert_ne!(weights(&out), weights(&alone));
    let plan = |more: &[&str]| onebit(&f.train(&out, &[&["--dry-run", "--json"], more].concat())).json();
    let memory = plan(&["--teacher", &teacher])["memory_bytes"]["teachers"]
        .as_u64()
        .unwrap();
    assert!(memory > 0 && plan(&[])["memory_bytes"]["teachers"] == 0);
    let refused = |more: &[&str]| onebit(&f.train(&dir.path().join("x"), more));
    refused(&["--teacher-weight", "0.5"]).refused(2, &["--teacher"]);
    refused(&["--teacher", &teacher, "--teacher-weight", "2"]).refused(2, &["teacher-weight"]);
    refused(&["--teacher", "nowhere"]).refused(1, &["--teacher", "nowhere"]);
}

#[test]
fn a_run_can_train_its_teacher_first() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    let more = ["--teacher-steps", "2", "--json"];
    assert_eq!(onebit(&f.train(&whole, &more)).json()["steps"], 3);
    let teacher = whole.join("teacher");
    let of_teacher = fs::read_to_string(teacher.join("config.json")).unwrap();
    assert!(!of_teacher.contains("quantization_config"), "{of_teacher}");
    // As in two runs.
    let two = dir.path().join("two");
    onebit(&f.train(&two, &["--teacher", teacher.to_str().unwrap()])).ok();
    assert_eq!(weights(&whole), weights(&two));
    // An interruption between teacher and model: the teacher stays, and the model is trained as if nothing had been.
    let mut args = f.train(&parted, &more);
    onebit(&args).ok();
    leave_alone(&parted, "teacher");
    args.push("--resume".into());
    assert_eq!(onebit(&args).json()["steps"], 3);
    assert_eq!(weights(&whole), weights(&parted));
    let plan =
        |more: &[&str]| onebit(&f.train(&dir.path().join("x"), &[&["--dry-run", "--json"], more].concat())).json();
    let planned = plan(&["--teacher-steps", "2"]);
    assert_eq!(planned["teacher_steps"], 2);
    assert_eq!(
        planned["memory_bytes"]["teachers"],
        plan(&["--teacher", teacher.to_str().unwrap()])["memory_bytes"]["teachers"]
    );
    let refused = |more: &[&str]| onebit(&f.train(&dir.path().join("x"), more));
    refused(&["--teacher-steps", "2", "--teacher", "nowhere"]).refused(2, &["--teacher-steps"]);
    refused(&["--teacher-steps", "2", "--quant", "none"]).refused(2, &["--quant none"]);
}

#[test]
fn a_run_can_train_several_teachers_first() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    let more = ["--teacher-steps", "2", "--teacher-count", "2", "--seed", "5", "--json"];
    assert_eq!(onebit(&f.train(&whole, &more)).json()["steps"], 3);
    let teachers = [1, 2].map(|i| whole.join(format!("teacher-{i}")));
    assert!(!whole.join("teacher").exists());
    // The second is the one that a run with the next seed has.
    let next = dir.path().join("next");
    onebit(&f.train(&next, &["--teacher-steps", "2", "--seed", "6"])).ok();
    assert_eq!(weights(&next.join("teacher")), weights(&teachers[1]));
    assert_ne!(weights(&teachers[0]), weights(&teachers[1]));
    // As in runs of their own.
    let alone = dir.path().join("alone");
    let [first, second] = teachers.each_ref().map(|path| path.to_str().unwrap());
    onebit(&f.train(&alone, &["--teacher", first, "--teacher", second, "--seed", "5"])).ok();
    assert_eq!(weights(&whole), weights(&alone));
    // An interruption between the teachers: the first stays, the rest is made.
    let mut args = f.train(&parted, &more);
    onebit(&args).ok();
    leave_alone(&parted, "teacher-1");
    args.push("--resume".into());
    assert_eq!(onebit(&args).json()["steps"], 3);
    assert_eq!(weights(&whole), weights(&parted));
    let plan =
        |more: &[&str]| onebit(&f.train(&dir.path().join("x"), &[&["--dry-run", "--json"], more].concat())).json();
    let planned = plan(&["--teacher-steps", "2", "--teacher-count", "2"]);
    assert_eq!(
        (&planned["teacher_steps"], &planned["trained_teachers"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        planned["memory_bytes"]["teachers"],
        plan(&["--teacher", first, "--teacher", second])["memory_bytes"]["teachers"]
    );
    let refused = |more: &[&str]| onebit(&f.train(&dir.path().join("x"), more));
    refused(&["--teacher-count", "2"]).refused(2, &["--teacher-count", "--teacher-steps"]);
    for count in ["0", "65"] {
        refused(&["--teacher-steps", "2", "--teacher-count", count]).refused(2, &["--teacher-count", count]);
    }
}

/// The preset's teacher has its own shape and drops more; what is given holds for both runs.
#[test]
fn a_preset_can_have_a_teacher_of_another_shape() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("taught");
    let (tokens, tokenizer) = (f.path("text.tokens"), f.path("tokenizer.json"));
    let shared = [
        "--config",
        "wikitext2-35m",
        "--data",
        &tokens,
        "--tokenizer",
        &tokenizer,
    ];
    let short = ["--batch-size", "1", "--seq-len", "16", "--max-steps", "1", "--json"];
    let args = |out: &Path, more: &[&str]| -> Vec<String> {
        let given = [&shared[..], &short, &["--output-dir", out.to_str().unwrap()], more].concat();
        ["train"].into_iter().chain(given).map(String::from).collect()
    };
    let made = args(
        &out,
        &[
            "--teacher-steps",
            "1",
            "--teacher-count",
            "1",
            "--input-dropout",
            "0.3",
            "--logit-softcap",
            "30",
        ],
    );
    assert_eq!(onebit(&made).json()["steps"], 1);
    let config = |run: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(run.join("config.json")).unwrap()).unwrap()
    };
    assert_eq!(config(&out)["hidden_size"], 448);
    let teacher = out.join("teacher");
    assert_eq!(config(&teacher)["hidden_size"], 320);
    // The teacher is that preset's twin under the dropout that the preset gives its teacher.
    let twin = dir.path().join("twin");
    let dropout = ["--dropout", "0.2", "--output-dropout", "0.5", "--word-dropout", "0.2"];
    let given = ["--quant", "none", "--input-dropout", "0.3", "--logit-softcap", "30"];
    let more = [&given[..], &dropout].concat();
    let mut alone = args(&twin, &more);
    alone[2] = "wikitext2-25m".into();
    onebit(&alone).ok();
    assert_eq!(weights(&twin), weights(&teacher));
}

/// A preset states what came of a run: with its options, as trainer/EXPERIMENTS.md has them.
#[test]
fn presets_have_the_options_of_the_runs_that_were_measured() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (tokens, tokenizer) = (f.path("text.tokens"), f.path("tokenizer.json"));
    let options = |config: &str, more: &[&str]| {
        let shared = ["train", "--dry-run", "--json", "--config", config, "--data", &tokens];
        let args = [&shared[..], &["--tokenizer", &tokenizer, "--seed", "1"], more].concat();
        let facts = onebit(&args).json();
        ["options", "teacher_steps", "trained_teachers"].map(|key| facts[key].clone())
    };
    let dropout = [
        ["--word-dropout", "0.05"],
        ["--input-dropout", "0.2"],
        ["--dropout", "0.05"],
        ["--output-dropout", "0.2"],
    ];
    for (preset, [hidden, layers, heads], teachers) in [
        ("wikitext2-25m", [320, 10, 5], "3"),
        ("wikitext2-35m", [448, 8, 7], "2"),
    ] {
        // As the runs were made: from a file of the shape, which has the defaults of any model.
        let shape = serde_json::json!({
            "model_type": "bitnet", "vocab_size": 33278, "hidden_size": hidden, "intermediate_size": 4 * hidden,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
            "max_position_embeddings": 256, "hidden_act": "relu2", "tie_word_embeddings": true,
            "onebit": {"qk_norm": true, "sub_norms": true, "feed_forward": "relu2"},
        });
        let file = dir.path().join(format!("{preset}.json"));
        fs::write(&file, shape.to_string()).unwrap();
        let explicit = [
            ["--batch-size", "64"],
            ["--seq-len", "256"],
            ["--accumulation-steps", "1"],
            ["--max-steps", "6000"],
            ["--optimizer", "muon"],
            ["--lr", "0.014"],
            ["--lr-decay", "linear"],
            ["--quant-warmup-steps", "1200"],
            ["--quant-anneal-steps", "1200"],
            ["--teacher-steps", "6000"],
            ["--teacher-count", teachers],
            ["--teacher-weight", "0.8"],
        ];
        let quiet = ["--eval-every", "0", "--save-every", "0"];
        let explicit = [&explicit[..], &dropout].concat().concat();
        let measured = options(file.to_str().unwrap(), &[&explicit[..], &quiet].concat());
        assert_eq!(options(preset, &quiet), measured, "{preset}");
    }
}
