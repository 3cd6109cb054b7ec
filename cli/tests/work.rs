//! The commands at work on tiny inputs.
#![cfg(feature = "train")]

mod common;

use std::fs;

use common::{fixture, onebit, onebit_with, text, with_input};
use onebit_kernels_cpu::Isa;

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} {b}");
}

#[test]
fn a_text_and_its_token_file_score_the_same() {
    let f = fixture();
    let model = f.path("model");
    let a = onebit(&["eval", "--model", &model, "--data", &f.path("text.txt"), "--json"]).json();
    let b = onebit(&[
        "eval",
        "--model",
        &model,
        "--data",
        &f.path("text.tokens"),
        "--json",
        "--threads",
        "1",
    ])
    .json();
    for key in ["loss", "ppl", "word_ppl", "bpb", "tokens", "words", "bytes"] {
        close(a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
    }
    let source = text(200);
    assert_eq!(a["bytes"], source.len());
    assert_eq!(a["words"], 200 * 8);
    let nats = a["loss"].as_f64().unwrap() * a["tokens"].as_f64().unwrap();
    close(a["bpb"].as_f64().unwrap(), nats / 2f64.ln() / source.len() as f64);
    close(a["word_ppl"].as_f64().unwrap(), (nats / 1600.0).exp());
}

#[test]
fn the_loss_of_given_ids_follows_from_their_logits() {
    let f = fixture();
    let args = ["eval", "--model", &f.path("model"), "--ids", "5,17,42,9", "--json"];
    let loss = onebit(&args).json()["loss"].as_f64().unwrap();
    let logits = onebit(&[&args[..], &["--logits"]].concat()).json();
    assert_eq!(logits["ids"], serde_json::json!([5, 17, 42, 9]));
    let rows: Vec<Vec<f64>> = serde_json::from_value(logits["logits"].clone()).unwrap();
    assert_eq!((rows.len(), rows[0].len()), (4, 320));
    let nll = |row: &[f64], target: usize| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[target];
    let expected = (nll(&rows[0], 17) + nll(&rows[1], 42) + nll(&rows[2], 9)) / 3.0;
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
    onebit(&["eval", "--model", &f.path("model"), "--ids", "5,320"]).refused(1, &["320"]);
    onebit(&["eval", "--model", &f.path("model"), "--ids", "5"]).refused(1, &["at least two"]);
}

#[test]
fn text_streams_and_does_not_depend_on_threads() {
    let f = fixture();
    let model = f.path("model");
    let args = [
        "generate",
        "--model",
        &model,
        "--prompt",
        "the cow",
        "--max-tokens",
        "20",
        "--seed",
        "7",
    ];
    let json = onebit(&[&args[..], &["--json", "--threads", "2"]].concat()).json();
    assert_eq!(
        json["tokens"].as_u64().unwrap() as usize,
        json["ids"].as_array().unwrap().len()
    );
    assert!(json["tok_s"].as_f64().unwrap() > 0.0 && json["ttft_ms"].as_f64().unwrap() > 0.0);
    let streamed = onebit(&[&args[..], &["--threads", "1"]].concat()).ok();
    assert_eq!(streamed, format!("the cow{}\n", json["text"].as_str().unwrap()));
    let other = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "the cow",
        "--max-tokens",
        "20",
        "--seed",
        "8",
        "--json",
    ])
    .json();
    assert_ne!(json["ids"], other["ids"]);
    let none = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "the",
        "--max-tokens",
        "0",
        "--json",
    ])
    .json();
    assert_eq!((&none["tokens"], &none["text"]), (&0.into(), &"".into()));
}

#[test]
fn onebit_isa_takes_every_path_of_this_cpu_to_the_same_logits() {
    let f = fixture();
    let model = f.path("model");
    let eval = [
        "eval",
        "--device",
        "cpu",
        "--model",
        &model,
        "--ids",
        "5,17,42,9,9,310,0",
        "--logits",
        "--json",
    ];
    let generate = [
        "generate",
        "--device",
        "cpu",
        "--model",
        &model,
        "--prompt",
        "the cow",
        "--temperature",
        "0",
        "--max-tokens",
        "20",
    ];
    let usual = (onebit(&eval).json(), onebit(&generate).ok());
    for isa in Isa::available() {
        let forced = |args: &[&str]| onebit_with(args, "ONEBIT_ISA", isa.name());
        assert_eq!(forced(&eval).json(), usual.0, "{}", isa.name());
        let generated = forced(&generate);
        // The command says which path it took.
        assert!(
            generated.stderr.contains(&format!("cpu ({},", isa.name())),
            "{generated:?}"
        );
        assert_eq!(generated.ok(), usual.1, "{}", isa.name());
    }
    onebit_with(&eval, "ONEBIT_ISA", "avx1024").refused(1, &["avx1024"]);
}

