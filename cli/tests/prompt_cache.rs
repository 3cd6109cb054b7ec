//! What `generate --prompt-cache` promises.
#![cfg(feature = "train")]

mod common;

use std::fs;

use common::{Ran, fixture, onebit};

/// `generate` on the shared model, short.
fn generate(more: &[&str]) -> Ran {
    let model = fixture().path("model");
    let args = ["generate", "--model", &model, "--max-tokens", "12", "--threads", "1"];
    onebit(&[&args[..], more].concat())
}

#[test]
fn a_prompt_cache_changes_the_work_and_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.kv");
    let cache = path.to_str().unwrap();
    let long = "the cow found a red shell and Anna ate";
    for kv in ["f32", "f16", "int8"] {
        let _ = fs::remove_file(&path);
        let run = |prompt: &str, more: &[&str]| {
            generate(&[&["--prompt", prompt, "--kv-type", kv, "--json", "--seed", "2"], more].concat()).json()
        };
        let plain = run(long, &[]);
        let first = run(long, &["--prompt-cache", cache]);
        let bytes = fs::read(&path).unwrap();
        let second = run(long, &["--prompt-cache", cache]);
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing new, nothing written");
        for made in [&first, &second] {
            assert_eq!((&made["ids"], &made["text"]), (&plain["ids"], &plain["text"]), "{kv}");
        }
        let all_but_one = plain["prompt_tokens"].as_u64().unwrap() - 1;
        assert_eq!(second["reused_tokens"], all_but_one, "{kv}");
        // What both prompts begin with is used, for a longer prompt, another one, and a shorter one.
        for other in [
            "the cow found a red shell and Anna ate some scones",
            "the cow found some",
            "the cow",
        ] {
            let with = run(other, &["--prompt-cache", cache]);
            assert_eq!(with["ids"], run(other, &[])["ids"], "{kv} {other}");
            assert!(with["reused_tokens"].as_u64().unwrap() > 0, "{kv} {other}: {with}");
        }
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn a_prompt_cache_that_does_not_fit_is_refused_and_left_alone() {
    let f = fixture();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.kv");
    let cache = path.to_str().unwrap();
    let args = ["--prompt", "the cow found", "--prompt-cache", cache, "--json"];
    generate(&args).ok();
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        generate(&args).refused(1, &[&[cache], parts].concat());
        assert_eq!(fs::read(&path).unwrap(), bytes, "it stays as it was");
    };
    refused(b"my diary, of which there is one copy\n", &["no prompt cache"]);
    refused(b"", &["no prompt cache"]);
    for length in [8, 20, 47, 48, 60, good.len() - 33, good.len() - 1] {
        refused(&good[..length], &["damaged"]);
    }
    refused(&[&good[..], b"x"].concat(), &["damaged"]);
    for at in [48, 60, good.len() / 2, good.len() - 40, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        refused(&bytes, &["damaged", "checksum"]);
    }
    let mut bytes = good.clone();
    bytes[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&bytes, &["damaged"]);
    let mut bytes = good.clone();
    bytes[9] ^= 1;
    refused(&bytes, &["another model"]);
    fs::write(&path, &good).unwrap();
    generate(&[&args[..], &["--kv-type", "f16"]].concat()).refused(1, &["another model", "--kv-type"]);
    // A model that was trained a step longer.
    let other = dir.path().join("other");
    onebit(&f.train(&other, &["--max-steps", "4"])).ok();
    let args = [
        "generate",
        "--model",
        other.to_str().unwrap(),
        "--prompt",
        "the cow found",
        "--prompt-cache",
        cache,
    ];
    onebit(&args).refused(1, &["another model"]);
    assert_eq!(fs::read(&path).unwrap(), good);
    generate(&["--prompt-cache", dir.path().to_str().unwrap()]).refused(1, &["is a directory"]);
}
