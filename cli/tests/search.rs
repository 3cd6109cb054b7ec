//! A bit-width search: what it promises is what the files are, and its limits bind.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{CONFIG, command, fixture, onebit};
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

#[test]
fn every_promise_is_what_the_file_is() {
    let dir = tempfile::tempdir().unwrap();
    let result = onebit(&search(
        twin(),
        dir.path(),
        "map",
        &["--json", "--max-evaluations", "90"],
    ))
    .json();
    let map = read(&dir.path().join("map.json"));
    assert_eq!(result, map);
    let chosen = &map["chosen"];
    let packed = dir.path().join("map.1bit");
    assert_eq!(fs::metadata(&packed).unwrap().len(), chosen["bytes"].as_u64().unwrap());
    onebit(&["inspect", packed.to_str().unwrap(), "--verify"]).ok();
    assert_eq!(evaluated(&packed, &["--max-tokens", "512"]), number(chosen, "loss"));
    assert_eq!(evaluated(&packed, &[]), number(chosen, "whole_loss"));
    let front = map["front"].as_array().unwrap();
    assert!(front.len() > 3, "{} points", front.len());
    let last = front.len() - 1;
    for at in [0, last / 3, last / 2, last] {
        let (file, point) = (dir.path().join(format!("{at}.1bit")), at.to_string());
        let model = twin().to_str().unwrap();
        let (map, output) = (dir.path().join("map.json"), file.to_str().unwrap());
        let map = map.to_str().unwrap();
        let args = [
            "export", "--model", model, "--map", map, "--point", &point, "--format", "1bit", "--output", output,
        ];
        onebit(&args).ok();
        assert_eq!(fs::metadata(&file).unwrap().len(), front[at]["bytes"].as_u64().unwrap());
        assert_eq!(evaluated(&file, &["--max-tokens", "512"]), number(&front[at], "loss"));
        // It runs at once.
        onebit(&[
            "generate",
            "--model",
            output,
            "--prompt",
            "the cow",
            "--max-tokens",
            "3",
            "--device",
            "cpu",
        ])
        .ok();
    }
    let svg = fs::read_to_string(dir.path().join("map.svg")).unwrap();
    assert!(svg.contains("all int8") && svg.contains("perplexity"));
}

#[test]
fn the_front_is_better_than_uniform_and_random_maps() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--json", "--compare-random"];
    let map = onebit(&search(twin(), dir.path(), "map", &more)).json();
    let front = map["front"].as_array().unwrap();
    let better = |other: &Value| {
        front.iter().any(|point| {
            number(point, "bytes") <= number(other, "bytes")
                && number(point, "loss") <= number(other, "loss")
                && (point["bytes"] != other["bytes"] || point["loss"] != other["loss"])
        })
    };
    // A uniform map that nothing dominates is a point of the front itself, as one of so small a model may be.
    let on = |other: &Value| {
        front
            .iter()
            .any(|point| point["bytes"] == other["bytes"] && point["loss"] == other["loss"])
    };
    let uniform = map["uniform"].as_array().unwrap();
    assert!(
        uniform.iter().all(|uniform| better(uniform) || on(uniform)),
        "{uniform:?}"
    );
    assert!(
        uniform
            .iter()
            .any(|uniform| uniform["width"] == "int8" && better(uniform)),
        "{uniform:?}"
    );
    let random = &map["random"];
    // As much work: what is left over is less than one map on all tokens.
    let (theirs, ours) = (number(random, "evaluated_tokens"), number(&map, "evaluated_tokens"));
    let tokens = number(&map["measured_on"], "tokens");
    assert!((ours..ours + tokens).contains(&theirs), "{theirs} of {ours}");
    let points = random["front"].as_array().unwrap();
    let dominated = points.iter().filter(|point| better(point) || on(point)).count();
    assert_eq!(random["dominated"].as_u64().unwrap(), dominated as u64);
    assert!(4 * dominated >= 3 * points.len(), "{dominated} of {}", points.len());
    let worse = |point: &Value| {
        points.iter().any(|other| {
            number(other, "bytes") <= number(point, "bytes") && number(other, "loss") < number(point, "loss")
        })
    };
    let lost = front.iter().filter(|point| worse(point)).count();
    assert!(4 * lost < front.len(), "{lost} of {}", front.len());
}