#[test]
fn reading_ahead_changes_no_token() {
    let f = fixture();
    let model = f.path("model");
    let mut accepted = 0;
    for sampling in [["--temperature", "0"], ["--temperature", "0.7"]] {
        let run = |lookahead: &str| {
            let args = [
                "generate",
                "--model",
                &model,
                "--prompt",
                "the cow found a red shell and the cow found a red",
                "--max-tokens",
                "60",
                "--repetition-penalty",
                "1",
                "--lookahead",
                lookahead,
                "--json",
            ];
            onebit(&[&args[..], &sampling].concat()).json()
        };
        let (with, without) = (run("8"), run("0"));
        assert_eq!(with["ids"], without["ids"]);
        assert_eq!(without["drafted_tokens"], 0);
        accepted += with["accepted_tokens"].as_u64().unwrap();
    }
    assert!(accepted > 0);
    onebit(&["generate", "--model", &model, "--lookahead", "9"]).refused(2, &["--lookahead", "0 to 8"]);
}

#[test]
fn the_type_of_the_cache_reaches_the_model() {
    let f = fixture();
    let model = f.path("model");
    let eval = |more: &[&str]| {
        let args = ["eval", "--model", &model, "--ids", "5,17,42,9,8,100,3", "--json"];
        onebit(&[&args[..], more].concat()).json()
    };
    let loss = |kv: &str| eval(&["--kv-type", kv])["loss"].as_f64().unwrap();
    let exact = eval(&[])["loss"].as_f64().unwrap();
    assert_eq!(loss("f32"), exact);
    for (kv, most) in [("f16", 1e-2), ("int8", 0.1)] {
        let difference = (loss(kv) - exact).abs();
        assert!(difference > 0.0 && difference < most, "{kv}: {difference}");
        assert_ne!(eval(&["--logits", "--kv-type", kv]), eval(&["--logits"]), "{kv}");
    }
    let said = |kv: &str| {
        let args = [
            "generate",
            "--model",
            &model,
            "--max-tokens",
            "5",
            "--json",
            "--kv-type",
            kv,
        ];
        onebit(&args).json()["tokens"].as_u64().unwrap()
    };
    assert!(said("f16") > 0 && said("int8") > 0);
    for asked in [&["generate"][..], &["chat"], &["eval", "--ids", "5,6"]] {
        let args = [asked, &["--model", &model, "--kv-type", "f8"]].concat();
        onebit(&args).refused(2, &["--kv-type", "f32, f16, int8"]);
    }
    onebit(&["bench", "train", "--kv-type", "f16"]).refused(2, &["--kv-type", "bench decode and prefill"]);
}

#[test]
fn prompts_may_be_empty_or_longer_than_the_context() {
    let f = fixture();
    let model = f.path("model");
    let empty = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "",
        "--max-tokens",
        "5",
        "--json",
    ])
    .json();
    assert_eq!(empty["prompt_tokens"], 1);
    assert!(empty["tokens"].as_u64().unwrap() >= 1);
    let long = text(30);
    let ran = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        &long,
        "--max-tokens",
        "8",
        "--json",
        "--temperature",
        "0",
    ]);
    assert!(ran.stderr.contains("most recent"), "{}", ran.stderr);
    let long = ran.json();
    let (prompt, dropped) = (
        long["prompt_tokens"].as_u64().unwrap(),
        long["dropped_tokens"].as_u64().unwrap(),
    );
    assert_eq!(
        prompt - dropped,
        32 - 8,
        "the rest of the context of 32 is for the answer"
    );
    // Past the context of 32 the window slides.
    let past = onebit(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "the",
        "--max-tokens",
        "100",
        "--json",
        "--stop",
        "\u{1}\u{1}\u{1}\u{1}",
    ])
    .json();
    assert!(past["tokens"] == 100 || past["finish"] == "end_token", "{past}");
}

#[test]
fn stop_strings_end_before_themselves() {
    let f = fixture();
    let args = [
        "generate",
        "--model",
        &f.path("model"),
        "--prompt",
        "the",
        "--max-tokens",
        "30",
        "--temperature",
        "0",
        "--json",
    ];
    let whole = onebit(&args).json()["text"].as_str().unwrap().to_string();
    let stop: String = whole.chars().skip(3).take(2).collect();
    let before = &whole[..whole.find(&stop).unwrap()];
    let cut = onebit(&[&args[..], &["--stop", &stop]].concat()).json();
    assert_eq!(
        (cut["text"].as_str().unwrap(), cut["finish"].as_str().unwrap()),
        (before, "stop_string")
    );
}

