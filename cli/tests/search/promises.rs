//! What a search says is what the files are, and worth something.

use std::fs;

use serde_json::Value;

use crate::common::{fixture, onebit};
use crate::{evaluated, number, read, search, twin};

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
