//! Models on their way from one kind of file to another.

mod common;

use std::fs;
use std::path::Path;

use common::{fixture, onebit};

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
        let read = |dir: &str| fs::read(format!("{dir}/{name}")).unwrap();
        assert!(read(&packed) == read(&back), "{name}");
    }
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
    export(&[&model, "--format", "hf", "--head", "int8", "--output", &other]).refused(2, &["--head"]);
    export(&[&model, "--format", "hf", "--columns", "--output", &other]).refused(2, &["--columns", "1bit"]);
    export(&[&model, "--format", "zip", "--output", &other]).refused(2, &["--format", "1bit or hf"]);
    onebit(&["import", "--output-dir", &other]).refused(2, &["path"]);
    onebit(&["import", &path("none"), "--output-dir", &other]).refused(1, &["does not exist"]);
    fs::write(&one, "some text that is no model").unwrap();
    onebit(&["import", &one, "--output-dir", &other]).refused(1, &["m.1bit", "unknown kind"]);
    fs::write(&one, "GGUF").unwrap();
    onebit(&["generate", "--model", &one, "--prompt", "x"]).refused(1, &["m.1bit", "GGUF"]);
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
