//! Training runs on tiny inputs: interrupted, on a full disk, from another model, and the quickstart.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::process::Stdio;

use common::{command, fixture, onebit};

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let facts = onebit(&f.train(&out, &["--dry-run", "--json"])).json();
    assert_eq!(facts["options"]["max_steps"], 3);
    let memory = &facts["memory_bytes"];
    assert_eq!(
        memory["weights"].as_u64().unwrap(),
        4 * facts["parameters"].as_u64().unwrap()
    );
    assert!(memory["total"].as_u64().unwrap() > memory["weights"].as_u64().unwrap() * 4);
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    let more = ["--max-steps", "400"];
    onebit(&f.train(&whole, &more)).ok();
    let child = command(&f.train(&parted, &more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Some steps in, by its own account.
    let metrics = parted.join("metrics.jsonl");
    while fs::metadata(&metrics).map_or(0, |m| m.len()) < 2_000 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(String::from_utf8_lossy(&ended.stderr).contains("--resume"));
    onebit(&f.train(&parted, &["--max-steps", "401", "--resume"])).refused(1, &["options"]);
    let resumed = onebit(&f.train(&parted, &["--max-steps", "400", "--resume", "--json"]));
    assert!(resumed.stderr.contains("resumed from"), "{}", resumed.stderr);
    assert_eq!(resumed.json()["steps"], 400);
    for file in [
        "model.safetensors",
        "metrics.jsonl",
        "config.json",
        "generation_config.json",
    ] {
        assert_eq!(
            fs::read(whole.join(file)).unwrap(),
            fs::read(parted.join(file)).unwrap(),
            "{file}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_no_checkpoint() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    let more = ["--max-steps", "4", "--save-every", "2", "--keep", "3"];
    onebit(&f.train(&whole, &more)).ok();
    onebit(&f.train(&parted, &more)).ok();
    fs::remove_dir_all(parted.join("checkpoints/step-4")).unwrap();
    // A limit on the size of a file stands in for the disk: the write that passes it fails, as on a full one.
    let within = |kib: u32, args: &[String]| {
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kib);
        let program = env!("CARGO_BIN_EXE_onebit");
        let run = std::process::Command::new("sh")
            .args(["-c", &script, program])
            .args(args)
            .output();
        run.unwrap()
    };
    let resume: Vec<String> = f.train(&parted, &[&more[..], &["--resume"]].concat());
    let failed = within(50, &resume);
    let message = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{message}");
    assert!(errors[0].contains("step-4"), "{message}");
    assert!(parted.join("checkpoints/step-2").is_dir() && !parted.join("checkpoints/step-4").exists());
    let resumed = onebit(&resume);
    assert!(resumed.stderr.contains("step 2"), "{}", resumed.stderr);
    resumed.ok();
    for file in ["model.safetensors", "metrics.jsonl"] {
        assert_eq!(
            fs::read(whole.join(file)).unwrap(),
            fs::read(parted.join(file)).unwrap(),
            "{file}"
        );
    }
    // A token file that cannot be finished leaves the earlier one as it was.
    let tokens = dir.path().join("text.tokens").to_str().unwrap().to_string();
    let (text, tokenizer) = (f.path("text.txt"), f.path("tokenizer.json"));
    let args = [
        "tokenize",
        "--input",
        &text,
        "--tokenizer",
        &tokenizer,
        "--output",
        &tokens,
        "--force",
    ];
    let args: Vec<String> = args.iter().map(|s| s.to_string()).collect();
    onebit(&args).ok();
    let before = fs::read(&tokens).unwrap();
    let failed = within(1, &args);
    assert_eq!(
        failed.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&failed.stderr)
    );
    assert_eq!(fs::read(&tokens).unwrap(), before);
}

#[test]
fn a_model_can_be_trained_on_from_another() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut args = f.train(&out, &["--init-from", &f.path("model"), "--json"]);
    let config = args.iter().position(|a| a == "--config").unwrap();
    args.drain(config..config + 2);
    let trained = onebit(&args).json();
    let first = onebit(&[
        "eval",
        "--model",
        &f.path("model"),
        "--data",
        &f.path("text.txt"),
        "--json",
    ])
    .json();
    let then = onebit(&[
        "eval",
        "--model",
        out.to_str().unwrap(),
        "--data",
        &f.path("text.txt"),
        "--json",
    ])
    .json();
    assert_eq!(trained["steps"], 3);
    assert!(then["loss"].as_f64().unwrap() < first["loss"].as_f64().unwrap());
}

