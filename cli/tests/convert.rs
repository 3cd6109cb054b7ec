//! Models on their way from one kind of file to another.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::Path;

use common::{fixture, onebit, testdata};

fn logits(model: &str) -> serde_json::Value {
    let args = ["eval", "--model", model, "--ids", "5,17,42,9,9", "--logits", "--json"];
    onebit(&args).json()["logits"].clone()
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_string()
}

#[test]
fn a_model_comes_back_through_every_kind_of_file() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| path(dir.path(), name);
    let (model, packed, one, back) = (f.path("model"), path("packed"), path("m.1bit"), path("back"));
    let export = |model: &str, format: &str, output: &str, more: &[&str]| {
        let args = [
            "export", "--model", model, "--format", format, "--output", output, "--json",
        ];
        onebit(&[&args[..], more].concat()).json()
    };
    let made = export(&model, "hf", &packed, &[]);
    assert_eq!(made["tokenizer"], true);
    let weights = fs::metadata(format!("{packed}/model.safetensors")).unwrap().len();
    assert_eq!(made["bytes"], weights);
    assert!(weights < fs::metadata(format!("{model}/model.safetensors")).unwrap().len() / 2);
    assert_eq!(logits(&packed), logits(&model));

    export(&packed, "1bit", &one, &[]);
    let imported = onebit(&["import", &one, "--output-dir", &back, "--json"]).json();
    assert_eq!(imported["bytes"], weights);
    for name in [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "generation_config.json",
    ] {
        let read = |dir: &str| fs::read(format!("{dir}/{name}")).ok();
        assert!(read(&packed) == read(&back), "{name}");
    }
    assert!(fs::exists(format!("{back}/tokenizer.json")).unwrap());
    // A file is known by what is in it.
    let nameless = path("nameless");
    fs::rename(&one, &nameless).unwrap();
    assert_eq!(logits(&nameless), logits(&model));

    // Float weights stay float weights, which training goes on from.
    let (master, imported) = (path("master"), path("imported"));
    export(&model, "hf", &master, &["--type", "master"]);
    onebit(&["import", &model, "--output-dir", &imported]).ok();
    let read = |dir: &str| fs::read(format!("{dir}/model.safetensors")).unwrap();
    assert!(read(&master) == read(&model) && read(&imported) == read(&model));
    assert_eq!(logits(&master), logits(&model));
    let halves = path("halves");
    export(&model, "hf", &halves, &["--head", "f16"]);
    let config = fs::read_to_string(format!("{halves}/config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"float16\""), "{config}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| path(dir.path(), name);
    let (model, packed, one) = (f.path("model"), path("packed"), path("m.1bit"));
    let export = |more: &[&str]| onebit(&[&["export", "--model"], more].concat());
    export(&[&model, "--format", "hf", "--output", &packed]).ok();
    export(&[&model, "--format", "hf", "--output", &packed]).refused(1, &["--output", "not empty", "--force"]);
    export(&[&model, "--format", "hf", "--output", &packed, "--force"]).ok();
    export(&[&packed, "--format", "hf", "--output", &packed, "--force"]).refused(1, &["is the model itself"]);
    let other = path("other");
    export(&[&packed, "--format", "hf", "--type", "master", "--output", &other]).refused(1, &["packed trits"]);
    export(&[&model, "--format", "hf", "--type", "t2", "--output", &other]).refused(2, &["--type", "packed or master"]);
    // Each format names the types that it has.
    for (format, output, head, wanted) in [
        ("hf", &other, "int8", "f32, f16 or bf16, found \"int8\""),
        ("hf", &other, "q8_0", "f32, f16 or bf16, found \"q8_0\""),
        ("1bit", &one, "q8_0", "f32, f16, bf16, int8, int4, found \"q8_0\""),
        ("1bit", &one, "stored", "found \"stored\""),
        ("gguf", &path("m.gguf"), "stored", "q4_0, found \"stored\""),
    ] {
        let refused = export(&[&model, "--format", format, "--head", head, "--output", output]);
        refused.refused(2, &["--head", wanted]);
    }
    export(&[&model, "--format", "hf", "--columns", "--output", &other]).refused(2, &["--columns", "1bit"]);
    export(&[&model, "--format", "zip", "--output", &other]).refused(2, &["--format", "1bit, hf or gguf"]);
    onebit(&["import", "--output-dir", &other]).refused(2, &["path"]);
    onebit(&["import", &path("none"), "--output-dir", &other]).refused(1, &["does not exist"]);
    fs::write(&one, "some text that is no model").unwrap();
    onebit(&["import", &one, "--output-dir", &other]).refused(1, &["m.1bit", "unknown kind"]);
    onebit(&["generate", "--model", &one, "--prompt", "x"]).refused(1, &["m.1bit", "unknown kind"]);
}