#[test]
fn limits_bind_and_what_cannot_be_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        onebit(&search(
            twin(),
            dir.path(),
            name,
            &[more, &["--json", "--max-evaluations", "60"]].concat(),
        ))
    };
    let all = run("all", &[]).json();
    let bytes = |width: &str| {
        let rows = all["uniform"].as_array().unwrap();
        let row = rows.iter().find(|row| row["width"] == width).unwrap();
        number(row, "bytes")
    };
    // A size between two widths.
    let most = (bytes("int4") + bytes("ternary")) / 2.0;
    let asked = format!("{:.6}", most / 1e6);
    let small = run("small", &["--max-size-mb", &asked]).json();
    assert!(number(&small["chosen"], "bytes") <= most);
    assert!(
        small["front"]
            .as_array()
            .unwrap()
            .iter()
            .all(|point| number(point, "bytes") <= most)
    );
    assert!(number(&all["chosen"], "bytes") > most, "without the limit it is larger");
    // A perplexity that half precision has and trits have not, on the whole text.
    let least = number(&all["chosen"], "whole_ppl");
    let asked = format!("{:.4}", 1.05 * least);
    let good = run("good", &["--max-ppl", &asked]).json();
    assert!(number(&good["chosen"], "whole_ppl") <= 1.05 * least);
    assert!(number(&good["chosen"], "bytes") <= number(&all["chosen"], "bytes"));
    // Neither can be had, and what can is told.
    let refused = run("none", &["--max-size-mb", "0.001"]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    let line = refused.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let nearest = line.split("ask for ").nth(1).unwrap();
    assert!(line.contains("no map is as small"), "{line}");
    let tight = run("tight", &["--max-size-mb", nearest]).json();
    assert_eq!(
        number(&tight["chosen"], "bytes"),
        (nearest.parse::<f64>().unwrap() * 1e6).round()
    );
    let refused = run("best", &["--max-ppl", "1.01"]);
    assert_eq!(refused.status, Some(1));
    assert!(
        refused
            .stderr
            .contains("error: --max-ppl 1.01: no map that was found has it; the nearest has"),
        "{}",
        refused.stderr
    );
    let map = read(&dir.path().join("best.json"));
    assert_eq!(map["unreachable"]["limit"], "max-ppl");
    let nearest = number(&map["unreachable"], "nearest");
    assert!((nearest / least - 1.0).abs() < 0.05, "{nearest} {least}");
    assert!(
        !dir.path().join("best.1bit").exists(),
        "nothing is packed that was not asked for"
    );
    // Evaluations, and time.
    for most in [5, 23] {
        let args = search(
            twin(),
            dir.path(),
            &format!("few{most}"),
            &["--json", "--max-evaluations", &most.to_string()],
        );
        assert_eq!(onebit(&args).json()["evaluations"], most);
    }
    let args = search(twin(), dir.path(), "late", &["--minutes", "0.000001"]);
    onebit(&args).refused(1, &["--minutes", "the same command goes on"]);
}

#[test]
fn the_same_search_gives_the_same_bytes_also_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let args = search(twin(), dir.path(), name, &[more, &["--max-evaluations", "80"]].concat());
        onebit(&args).ok();
        let map = fs::read_to_string(dir.path().join(format!("{name}.json"))).unwrap();
        (
            map.replace(&format!("{name}."), "x."),
            fs::read(dir.path().join(format!("{name}.1bit"))).unwrap(),
        )
    };
    let one = run("one", &["--threads", "1"]);
    let two = run("two", &["--threads", "3"]);
    assert!(one == two, "threads change nothing");
    assert!(run("seed", &["--seed", "1"]).0 != one.0, "the seed does");
    // Killed at moments that come later and later, until it ends by itself.
    let name = "killed";
    let args = search(twin(), dir.path(), name, &["--max-evaluations", "80", "--threads", "1"]);
    let (mut wait, mut kills) = (Duration::from_millis(150), 0);
    loop {
        let mut child = command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if began.elapsed() > wait {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                wait += Duration::from_millis(100);
            }
        }
    }
    assert!(kills > 0, "it was killed at least once");
    let map = fs::read_to_string(dir.path().join("killed.json"))
        .unwrap()
        .replace("killed.", "x.");
    assert!(
        map == one.0,
        "a search that was killed {kills} times ends as one that was not"
    );
}

#[test]
#[cfg(unix)]
fn an_interrupted_search_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let args = |name: &str| {
        search(
            twin(),
            dir.path(),
            name,
            &["--max-evaluations", "150", "--threads", "1"],
        )
    };
    onebit(&args("one")).ok();
    let child = command(&args("two"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it measures, it listens.
    let measures = || {
        let entries = fs::read_dir(dir.path().join("two.work"))
            .into_iter()
            .flatten()
            .flatten();
        { entries }.any(|entry| entry.file_name().to_string_lossy().starts_with("sensitivities-"))
    };
    let began = Instant::now();
    while !measures() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never began");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(
        told.contains("interrupted; what is known is kept in") && told.contains("the same command goes on"),
        "{told}"
    );
    assert!(!dir.path().join("two.json").exists());
    onebit(&args("two")).ok();
    let read = |name: &str| {
        fs::read_to_string(dir.path().join(format!("{name}.json")))
            .unwrap()
            .replace(&format!("{name}."), "x.")
    };
    assert!(read("one") == read("two"));
}

