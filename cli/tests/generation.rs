//! `generate` and `eval` against what they promise.
#![cfg(feature = "train")]

mod common;

use std::fs;

use common::{Ran, fixture, onebit, with_input};
use serde_json::Value;

/// `generate` on the shared model, greedy and short unless told otherwise.
fn generate(more: &[&str]) -> Ran {
    let model = fixture().path("model");
    let args = ["generate", "--model", &model, "--threads", "1"];
    let length: &[&str] = if more.contains(&"--max-tokens") {
        &[]
    } else {
        &["--max-tokens", "12"]
    };
    onebit(&[&args[..], length, more].concat())
}

/// One object a line.
fn objects(ran: Ran) -> Vec<Value> {
    let text = ran.ok();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn logprobs_are_those_of_the_logits() {
    let f = fixture();
    let sampling = [
        "--prompt",
        "the cow",
        "--seed",
        "3",
        "--repetition-penalty",
        "1.3",
        "--json",
    ];
    let without = generate(&sampling).json();
    assert!(without.get("logprobs").is_none());
    let with = generate(&[&sampling[..], &["--logprobs", "4"]].concat()).json();
    assert_eq!(with["ids"], without["ids"], "being told changes nothing");
    let tokens = with["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), with["tokens"].as_u64().unwrap() as usize);

    let first = generate(&[
        "--prompt",
        "",
        "--json",
        "--temperature",
        "0",
        "--logprobs",
        "3",
        "--repetition-penalty",
        "1",
    ])
    .json();
    let token = &first["logprobs"][0];
    let top = token["top"].as_array().unwrap();
    assert_eq!(
        (top.len(), &top[0]["id"]),
        (3, &token["id"]),
        "greedy takes the likeliest"
    );
    assert_eq!(token["logprob"], top[0]["logprob"]);

    // The next tokens: the ids so far are a text of their own.
    let ids: Vec<u64> = first["ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    // The empty prompt begins with the tokenizer's end token.
    let tokenizer: Value = serde_json::from_str(&fs::read_to_string(f.path("tokenizer.json")).unwrap()).unwrap();
    let start = tokenizer["added_tokens"][0]["id"].as_u64().unwrap();
    let all: Vec<String> = std::iter::once(start)
        .chain(ids.iter().copied())
        .map(|id| id.to_string())
        .collect();
    let logits = onebit(&[
        "eval",
        "--model",
        &f.path("model"),
        "--ids",
        &all.join(","),
        "--logits",
        "--json",
    ])
    .json();
    let spelled = tokenizer["model"]["vocab"].as_object().unwrap().values();
    let vocabulary = 1 + spelled.map(|id| id.as_u64().unwrap()).max().unwrap().max(start) as usize;
    for (i, token) in first["logprobs"].as_array().unwrap().iter().enumerate() {
        let row: Vec<f64> = logits["logits"][i]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect();
        // Ids that stand for no token cannot come.
        let sum: f64 = row[..vocabulary].iter().map(|x| x.exp()).sum();
        let expected = row[ids[i] as usize] - sum.ln();
        let found = token["logprob"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-4, "token {i}: {found} {expected}");
        let mut order: Vec<usize> = (0..vocabulary).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let top: Vec<u64> = token["top"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["id"].as_u64().unwrap())
            .collect();
        assert_eq!(top, order[..3].iter().map(|&id| id as u64).collect::<Vec<_>>());
    }

    let text = generate(&["--prompt", "the cow", "--logprobs", "2", "--max-tokens", "3"]).ok();
    assert_eq!(text.lines().filter(|line| line.contains(" %")).count(), 3, "{text}");
    generate(&["--logprobs", "101"]).refused(2, &["--logprobs", "0 to 100", "101"]);
    assert!(
        generate(&["--logprobs", "0", "--json"]).json()["logprobs"][0]["top"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn samples_follow_from_seed_and_number_alone() {
    let several = |n: &str, seed: &str| {
        objects(generate(&[
            "--prompt",
            "the",
            "--n",
            n,
            "--seed",
            seed,
            "--json",
            "--max-tokens",
            "20",
        ]))
    };
    let (three, five) = (several("3", "9"), several("5", "9"));
    assert_eq!((three.len(), five.len()), (3, 5));
    for (i, (a, b)) in three.iter().zip(&five).enumerate() {
        assert_eq!(
            (&a["ids"], &a["seed"], &a["sample"]),
            (&b["ids"], &b["seed"], &i.into())
        );
    }
    assert!(
        (1..5).all(|i| (0..i).all(|j| five[i]["ids"] != five[j]["ids"])),
        "each its own"
    );
    let alone = generate(&["--prompt", "the", "--seed", "9", "--json", "--max-tokens", "20"]).json();
    assert_eq!(
        (&alone["ids"], alone.get("sample")),
        (&five[0]["ids"], None),
        "the first is the usual one"
    );
    let third = five[3]["seed"].to_string();
    assert_eq!(
        several("1", &third)[0]["ids"],
        five[3]["ids"],
        "a sample can be had again by its seed"
    );
    assert_ne!(several("2", "10")[1]["ids"], five[1]["ids"]);
    let text = generate(&["--prompt", "the", "--n", "2"]).ok();
    assert!(
        text.contains("--- answer 1\nthe") && text.contains("--- answer 2\nthe"),
        "{text}"
    );
    generate(&["--n", "0"]).refused(2, &["--n"]);
}

#[test]
fn a_file_or_the_input_holds_the_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt.txt");
    fs::write(&file, "the cow\nfound\n").unwrap();
    let file = file.to_str().unwrap();
    let given = generate(&["--prompt", "the cow\nfound", "--json"]).json();
    let read = generate(&["--prompt-file", file, "--json"]).json();
    assert_eq!((&read["prompt"], &read["ids"]), (&given["prompt"], &given["ids"]));
    let model = fixture().path("model");
    let args = [
        "generate",
        "--model",
        &model,
        "--max-tokens",
        "12",
        "--threads",
        "1",
        "--prompt-file",
        "-",
        "--json",
    ];
    assert_eq!(with_input(&args, "the cow\nfound").json()["ids"], given["ids"]);
    generate(&["--prompt", "a", "--prompt-file", file]).refused(2, &["--prompt and --prompt-file"]);
    generate(&["--prompts", file, "--prompt-file", file]).refused(2, &["--prompt-file and --prompts"]);
    generate(&["--prompt-file", "/nowhere/at/all"]).refused(1, &["--prompt-file", "/nowhere/at/all"]);
}

#[test]
fn many_prompts_give_an_object_each_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    fs::write(path("p.txt"), "the cow\n\na red shell and Anna\nthe cow found some\n").unwrap();
    fs::write(
        path("p.jsonl"),
        "{\"prompt\": \"the cow\", \"id\": 7}\n{\"prompt\": \"a red shell and Anna\"}\n{\"prompt\": \"the cow found some\"}\n",
    )
    .unwrap();
    let answers = objects(generate(&["--prompts", &path("p.txt"), "--json", "--seed", "5"]));
    let same = objects(generate(&["--prompts", &path("p.jsonl"), "--json", "--seed", "5"]));
    assert_eq!(answers.len(), 3);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!((&answer["index"], &same[i]["ids"]), (&i.into(), &answer["ids"]));
        let prompt = answer["prompt"].as_str().unwrap();
        let alone = generate(&["--prompt", prompt, "--json", "--seed", "5"]).json();
        assert_eq!(alone["ids"], answer["ids"], "{prompt}: the same as alone");
    }
    assert!(
        answers[2]["reused_tokens"].as_u64().unwrap() == 0,
        "another prompt lies between"
    );
    let twice = objects(generate(&["--prompts", &path("p.txt"), "--json", "--n", "2"]));
    let numbers: Vec<_> = twice
        .iter()
        .map(|a| (a["index"].as_u64().unwrap(), a["sample"].as_u64().unwrap()))
        .collect();
    assert_eq!(numbers, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    let text = generate(&["--prompts", &path("p.txt")]).ok();
    assert!(text.contains("--- prompt 2, answer 1\na red shell and Anna"), "{text}");
    fs::write(path("bad.jsonl"), "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
    generate(&["--prompts", &path("bad.jsonl")]).refused(1, &["bad.jsonl line 2", "prompt"]);
    fs::write(path("empty.txt"), "\n \n").unwrap();
    generate(&["--prompts", &path("empty.txt")]).refused(1, &["holds no prompt"]);
    generate(&["--prompts", &path("p.txt"), "--prompt-cache", &path("c")]).refused(2, &["--prompt-cache", "--prompts"]);
}

#[test]
fn a_full_context_is_never_silent() {
    let past = generate(&["--prompt", "the", "--max-tokens", "100", "--json", "--seed", "1"]);
    let notes = past
        .stderr
        .lines()
        .filter(|line| line.contains("context of 32 tokens is full"))
        .count();
    let answer = past.json();
    let tokens = answer["tokens"].as_u64().unwrap() + answer["prompt_tokens"].as_u64().unwrap();
    let shifted = answer["shifted_tokens"].as_u64().unwrap();
    assert_eq!((notes == 1, shifted > 0), (tokens > 33, tokens > 33), "{answer}");
    let long = common::text(30);
    let both = generate(&["--prompt", &long, "--max-tokens", "90", "--json"]);
    let notes: Vec<&str> = both
        .stderr
        .lines()
        .filter(|line| line.starts_with("note: the context"))
        .collect();
    assert_eq!(notes.len(), 1, "{}", both.stderr);
    let dropped = format!("the oldest {} tokens of the prompt were not read", {
        serde_json::from_str::<Value>(&both.stdout).unwrap()["dropped_tokens"].clone()
    });
    assert!(notes[0].contains(&dropped), "{notes:?} {dropped}");
    let short = generate(&["--prompt", "the", "--max-tokens", "5", "--json"]);
    assert!(!short.stderr.contains("context"), "{}", short.stderr);
    assert_eq!(short.json()["shifted_tokens"], 0);
}

#[test]
fn a_stop_string_may_lie_across_tokens() {
    let args = [
        "--prompt",
        "the",
        "--temperature",
        "0",
        "--repetition-penalty",
        "1",
        "--max-tokens",
        "20",
        "--json",
    ];
    let whole = generate(&[&args[..], &["--logprobs", "0"]].concat()).json();
    let text = whole["text"].as_str().unwrap();
    // The end of one token and the beginning of the next, at every border.
    let mut borders = 0;
    let pieces: Vec<&str> = whole["logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["token"].as_str().unwrap())
        .collect();
    for pair in pieces.windows(2).take(6) {
        let (Some(last), Some(first)) = (pair[0].chars().last(), pair[1].chars().next()) else {
            continue;
        };
        let stop = format!("{last}{first}");
        let Some(at) = text.find(&stop) else { continue };
        borders += 1;
        let cut = generate(&[&args[..], &["--stop", &stop]].concat()).json();
        assert_eq!(
            (cut["text"].as_str().unwrap(), &cut["finish"]),
            (&text[..at], &"stop_string".into()),
            "{stop:?}"
        );
    }
    assert!(borders > 0, "{pieces:?}");
}

#[test]
fn a_stride_scores_what_a_plain_loop_over_windows_does() {
    let f = fixture();
    let model = f.path("model");
    let ids: Vec<usize> = (0..75).map(|i| (i * i * 7 + 3 * i + 5) % 300).collect();
    let context = 32;
    let list = |ids: &[usize]| ids.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let logits = |ids: &[usize]| {
        let args = [
            "eval",
            "--model",
            &model,
            "--ids",
            &list(ids),
            "--logits",
            "--json",
            "--threads",
            "1",
        ];
        let rows = onebit(&args).json()["logits"].clone();
        serde_json::from_value::<Vec<Vec<f64>>>(rows).unwrap()
    };
    for stride in [32, 16, 7] {
        let (mut nats, mut scored) = (0.0, 0);
        // Windows of the context; in each the targets that no window before has scored.
        let mut first = 0;
        while scored < ids.len() - 1 {
            let inputs = &ids[first..(first + context).min(ids.len() - 1)];
            for (i, row) in logits(inputs).iter().enumerate() {
                let target = first + i + 1;
                if target > scored {
                    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total = most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
                    nats += total - row[ids[target]];
                    scored = target;
                }
            }
            first += stride;
        }
        let args = [
            "eval",
            "--model",
            &model,
            "--ids",
            &list(&ids),
            "--stride",
            &stride.to_string(),
            "--json",
        ];
        let found = onebit(&args).json();
        assert_eq!(found["tokens"], 74);
        let (loss, expected) = (found["loss"].as_f64().unwrap(), nats / 74.0);
        assert!((loss - expected).abs() < 1e-5, "stride {stride}: {loss} {expected}");
        let ppl = found["ppl"].as_f64().unwrap();
        assert!((ppl / expected.exp() - 1.0).abs() < 1e-5, "stride {stride}: {ppl}");
    }
    for stride in ["0", "33"] {
        onebit(&["eval", "--model", &model, "--ids", "1,2,3", "--stride", stride])
            .refused(2, &["--stride", "32", stride]);
    }
}

#[test]
fn a_neural_cache_is_a_figure_of_its_own() {
    let f = fixture();
    let (model, text) = (f.path("model"), f.path("text.txt"));
    let eval = |more: &[&str]| onebit(&[&["eval", "--model", &model, "--data", &text, "--json"], more].concat());
    let plain = eval(&[]).json();
    assert!(plain.get("cache").is_none());
    let cached = eval(&["--cache", "200", "--cache-theta", "0.1", "--cache-weight", "0.2"]).json();
    assert_eq!(cached["cache"]["tokens"], 200);
    // The fixture's text says the same again and again, and its model has seen little of it.
    let loss = |facts: &serde_json::Value| facts["loss"].as_f64().unwrap();
    assert!(loss(&cached) < loss(&plain), "{cached} {plain}");
    eval(&["--cache-weight", "0.2"]).refused(2, &["need --cache"]);
    eval(&["--cache", "0"]).refused(1, &["cache", "at least 1"]);
    eval(&["--cache", "5", "--cache-weight", "1"]).refused(1, &["cache-weight"]);
    eval(&["--cache", "5", "--device", "cuda"]).refused(2, &["--cache", "CPU"]);
    onebit(&["eval", "--model", &model, "--ids", "1,2", "--logits", "--cache", "5"]).refused(2, &["--logits"]);
}

#[test]
fn dynamic_evaluation_is_a_figure_of_its_own() {
    let f = fixture();
    let (model, text) = (f.path("model"), f.path("text.txt"));
    let eval = |more: &[&str]| onebit(&[&["eval", "--model", &model, "--data", &text, "--json"], more].concat());
    let loss = |facts: &serde_json::Value| facts["loss"].as_f64().unwrap();
    let still = eval(&["--dynamic", "16", "--dynamic-lr", "0"]).json();
    let learning = eval(&["--dynamic", "16", "--dynamic-lr", "1e-3", "--dynamic-decay", "0.01"]).json();
    assert_eq!(learning["dynamic"]["tokens"], 16);
    assert_eq!(learning["tokens"], still["tokens"]);
    assert!(loss(&learning) < loss(&still), "{learning} {still}");
    eval(&["--dynamic-lr", "1"]).refused(2, &["need --dynamic"]);
    eval(&["--dynamic", "16", "--cache", "5"]).refused(2, &["--cache"]);
    eval(&["--dynamic", "16", "--stride", "5"]).refused(2, &["--stride"]);
    eval(&["--dynamic", "5000"]).refused(1, &["dynamic", "context"]);
}