/// Weights of one model, modes of another's configuration: hard from the first step, from floats and from what is packed.
#[test]
fn a_model_can_be_trained_on_under_another_map() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let model = f.path("model");
    let packed = path("m.1bit");
    onebit(&["export", "--model", &model, "--format", "1bit", "--output", &packed]).ok();
    let read = |path: &str| -> serde_json::Value { serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap() };
    let mut config = read(&format!("{model}/config.json"));
    let layers = config["num_hidden_layers"].as_u64().unwrap() as usize;
    // It says that linears are ternary, for others to read.
    config.as_object_mut().unwrap().remove("quantization_config");
    config["layer_bit_map"] = serde_json::json!({ "layer_modes": vec!["binary"; layers] });
    fs::write(path("map.json"), config.to_string()).unwrap();
    let from = |source: &str, map: &str, out: &str| {
        let phases = ["--quant-warmup-steps", "0", "--quant-anneal-steps", "0"];
        let more = [&["--config", map, "--init-from", source, "--json"], &phases[..]].concat();
        onebit(&f.train(out.as_ref(), &more))
    };
    for (source, out) in [(&model, path("a")), (&packed, path("b"))] {
        let trained = from(source, &path("map.json"), &out).json();
        assert_eq!(trained["steps"], 3);
        let metrics = fs::read_to_string(format!("{out}/metrics.jsonl")).unwrap();
        assert!(metrics.lines().next().unwrap().contains("hard"), "{metrics}");
        let written = fs::read_to_string(format!("{out}/config.json")).unwrap();
        assert!(written.contains("binary") && !written.contains("ternary"), "{written}");
    }
    config["rms_norm_eps"] = serde_json::json!(0.125);
    fs::write(path("other.json"), config.to_string()).unwrap();
    from(&model, &path("other.json"), &path("c")).refused(1, &["rms_norm_eps", "0.125"]);
    assert!(!dir.path().join("c").exists(), "a refusal makes nothing");
}

#[test]
fn a_model_can_be_trained_in_full_precision_or_binary() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    for (quant, form) in [("none", "f32"), ("binary", "binary"), ("ternary", "ternary")] {
        let out = dir.path().join(quant);
        let mut args = f.train(&out, &["--quant", quant, "--json"]);
        if quant == "none" {
            onebit(&args).refused(2, &["--quant none"]);
            for phase in ["--quant-warmup-steps", "--quant-anneal-steps"] {
                let at = args.iter().position(|a| a == phase).unwrap();
                args.drain(at..at + 2);
            }
        }
        assert_eq!(onebit(&args).json()["steps"], 3, "{quant}");
        // What the packed form has of it.
        let packed = dir.path().join(format!("{quant}.1bit"));
        let (model, file) = (out.to_str().unwrap(), packed.to_str().unwrap());
        onebit(&["export", "--model", model, "--format", "1bit", "--output", file]).ok();
        let facts = onebit(&["inspect", file, "--tensors"]).ok();
        let line = facts.lines().find(|line| line.contains("down_proj")).unwrap();
        assert!(line.contains(form), "{quant}: {line}");
        let text = f.path("text.txt");
        let loss = &onebit(&["eval", "--model", model, "--data", &text, "--json"]).json()["loss"];
        assert!(loss.as_f64().unwrap().is_finite(), "{quant}: {loss}");
    }
    let out = dir.path().join("x");
    onebit(&f.train(&out, &["--quant", "int3"])).refused(2, &["--quant", "int3"]);
}