#[test]
fn a_header_lies_beside_the_file() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let one = path(dir.path(), "m.1bit");
    let export = |more: &[&str]| {
        let model = f.path("model");
        let args = ["export", "--model", &model, "--format", "1bit", "--output", &one];
        onebit(&[&args[..], more].concat())
    };
    export(&["--emit-c-header"]).ok();
    let header = dir.path().join("m.h");
    let text = fs::read_to_string(&header).unwrap();
    let bytes = fs::metadata(&one).unwrap().len();
    assert!(text.contains(&format!("#define ONEBIT_FILE_BYTES {bytes}u")), "{text}");
    fs::remove_file(&one).unwrap();
    export(&["--emit-c-header"]).refused(1, &["m.h", "exists already"]);
    export(&["--emit-c-header", "--force"]).ok();
    assert_eq!(fs::read_to_string(&header).unwrap(), text);
}

/// A real trained model out of another project's file: with the tokenizer beside it it tells the story that it learnt.
#[test]
fn a_trained_model_of_bitllama2_c_tells_its_story() {
    let Some(file) = testdata("models/bitnet-stories-3m/bit_model.bin") else {
        return;
    };
    let file = file.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (imported, one) = (path(dir.path(), "imported"), path(dir.path(), "m.1bit"));
    let made = onebit(&["import", file, "--output-dir", &imported, "--json"]).json();
    assert_eq!(made["tokenizer"], true);
    onebit(&["export", "--model", &imported, "--format", "1bit", "--output", &one]).ok();
    let story = |model: &str| {
        let args = [
            "generate",
            "--model",
            model,
            "--prompt",
            "Once upon a time",
            "--max-tokens",
            "90",
        ];
        onebit(&[&args[..], &["--temperature", "0", "--repetition-penalty", "1"]].concat()).ok()
    };
    let told = story(&imported);
    for part in [
        ", there was a little girl named Lily. She loved to play outside and explore the world around her.",
        "One day, she saw a big, red ball. She was so happy and wanted to play with it.",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(story(file), told);
    assert_eq!(story(&one), told);
    let facts = onebit(&["inspect", file, "--json"]).json();
    assert_eq!(facts["file_bytes"], fs::metadata(file).unwrap().len());
    // Into the folder that the file lies in: what lies beside it stays as it is.
    let own = path(dir.path(), "own");
    fs::create_dir(&own).unwrap();
    let copy = format!("{own}/bit_model.bin");
    fs::copy(file, &copy).unwrap();
    let (beside, text) = (format!("{own}/tokenizer_config.json"), "{\"add_bos_token\": true}");
    fs::write(&beside, text).unwrap();
    onebit(&["import", &copy, "--output-dir", &own, "--force"]).ok();
    assert_eq!(fs::read_to_string(&beside).unwrap(), text);
    assert_eq!(logits(&own), logits(file));
}

#[test]
fn a_gguf_file_is_a_model_like_any_other() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| path(dir.path(), name);
    let (model, file, back) = (f.path("model"), path("m.gguf"), path("back"));
    let export = ["export", "--model", &model, "--format", "gguf", "--output", &file];
    let made = onebit(&[&export[..], &["--type", "f16", "--name", "Little", "--json"]].concat()).json();
    assert_eq!(made["graph"], "bitnet-b1.58");
    assert_eq!(made["tokenizer"], true);
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(logits(&file), logits(&model));
    onebit(&["import", &file, "--output-dir", &back]).ok();
    assert_eq!(logits(&back), logits(&model));
    let text = |model: &str| {
        let args = [
            "generate",
            "--model",
            model,
            "--prompt",
            "Once",
            "--temperature",
            "0",
            "--max-tokens",
            "8",
            "--json",
        ];
        onebit(&args).json()["text"].clone()
    };
    assert_eq!(text(&file), text(&model));
    assert_eq!(text(&back), text(&model));

    let shown = onebit(&["inspect", &file, "--tensors", "--json"]).json();
    assert_eq!(shown["kind"], "gguf");
    assert_eq!(shown["general.name"], "Little");
    assert_eq!(shown["runs_here"], "yes, as bitnet-b1.58");
    let first = &shown["tensor_list"].as_array().unwrap()[0];
    assert_eq!(first["name"], "token_embd.weight");

    // A network that would be another one is refused, with the reason; nothing is written.
    fs::remove_file(&file).unwrap();
    let other = [&export[..], &["--type", "f16", "--graph", "bitnet"]].concat();
    onebit(&other).refused(1, &["relu2_gated", "bitnet-b1.58 computes this model"]);
    assert!(!fs::exists(&file).unwrap());
    for (option, value, wanted) in [
        ("--graph", "mamba", "bitnet, bitnet-b1.58, bitnet-25, llama"),
        ("--type", "t5", "tq1_0, tq2_0, i2_s, f16"),
        ("--head", "int4", "q8_0, q6_k, q4_0"),
    ] {
        onebit(&[&export[..], &[option, value]].concat()).refused(2, &[option, wanted]);
    }
    let hf = [
        "export", "--model", &model, "--format", "hf", "--output", &back, "--name", "x",
    ];
    onebit(&hf).refused(2, &["--name is for --format gguf"]);
}
