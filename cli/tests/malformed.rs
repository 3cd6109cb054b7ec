//! Arguments, prompts and metrics that nobody meant, and the first inputs of their fuzz targets.
#![cfg(feature = "train")]

#[path = "../../model/tests/common/seed.rs"]
mod seed;

use onebit_cli::fuzzing::{arguments, metrics, prompts};
use seed::{damaged, seed};

fn words(line: &str) -> Vec<String> {
    line.split('\n').map(str::to_owned).collect()
}

#[test]
fn seeds_of_arguments() {
    for (name, line) in [
        (
            "train",
            "train\n--config\nwikitext2-cpu\n--data\nx.tokens\n--tokenizer\nt.json\n--output-dir\nm\n--lr\n3e-3\n--max-steps=120",
        ),
        (
            "generate",
            "generate\n--model\nm\n--prompt\n--x=1\n--temperature\n0\n--n\n4\n--json",
        ),
        ("eval", "eval\n--model\nm\n--ids\n1,17,42\n--logits"),
        (
            "export",
            "export\n--model\nm\n--format\ngguf\n--output\nx.gguf\n--head\nint8",
        ),
        (
            "tokenizer",
            "tokenizer\ntrain\n--input\na\nb\n--vocab-size\n4096\n--output\nt.json",
        ),
        ("chat", "chat\n--model\nm\n--system\n--\n--kv-type\nf16"),
        ("plot", "plot\na.jsonl\n--output\nx.svg\n--\n--b=c"),
    ] {
        arguments(words(line)).unwrap_or_else(|message| panic!("{name}: {message}"));
        seed("cli_arguments", name, line.as_bytes());
    }
    let long = "x".repeat(4000);
    for line in [
        "",
        "--help",
        "train\n--help",
        "tran",
        "train\n--lr",
        "train\n--lr\nNaN\n--lr\n1e999",
        "train\n--max-steps\n-1",
        "train\n--max-steps\n18446744073709551616",
        "train\n--batch-size\n\u{663}",
        "generate\n--prompt",
        "--=\n-\n--\n---",
        "generate\n--\u{1f600}=\0",
        &format!("train\n--{long}={long}"),
    ] {
        let message = arguments(words(line)).unwrap_err();
        assert!(!message.is_empty() && !message.contains('\n'), "{line:?}: {message}");
        damaged(&["cli_arguments"], line.as_bytes());
    }
}

#[test]
fn seeds_of_prompts() {
    let good = "{\"prompt\": \"a\\nb\", \"id\": 3}\n\n{\"prompt\": \"\"}\n";
    assert_eq!(prompts(good, true).unwrap(), ["a\nb", ""]);
    assert_eq!(prompts("a b\n\n  c \r\n", false).unwrap(), ["a b", "  c "]);
    seed("prompts", "objects", good.as_bytes());
    seed("prompts", "lines", b"a b\n\n  c \r\n");
    for text in [
        "{\"prompt\": 1}",
        "{\"prompt\": \"a\", \"prompt\": \"b\"}",
        "[\"a\"]",
        "{\"prompt\": \"\\ud800\"}",
    ] {
        assert!(prompts(text, true).is_err(), "{text}");
        damaged(&["prompts"], text.as_bytes());
    }
    for json in [false, true] {
        assert!(prompts(" \n\r\n", json).is_err());
    }
}

#[test]
fn seeds_of_metrics() {
    let good = "{\"step\":1,\"phase\":\"warmup\",\"loss\":5.0,\"lr\":0.1}\n{\"step\":2,\"val_loss\":4.5}\n{\"step\":3,\"phase\":\"hard\",\"loss\":3.0}\n";
    let (picture, curve) = metrics(good).unwrap();
    assert!(picture.starts_with("<svg") && curve.contains("loss"));
    seed("metrics", "good", good.as_bytes());
    for text in [
        "",
        "{}",
        "{\"step\":\"1\",\"loss\":1}",
        "{\"step\":1,\"loss\":null}",
        "{\"step\":1e999,\"loss\":1}\n",
        "{\"step\":0,\"loss\":1,\"lr\":-1e308}\n{\"step\":0,\"loss\":-1e308,\"val_loss\":-1e308,\"lr\":0}\n",
        "[1]\n",
    ] {
        assert!(metrics(text).is_err(), "{text}");
        damaged(&["metrics"], text.as_bytes());
    }
    // Found by fuzzing, too: a learning rate, and a phase, long after the last loss.
    for last in ["\"lr\":1", "\"phase\":\"hard\""] {
        let text = format!("{{\"step\":0,\"loss\":1,\"lr\":1}}\n{{\"step\":144867440737095515,{last}}}\n");
        assert!(metrics(&text).is_ok(), "{text}");
        damaged(&["metrics"], text.as_bytes());
    }
    // Numbers that can be read and that no run has. Fuzzing found the first: an axis from -1e308 to 1e308 is a panic of who draws it.
    for (step, loss, drawn) in [
        ("0", "-1e308", false),
        ("1e308", "1e308", false),
        ("-1", "0", false),
        ("1e30", "1e30", true),
        ("5e-324", "5e-324", true),
        ("1e20", "1e-300", true),
        ("18446744073709551615", "1", true),
    ] {
        let text = format!(
            "{{\"step\":0,\"loss\":{loss},\"lr\":{loss}}}\n{{\"step\":{step},\"loss\":{loss},\"val_loss\":{loss},\"lr\":{step}}}\n"
        );
        assert_eq!(metrics(&text).is_ok(), drawn, "{text}");
        damaged(&["metrics"], text.as_bytes());
    }
}