#[test]
fn a_soft_cap_is_part_of_the_model() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (plain, whole) = (path("plain"), path("whole"));
    onebit(&f.train(plain.as_ref(), &[])).ok();
    // So low a cap that it is felt.
    let capped = |out: &str, more: &[&str]| f.train(out.as_ref(), &[&["--logit-softcap", "0.25"], more].concat());
    onebit(&capped(&whole, &[])).ok();
    let read = |run: &str, name: &str| fs::read(std::path::Path::new(run).join(name)).unwrap();
    let config = String::from_utf8(read(&whole, "config.json")).unwrap();
    assert!(config.contains("\"final_logit_softcapping\": 0.25"), "{config}");
    let weights = "model.safetensors";
    assert_ne!(
        read(&whole, weights),
        read(&plain, weights),
        "it is trained with the cap"
    );
    // The logits are the same out of every file that can say what they are, and within the cap.
    let logits = |model: &str| onebit(&["eval", "--model", model, "--ids", "1,7,4,9", "--logits", "--json"]).json();
    let expected = logits(&whole);
    let rows = expected["logits"].as_array().unwrap();
    let mut all = rows.iter().flat_map(|row| row.as_array().unwrap());
    assert!(all.all(|logit| logit.as_f64().unwrap().abs() < 0.25));
    let (packed, again) = (path("m.1bit"), path("again"));
    onebit(&["export", "--model", &whole, "--format", "1bit", "--output", &packed]).ok();
    onebit(&["import", &packed, "--output-dir", &again]).ok();
    for model in [&packed, &again] {
        assert_eq!(logits(model), expected, "{model}");
    }
    let gguf = path("m.gguf");
    onebit(&["export", "--model", &whole, "--format", "gguf", "--output", &gguf])
        .refused(1, &["final_logit_softcapping"]);
    // Trained on, a model keeps its cap, and none is put on it.
    let from = |out: &str, more: &[&str]| {
        let mut args = f.train(out.as_ref(), &[&["--init-from", &whole], more].concat());
        let config = args.iter().position(|a| a == "--config").unwrap();
        args.drain(config..config + 2);
        onebit(&args)
    };
    let on = path("on");
    from(&on, &[]).ok();
    let config = String::from_utf8(read(&on, "config.json")).unwrap();
    assert!(config.contains("\"final_logit_softcapping\": 0.25"), "{config}");
    from(&path("x"), &["--logit-softcap", "9"]).refused(2, &["--logit-softcap", "--init-from"]);
}

#[test]
fn quickstart_trains_packs_and_tells() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("quick");
    let report = onebit(&[
        "quickstart",
        "--steps",
        "4",
        "--output-dir",
        out.to_str().unwrap(),
        "--json",
    ])
    .json();
    for key in ["bpb", "entropy_bpb", "valid_fraction", "seconds"] {
        assert!(report[key].as_f64().is_some(), "{key}: {report}");
    }
    assert!(
        report["bpb"].as_f64().unwrap() > report["entropy_bpb"].as_f64().unwrap(),
        "no model beats the entropy"
    );
    let model = report["model"].as_str().unwrap();
    assert_eq!(onebit(&["inspect", model, "--json"]).json()["kind"], "model");
    // The suite codes and tells as the quickstart did, and its agreement is of many pairs.
    let suite = onebit(&["eval", "--model", model, "--stories", "--seed", "42", "--json"]).json();
    for key in ["bpb", "entropy_bpb", "valid_fraction"] {
        assert_eq!(suite[key], report[key], "{key}");
    }
    assert!((0.0..=1.0).contains(&suite["agreement"].as_f64().unwrap()), "{suite}");
    assert!(suite["slots"]["hero"]["pairs"].as_u64().unwrap() > 20, "{suite}");
    onebit(&["eval", "--model", model, "--stories", "--data", "x"]).refused(2, &["--stories", "--data"]);
    onebit(&["eval", "--model", model, "--ids", "1,2", "--seed", "1"]).refused(2, &["--seed", "--stories"]);
    assert!(
        fs::read_to_string(report["curves"].as_str().unwrap())
            .unwrap()
            .starts_with("<svg")
    );
}

