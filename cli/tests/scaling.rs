//! The tables of docs/scaling.md are what the command prints.
#![cfg(feature = "train")]

mod common;

use std::fs;
use std::path::Path;

use common::onebit;

const FENCE: &str = "```console\n";

/// Runs every command of the page and compares what it prints with what stands there; `ONEBIT_UPDATE_DOCS=1` writes it there instead.
#[test]
fn the_page_shows_what_the_command_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scaling.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut parts = page.split(FENCE);
    let mut made = parts.next().unwrap().to_string();
    let mut blocks = 0;
    for part in parts {
        let (block, after) = part.split_once("```\n").expect("a block that ends");
        let command = block.lines().next().unwrap();
        let args: Vec<_> = command.strip_prefix("$ onebit ").expect(command).split(' ').collect();
        made += &format!("{FENCE}{command}\n{}```\n{after}", onebit(&args).ok());
        blocks += 1;
    }
    assert!(blocks >= 3, "{blocks} blocks");
    if std::env::var_os("ONEBIT_UPDATE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
        return;
    }
    for (line, (found, expected)) in page.lines().zip(made.lines()).enumerate() {
        assert_eq!(found, expected, "docs/scaling.md:{}", line + 1);
    }
    assert!(
        page == made,
        "docs/scaling.md is not what the commands print: ONEBIT_UPDATE_DOCS=1 writes it"
    );
}

#[test]
fn json_has_a_line_for_each_plan() {
    let args = [
        "bench",
        "scaling",
        "--shape",
        "125m",
        "--batch-size",
        "64",
        "--seq-len",
        "1024",
        "--gpus",
        "1,2",
        "--json",
    ];
    let out = onebit(&args).ok();
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shards: Vec<_> = lines
        .iter()
        .map(|l| (l["gpus"].as_u64(), l["shard"].as_str()))
        .collect();
    let expected = [1, 2].map(|n| ["none", "optimizer", "parameters"].map(|s| (Some(n), Some(s))));
    assert_eq!(shards, expected.concat());
    for line in &lines {
        assert_eq!(
            (line["rate"].as_str(), line["simulated"].as_bool()),
            (Some("measured"), Some(true))
        );
        let uses = line["memory_bytes"].as_object().unwrap().values();
        assert_eq!(
            uses.map(|v| v.as_u64().unwrap()).sum::<u64>(),
            line["total_bytes"].as_u64().unwrap()
        );
    }
    // What --shard does not allow is left out where it is not asked for.
    let muon = onebit(&["bench", "scaling", "--optimizer", "muon", "--gpus", "2", "--json"]).json();
    assert_eq!(muon["shard"], "none");
}
