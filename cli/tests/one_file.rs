//! A model as one file: what it says is what its directory says.
#![cfg(feature = "train")]

mod common;

use std::fs;

use common::{fixture, onebit, with_input};

#[test]
fn an_exported_model_says_what_its_directory_says() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let model = f.path("model");
    let logits = |model: &str| {
        let args = ["eval", "--model", model, "--ids", "5,17,42,9,9", "--logits", "--json"];
        onebit(&args).json()["logits"].clone()
    };
    let text = |model: &str| {
        let args = [
            "generate",
            "--model",
            model,
            "--prompt",
            "the cow",
            "--max-tokens",
            "40",
        ];
        onebit(&[&args[..], &["--temperature", "0"]].concat()).ok()
    };
    let loss = |model: &str, data: &str| {
        let args = ["eval", "--model", model, "--data", &f.path(data), "--json"];
        onebit(&args).json()["loss"].clone()
    };
    for layout in ["t2", "t5"] {
        let path = |name: &str| {
            dir.path()
                .join(format!("{name}-{layout}.1bit"))
                .to_str()
                .unwrap()
                .to_string()
        };
        let (one, two) = (path("one"), path("two"));
        let export = |model: &str, output: &str| {
            let args = [
                "export", "--model", model, "--format", "1bit", "--type", layout, "--output", output, "--json",
            ];
            onebit(&args).json()
        };
        let made = export(&model, &one);
        assert_eq!(made["bytes"], fs::metadata(&one).unwrap().len());
        assert_eq!(logits(&one), logits(&model), "{layout}: every bit of every logit");
        assert_eq!(text(&one), text(&model), "{layout}");
        // The token file knows its tokenizer by a fingerprint, which the packed tokenizer keeps.
        assert_eq!(loss(&one, "text.tokens"), loss(&model, "text.tokens"));
        assert_eq!(loss(&one, "text.txt"), loss(&model, "text.txt"));
        // From the directory once more, and from the file itself.
        export(&model, &two);
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        fs::remove_file(&two).unwrap();
        export(&one, &two);
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    }
    let said = with_input(
        &[
            "chat",
            "--model",
            dir.path().join("one-t5.1bit").to_str().unwrap(),
            "--json",
        ],
        "hello\n",
    );
    said.ok();
}

/// An integer head from a directory is that head of a file.
#[test]
fn a_head_in_integers_is_the_same_from_a_file() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let model = f.path("model");
    let logits = |model: &str, more: &[&str]| {
        let args = ["eval", "--model", model, "--ids", "5,17,42,9,9", "--logits", "--json"];
        onebit(&[&args[..], more].concat()).json()["logits"].clone()
    };
    let mut sizes = Vec::new();
    for head in ["f16", "int8", "int4"] {
        let path = dir.path().join(format!("{head}.1bit"));
        let name = path.to_str().unwrap();
        onebit(&[
            "export", "--model", &model, "--format", "1bit", "--head", head, "--output", name,
        ])
        .ok();
        sizes.push(fs::metadata(&path).unwrap().len());
        let of_file = logits(name, &[]);
        assert_eq!(of_file, logits(&model, &["--head", head]));
        assert!(head == "f16" || of_file != logits(&model, &[]));
        onebit(&["inspect", name, "--verify"]).ok();
        let tensors = onebit(&["inspect", name, "--tensors", "--json"]).json();
        assert!(tensors["tensor_list"].to_string().contains(head));
        // Every command that reads a model takes it.
        for model in [name, &model] {
            let args = ["generate", "--model", model, "--head", head, "--prompt", "the cow"];
            onebit(&[&args[..], &["--max-tokens", "4", "--temperature", "0"]].concat()).ok();
            with_input(&["chat", "--model", model, "--head", head, "--json"], "hello\n").ok();
        }
        let args = [
            "bench",
            "decode",
            "--model",
            name,
            "--tokens",
            "4",
            "--exact-head",
            "--json",
        ];
        let read = onebit(&args).json()["head_bytes_per_token"].as_f64().unwrap();
        let of_head = |kind: &str| {
            let tensors = tensors["tensor_list"].as_array().unwrap();
            let mut tables = tensors.iter().filter(|t| t["storage"] == kind);
            tables.next().unwrap()["bytes"].as_f64().unwrap()
        };
        assert_eq!(read, of_head(head), "{head}");
    }
    // Rows of fewer than 128 columns are padded to as many in int4, so this model is no smaller with it.
    assert!(sizes[0] > sizes[1], "{sizes:?}");
}

#[test]
fn inspect_shows_and_verifies_a_file() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    let name = path.to_str().unwrap();
    onebit(&[
        "export",
        "--model",
        &f.path("model"),
        "--format",
        "1bit",
        "--output",
        name,
    ])
    .ok();
    let facts = onebit(&["inspect", name, "--tensors", "--verify", "--json"]).json();
    let of_directory = onebit(&["inspect", &f.path("model"), "--json"]).json();
    for key in ["kind", "parameters", "vocab_size", "zero_fraction", "tokenizer"] {
        assert_eq!(facts[key], of_directory[key], "{key}");
    }
    assert_eq!(facts["verified"], true);
    assert_eq!(facts["file_bytes"], fs::metadata(&path).unwrap().len());
    let names: Vec<&str> = facts["tensor_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"onebit.tokenizer.packed") && names.contains(&"model.layers.1.mlp.down_proj.weight"));

    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    onebit(&["inspect", name, "--verify"]).refused(1, &["m.1bit", "checksum", "export the model again"]);
    bytes.truncate(last);
    fs::write(&path, &bytes).unwrap();
    for command in [&["generate", "--model", name][..], &["inspect", name]] {
        onebit(command).refused(1, &["m.1bit", "damaged safetensors file"]);
    }
    onebit(&["inspect", &f.path("model"), "--verify"]).refused(2, &["--verify"]);
}