#[test]
fn quickstart_trains_other_presets() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("small");
    let path = out.to_str().unwrap();
    let args = [
        "quickstart",
        "--config",
        "stories-mcu",
        "--steps",
        "2",
        "--device",
        "cpu",
    ];
    let report = onebit(&[&args[..], &["--output-dir", path, "--json"]].concat()).json();
    assert_eq!(report["steps"], 2);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["num_attention_heads"], &config["num_key_value_heads"]),
        (&16.into(), &4.into())
    );
}

/// A file of several divisions of the text trains as any other and resumes to the same bytes; only its own making knows of it.
#[test]
fn a_run_on_a_text_in_many_divisions_resumes_to_the_same_bytes() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (text, tokenizer) = (f.path("text.txt"), f.path("tokenizer.json"));
    let tokenize = |output: &str, more: &[&str]| {
        let args = [
            "tokenize",
            "--json",
            "--input",
            &text,
            "--tokenizer",
            &tokenizer,
            "--output",
        ];
        let made = onebit(&[&args[..], &[output], more].concat()).json();
        (fs::read(output).unwrap(), made)
    };
    let three = ["--bpe-dropout", "0.1", "--passes", "3", "--seed", "5"];
    let (bytes, made) = tokenize(&at("a.tokens"), &three);
    assert_eq!(
        tokenize(&at("b.tokens"), &[&three[..], &["--threads", "2"]].concat()).0,
        bytes
    );
    let other = ["--bpe-dropout", "0.1", "--passes", "3", "--seed", "6"];
    assert_ne!(tokenize(&at("c.tokens"), &other).0, bytes);
    let usual = fs::read(f.path("text.tokens")).unwrap();
    let (none, plain) = tokenize(&at("d.tokens"), &["--bpe-dropout", "0"]);
    assert_eq!(none, usual, "nothing left out is the usual file");
    assert!(plain.get("bpe_dropout").is_none());
    assert_eq!(made["bpe_dropout"]["passes"], 3);
    assert_eq!(
        made["source_words"].as_u64().unwrap(),
        3 * plain["source_words"].as_u64().unwrap()
    );
    assert!(made["tokens"].as_u64().unwrap() > 3 * plain["tokens"].as_u64().unwrap());

    let (data, val) = (at("a.tokens"), f.path("text.tokens"));
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    let more = [
        "--data",
        &data,
        "--val",
        &val,
        "--max-steps",
        "6",
        "--save-every",
        "3",
        "--keep",
        "2",
    ];
    onebit(&f.train(&whole, &more)).ok();
    onebit(&f.train(&parted, &more)).ok();
    // As if the run had ended after step 3.
    fs::remove_dir_all(parted.join("checkpoints/step-6")).unwrap();
    onebit(&f.train(&parted, &[&more[..], &["--resume"]].concat())).ok();
    for file in ["model.safetensors", "metrics.jsonl"] {
        assert!(
            fs::read(whole.join(file)).unwrap() == fs::read(parted.join(file)).unwrap(),
            "{file}"
        );
    }
    // Scoring divides the text as ever: a token for each of the usual file's but the first, and the last, which ends the document.
    let model = whole.to_str().unwrap();
    let scored = onebit(&["eval", "--json", "--model", model, "--data", &text]).json();
    let usual = plain["tokens"].as_u64().unwrap();
    assert!(
        (usual - 2..=usual).contains(&scored["tokens"].as_u64().unwrap()),
        "{scored} {plain}"
    );
    assert_eq!(scored["words"], plain["source_words"]);
}