#[test]
fn wrong_options_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| onebit(&search(twin(), dir.path(), "x", more));
    onebit(&["search"]).refused(2, &["--model"]);
    onebit(&["search", "--model", "m"]).refused(2, &["--data"]);
    run(&["--max-ppl", "1"]).refused(2, &["--max-ppl", "above 1"]);
    run(&["--max-size-mb", "-3"]).refused(2, &["--max-size-mb"]);
    run(&["--minutes", "0"]).refused(2, &["--minutes"]);
    run(&["--max-evaluations", "0"]).refused(2, &["--max-evaluations"]);
    run(&["--widths", "f16,int3"]).refused(2, &["--widths", "int3"]);
    run(&["--widths", "f16,f16"]).refused(2, &["--widths", "twice"]);
    run(&["--finetune-data", "x"]).refused(2, &["--finetune-data", "--finetune-steps"]);
    run(&["--packed", "model.gguf"]).refused(2, &["--packed", ".1bit"]);
    let (text, work) = (fixture().path("text.txt"), dir.path().join("work"));
    let more = ["--data", &text, "--context", "33", "--work-dir", work.to_str().unwrap()];
    onebit(&[&["search", "--model", "m"], &more[..]].concat()).refused(1, &["--model"]);
    let model = twin().to_str().unwrap();
    onebit(&[&["search", "--model", model], &more[..]].concat()).refused(2, &["--context", "32"]);
    // A map that is none.
    let args = [
        "export",
        "--model",
        model,
        "--format",
        "1bit",
        "--output",
        "/nonexistent/x.1bit",
    ];
    onebit(&[&args[..], &["--map", &text]].concat()).refused(1, &["--output"]);
    let out = dir.path().join("x.1bit");
    let args = [
        "export",
        "--model",
        model,
        "--format",
        "1bit",
        "--output",
        out.to_str().unwrap(),
    ];
    onebit(&[&args[..], &["--map", &text]].concat()).refused(1, &["--map", "is no JSON"]);
    onebit(&[&args[..], &["--point", "1"]].concat()).refused(2, &["--point", "--map"]);
    onebit(&[&args[..], &["--map", &text, "--head", "int8"]].concat()).refused(2, &["--head", "leave it out"]);
    let path = dir.path().join("map.json");
    fs::write(&path, "{\"front\": []}").unwrap();
    let map = path.to_str().unwrap();
    onebit(&[&args[..], &["--map", map]].concat()).refused(1, &["--map", "no chosen map"]);
    onebit(&[&args[..], &["--map", map, "--point", "0"]].concat()).refused(1, &["--map", "no front"]);
    fs::write(
        &path,
        "{\"chosen\": {\"layer_bit_map\": {\"layer_modes\": [\"int8\"]}}}",
    )
    .unwrap();
    onebit(&[&args[..], &["--map", map]].concat()).refused(1, &["--map", "2 layers"]);
    fs::write(
        &path,
        "{\"chosen\": {\"layer_bit_map\": {\"layer_modes\": [\"int8\", \"int7\"]}}}",
    )
    .unwrap();
    onebit(&[&args[..], &["--map", map]].concat()).refused(1, &["--map", "int7"]);
}

#[test]
fn fine_tuning_recovers_what_narrow_widths_cost() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixture().path("text.tokens");
    let tuned = [
        "--finetune-steps",
        "40",
        "--finetune-data",
        &data,
        "--finetune-lr",
        "0.003",
        "--finetune-batch-size",
        "4",
    ];
    let args = search(
        twin(),
        dir.path(),
        "tuned",
        &[
            &tuned[..],
            &["--json", "--widths", "ternary,binary", "--max-evaluations", "20"],
        ]
        .concat(),
    );
    let map = onebit(&args).json();
    let chosen = &map["chosen"];
    let packed = dir.path().join("tuned.1bit");
    // As many bytes as were promised without training, and a loss that is less.
    assert_eq!(fs::metadata(&packed).unwrap().len(), chosen["bytes"].as_u64().unwrap());
    let after = number(&chosen["finetuned"], "whole_loss");
    assert_eq!(evaluated(&packed, &[]), after);
    assert!(after < number(chosen, "whole_loss") - 0.1, "{chosen}");
    onebit(&["inspect", packed.to_str().unwrap(), "--verify"]).ok();
    // The same again is there already.
    let bytes = fs::read(&packed).unwrap();
    onebit(&[args, vec!["--force".into()]].concat()).json();
    assert!(fs::read(&packed).unwrap() == bytes);
}
