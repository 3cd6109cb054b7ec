//! `--device cuda` against `--device cpu`: the same tokens, the same losses. Needs a GPU, or the emulator (`kernels-cuda/emulator`).
#![cfg(feature = "train")]

mod common;

use std::path::PathBuf;
use std::sync::OnceLock;

use common::{CONFIG, Ran, fixture, onebit, with_input};
use onebit_kernels_cuda::Gpu;
use serde_json::Value;

/// A model with heads that the GPU has a kernel for; none without a GPU, which test `name` tells.
fn model(name: &str) -> Option<String> {
    if let Err(error) = Gpu::open(0) {
        println!("SKIPPED (no GPU): {name}; {error}");
        return None;
    }
    static MODEL: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MODEL.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (config, model) = (dir.path().join("config.json"), dir.path().join("model"));
        let heads = CONFIG
            .replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 2")
            .replace("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 1");
        std::fs::write(&config, heads).expect("written");
        let config = config.to_str().expect("UTF-8");
        onebit(&fixture().train(&model, &["--config", config, "--max-steps", "40"])).ok();
        (dir, model)
    });
    Some(path.to_str().expect("UTF-8").to_string())
}

fn on(device: &str, command: &str, model: &str, more: &[&str]) -> Ran {
    let args = [command, "--model", model, "--device", device, "--threads", "1"];
    onebit(&[&args[..], more].concat())
}

/// The JSON of a command without what is a matter of time.
fn without_times(mut json: Value) -> Value {
    let fields = json.as_object_mut().expect("an object");
    for name in ["tok_s", "ttft_ms", "drafted_tokens", "accepted_tokens"] {
        fields.remove(name);
    }
    json
}

#[test]
fn a_text_is_the_same_on_both_devices() {
    let Some(model) = model("generate") else { return };
    let long = ["--prompt", "the cow found", "--max-tokens", "40", "--json"];
    for more in [
        // Past the context, which slides; and with what is read ahead.
        &["--temperature", "0", "--repetition-penalty", "1"][..],
        &["--seed", "3", "--kv-type", "f16", "--lookahead", "8"],
        &["--seed", "4", "--kv-type", "int8", "--logprobs", "2", "--head", "int8"],
    ] {
        let run = |device| without_times(on(device, "generate", &model, &[&long[..], more].concat()).json());
        assert_eq!(run("cuda"), run("cpu"), "{more:?}");
    }
}

#[test]
fn a_prompt_cache_goes_from_one_device_to_the_other() {
    let Some(model) = model("prompt caches") else { return };
    let dir = tempfile::tempdir().unwrap();
    for kv in ["f32", "f16", "int8"] {
        let paths = ["cpu", "cuda"].map(|device| dir.path().join(format!("{kv}-{device}")));
        let run = |device, path: &PathBuf| {
            let prompt = ["--prompt", "the cow found a red shell", "--max-tokens", "6", "--json"];
            let cache = ["--prompt-cache", path.to_str().unwrap(), "--kv-type", kv];
            without_times(on(device, "generate", &model, &[&prompt[..], &cache].concat()).json())
        };
        let written = [run("cpu", &paths[0]), run("cuda", &paths[1])];
        assert_eq!(written[0], written[1], "{kv}");
        let bytes = paths.each_ref().map(|path| std::fs::read(path).unwrap());
        assert_eq!(bytes[0], bytes[1], "{kv}");
        assert_eq!(run("cuda", &paths[0]), run("cpu", &paths[1]), "{kv}: taken up");
    }
}

#[test]
fn a_score_is_the_same_on_both_devices() {
    let Some(model) = model("eval") else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.txt");
    std::fs::write(&text, common::text(20)).unwrap();
    let text = text.to_str().unwrap();
    for more in [&["--stride", "9"][..], &["--kv-type", "int8"]] {
        let run = |device| {
            let args = [&["--data", text, "--json"], more].concat();
            without_times(on(device, "eval", &model, &args).json())
        };
        assert_eq!(run("cuda"), run("cpu"), "{more:?}");
    }
    let ids: Vec<String> = (0..21).map(|i| (i * 7 % 290).to_string()).collect();
    let run = |device| on(device, "eval", &model, &["--ids", &ids.join(","), "--logits", "--json"]).json();
    assert_eq!(run("cuda"), run("cpu"));
}

#[test]
fn a_conversation_is_the_same_on_both_devices() {
    let Some(model) = model("chat") else { return };
    let run = |device| {
        let args = [
            "chat",
            "--model",
            &model,
            "--device",
            device,
            "--max-tokens",
            "6",
            "--json",
        ];
        let answers = with_input(&args, "the cow\nand Anna\n").ok();
        let parse = |line: &str| without_times(serde_json::from_str(line).expect("JSON"));
        answers.lines().map(parse).collect::<Vec<Value>>()
    };
    let answers = run("cuda");
    assert_eq!(answers.len(), 2);
    assert_eq!(answers, run("cpu"));
}

#[test]
fn what_a_gpu_cannot_run_is_told_or_run_by_the_cpu() {
    let Some(model) = model("what a GPU cannot run") else {
        return;
    };
    // Heads of 8 values.
    let (narrow, ids) = (fixture().path("model"), ["--ids", "1,2", "--json"]);
    on("cuda", "eval", &narrow, &ids).refused(1, &["--device cuda:0", "attention", "--device cpu"]);
    let auto = on("auto", "eval", &narrow, &ids);
    assert!(auto.stderr.contains("note: cuda:0 is not used: attention"), "{auto:?}");
    auto.json();
    onebit(&["generate", "--model", &model, "--device", "cuda:99"]).refused(1, &["cuda:99", "--device cpu"]);
}

#[test]
fn a_head_of_half_bytes_writes_the_same_on_both() {
    let Some(model) = model("a head of half bytes") else {
        return;
    };
    let int4 = ["--prompt", "the cow", "--head", "int4", "--temperature", "0", "--json"];
    let [cuda, cpu] = ["cuda", "cpu"].map(|device| without_times(on(device, "generate", &model, &int4).json()));
    assert_eq!(cuda, cpu);
}

#[test]
fn benches_measure_the_gpu() {
    let Some(model) = model("bench") else { return };
    for (what, tokens) in [("decode", "11"), ("prefill", "20")] {
        let bench = ["bench", what, "--model", &model, "--device", "cuda", "--tokens", tokens];
        let report = onebit(&[&bench[..], &["--json"]].concat()).json();
        assert!(report["device"].as_str().unwrap().starts_with("cuda:0"), "{report}");
        for number in [
            "tok_s",
            "bytes_per_token",
            "bandwidth_gb_s",
            "fraction_of_bandwidth",
            "peak_ops",
        ] {
            assert!(report[number].as_f64().is_some_and(|x| x > 0.0), "{number}: {report}");
        }
        onebit(&bench).ok();
    }
}