#[test]
fn exports_that_cannot_be_are_refused() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (model, there) = (f.path("model"), path("there.1bit"));
    fs::write(&there, "kept").unwrap();
    let export = |more: &[&str]| onebit(&[&["export", "--format", "1bit"], more].concat());
    export(&["--model", &model, "--output", &there]).refused(1, &["exists already"]);
    assert_eq!(fs::read(&there).unwrap(), b"kept");
    export(&["--model", &model, "--output", &there, "--force"]).ok();
    export(&["--model", &model, "--output", &path("x.bin")]).refused(2, &[".1bit"]);
    export(&["--model", &model, "--output", &path("x.1bit"), "--type", "t3"]).refused(2, &["t2 or t5"]);
    export(&["--model", &model, "--output", &path("x.1bit"), "--head", "f8"]).refused(2, &["--head", "int8, int4"]);
    export(&["--output", &path("x.1bit")]).refused(2, &["--model"]);
    let swiglu = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(&model)
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.path().is_file())
    {
        fs::copy(entry.path(), swiglu.path().join(entry.file_name())).unwrap();
    }
    let config = swiglu.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("\"relu2\""));
    fs::write(&config, text.replace("\"relu2\"", "\"silu\"")).unwrap();
    let swiglu = swiglu.path().to_str().unwrap();
    export(&["--model", swiglu, "--output", &path("x.1bit"), "--columns"]).refused(1, &["--columns", "SwiGLU"]);
    export(&["--model", &model, "--shape", "25m", "--output", &path("x.1bit")]).refused(2, &["--shape"]);
    export(&["--model", &model, "--seed", "1", "--output", &path("x.1bit")]).refused(2, &["--seed"]);
    export(&["--shape", "3m", "--output", &path("x.1bit")]).refused(2, &["3m"]);
    let gguf = [
        "export",
        "--model",
        &model,
        "--format",
        "gguf",
        "--output",
        &path("x.1bit"),
    ];
    onebit(&gguf).refused(2, &["gguf"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    // What is named .1bit and is none.
    fs::write(path("none.1bit"), "text").unwrap();
    onebit(&["generate", "--model", &path("none.1bit")]).refused(1, &["none.1bit"]);
}

/// Memory as the system counts it, the mapped file included, of a process that has answered and waits.
#[test]
#[cfg(target_os = "linux")]
fn memory_is_the_file_and_little_more() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    let name = path.to_str().unwrap();
    let tokenizer = f.path("tokenizer.json");
    let export = [
        "export",
        "--shape",
        "125m",
        "--tokenizer",
        &tokenizer,
        "--format",
        "1bit",
        "--output",
        name,
    ];
    let made = onebit(&[&export[..], &["--json"]].concat()).json();
    let sketch = made["sketch_bytes"].as_u64().unwrap();
    assert!(sketch > 8 << 20, "a head of this size has a sketch: {made}");
    let file = fs::metadata(&path).unwrap().len();
    assert_eq!(onebit(&["inspect", name, "--json"]).json()["sketch_bytes"], sketch);
    assert!(file > 60 << 20, "large enough for a copy of it to be seen: {file}");
    let mut child = common::command(&["chat", "--model", name, "--max-tokens", "4", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"the cow\n").unwrap();
    input.flush().unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut answer)
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10;
    // Without its sketch the file says the same.
    let text = |name: &str| {
        let args = ["generate", "--model", name, "--prompt", "the cow", "--max-tokens", "8"];
        onebit(&[&args[..], &["--temperature", "0"]].concat()).ok()
    };
    let said = text(name);
    onebit(&[&export[..], &["--no-sketch", "--force"]].concat()).ok();
    let rest = fs::metadata(&path).unwrap().len();
    assert!(rest <= file - sketch && rest > file - sketch - 4096, "{rest} of {file}");
    assert_eq!(text(name), said);
    // With its columns too, of which a prompt reads none and each token after it some.
    let made = onebit(&[&export[..], &["--no-sketch", "--columns", "--force", "--json"]].concat()).json();
    let columns = made["column_bytes"].as_u64().unwrap();
    let with = fs::metadata(&path).unwrap().len();
    assert!(
        columns > 4 << 20 && with >= rest + columns && with < rest + columns + 8192,
        "{rest} and {columns} in {with}"
    );
    assert_eq!(text(name), said);
    let facts = onebit(&["inspect", name, "--verify", "--json"]).json();
    assert_eq!(facts["column_bytes"], columns);
    // The cache of the few tokens is a fraction of a megabyte.
    assert!(peak < file + (50 << 20), "{peak} bytes for a file of {file}: {answer}");
}
