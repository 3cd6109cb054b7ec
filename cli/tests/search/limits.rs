//! Limits bind, and what cannot be is said.

use std::fs;

use crate::common::{fixture, onebit};
use crate::{number, read, search, twin};

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