#[test]
fn a_conversation_keeps_its_history_until_it_is_reset() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.json");
    let save = format!("/save {}\n", file.display());
    let args = [
        "chat",
        "--model",
        &f.path("model"),
        "--system",
        "Moo.",
        "--max-tokens",
        "3",
        "--json",
    ];
    let ran = with_input(
        &args,
        &format!("hi\n\n/nonsense\nho\n{save}{save}/reset\nagain\n/quit\nnever\n"),
    );
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 3, "three answers: {}", ran.stdout);
    ran.stdout
        .lines()
        .for_each(|line| assert!(serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(
        ran.stderr.contains("/nonsense") && ran.stderr.contains("exists already"),
        "{}",
        ran.stderr
    );
    let saved: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let roles: Vec<&str> = saved.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(with_input(&args, "").status, Some(0), "the end of the input ends");
}

#[test]
fn inspect_counts_what_is_there() {
    let f = fixture();
    let model = onebit(&["inspect", &f.path("model"), "--tensors", "--json"]).json();
    let (h, i, v) = (32u64, 64u64, 320u64);
    let block = h * h * 2 + 2 * h * 16 + 3 * h * i + 3 * h + i;
    assert_eq!(model["parameters"].as_u64().unwrap(), v * h + 2 * block + h);
    let tensors = model["tensor_list"].as_array().unwrap();
    let bytes: u64 = tensors.iter().map(|t| t["bytes"].as_u64().unwrap()).sum();
    assert_eq!(model["packed_bytes"].as_u64().unwrap(), bytes);
    assert!(
        tensors
            .iter()
            .any(|t| t["storage"] == "ternary" && t["zero_fraction"].as_f64().unwrap() > 0.0)
    );
    let tokens = onebit(&["inspect", &f.path("text.tokens"), "--json"]).json();
    assert_eq!(
        (&tokens["kind"], &tokens["source_words"]),
        (&"tokens".into(), &1600.into())
    );
    let checkpoint = onebit(&["inspect", &f.path("model/checkpoints/step-3"), "--json"]).json();
    assert_eq!(
        (&checkpoint["kind"], &checkpoint["step"]),
        (&"checkpoint".into(), &3.into())
    );
    let file = onebit(&["inspect", &f.path("model/model.safetensors"), "--json"]).json();
    assert_eq!(file["tensors"].as_u64().unwrap() as usize, tensors.len());
}

#[test]
fn wikitext_is_copied_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("wiki.train.tokens"), " = A = \n a b <unk> \n").unwrap();
    fs::write(from.join("valid.txt"), "c\n").unwrap();
    let args = [
        "data",
        "wikitext2",
        "--from",
        from.to_str().unwrap(),
        "--output-dir",
        to.to_str().unwrap(),
        "--json",
    ];
    let splits = onebit(&args).json();
    assert_eq!(
        (&splits[0]["words"], &splits[0]["lines"], &splits[1]["split"]),
        (&6.into(), &2.into(), &"valid".into())
    );
    assert_eq!(
        fs::read(to.join("train.txt")).unwrap(),
        fs::read(from.join("wiki.train.tokens")).unwrap()
    );
    onebit(&args).refused(1, &["exists already"]);
}

#[test]
fn the_bench_of_a_model_and_the_doctor_report_fractions() {
    let f = fixture();
    for what in ["decode", "prefill", "train"] {
        let args = [
            "bench",
            what,
            "--model",
            &f.path("model"),
            "--tokens",
            "16",
            "--threads",
            "1",
            "--json",
        ];
        let report = onebit(&args).json();
        for key in [
            "tok_s",
            "bytes_per_token",
            "bandwidth_gb_s",
            "fraction_of_bandwidth",
            "peak_ops",
            "fraction_of_peak",
        ] {
            assert!(report[key].as_f64().unwrap() > 0.0, "{what} {key}: {report}");
        }
        assert_eq!(report["threads"], 1);
    }
    let doctor = onebit(&["doctor", "--json", "--threads", "1"]).json();
    let paths = doctor["paths"].as_array().unwrap();
    assert!(
        !paths.is_empty() && paths.iter().all(|path| path["self_test"] == true),
        "{doctor}"
    );
}
