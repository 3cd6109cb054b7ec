//! `generation_config.json`.

use onebit_model::files::{FileError, GENERATION_FILE, GenerationConfig};

use crate::harness::{check_damage, check_truncations, seed_damaged};
use crate::small;

pub const GOOD: &str = r#"{"bos_token_id": 1, "eos_token_id": [2, 7], "do_sample": true, "temperature": 0.6, "top_k": 40, "top_p": 0.9,
    "min_p": 0.05, "repetition_penalty": 1.1, "max_new_tokens": 512, "transformers_version": "4.40.0"}"#;

fn refused(text: &str) -> String {
    seed_damaged(&["generation_config"], text.as_bytes());
    match GenerationConfig::from_json(text) {
        Err(FileError::Json { message, .. }) => message,
        other => panic!("{text:.80}: {other:?}"),
    }
}

#[test]
fn each_class_has_its_own_message() {
    let mut seen = Vec::new();
    for (text, expected) in [
        ("[]".to_string(), "expected an object"),
        ("{".to_string(), "EOF"),
        (format!("{GOOD} 1"), "trailing"),
        (format!("{{\"top_p\": {}", "[".repeat(100_000)), "recursion limit"),
        ("{\"top_p\": 0.5, \"top_p\": 0.9}".into(), "`top_p` stands twice"),
        ("{\"num_beams\": 4}".into(), "unknown key"),
        ("{\"do_sample\": 1}".into(), "`do_sample`: expected true or false"),
        ("{\"do_sample\": \"true\"}".into(), "found \"true\""),
        (
            "{\"temperature\": \"hot\"}".into(),
            "`temperature`: expected a number from",
        ),
        ("{\"temperature\": 1e300}".into(), "found 1e+300; correct"),
        ("{\"temperature\": -0.1}".into(), "found -0.1"),
        ("{\"top_p\": 1.5}".into(), "from 0 to 1"),
        ("{\"top_p\": NaN}".into(), "expected value"),
        ("{\"top_p\": 1e999}".into(), "out of range"),
        ("{\"top_k\": -1}".into(), "`top_k`: expected a whole number"),
        ("{\"top_k\": 1.5}".into(), "found 1.5; correct"),
        ("{\"top_k\": true}".into(), "found true"),
        ("{\"repetition_penalty\": 0}".into(), "`repetition_penalty`"),
        ("{\"max_new_tokens\": 18446744073709551615}".into(), "`max_new_tokens`"),
        (
            "{\"eos_token_id\": [1, 4294967296]}".into(),
            "`eos_token_id`: expected a whole number",
        ),
        ("{\"bos_token_id\": [1]}".into(), "`bos_token_id`"),
    ] {
        let message = refused(&text);
        assert!(message.contains(expected), "{text:.80}: {message}");
        assert!(message.len() < 300, "{message}");
        assert!(!seen.contains(&message), "{message}");
        seen.push(message);
    }
    // A value as long as the file is not repeated whole.
    assert!(refused(&format!("{{\"top_k\": \"{}\"}}", "x".repeat(100_000))).len() < 300);
}

#[test]
fn files_that_are_too_long_or_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(GENERATION_FILE);
    small::check_no_texts(&path, 4 << 20, || match GenerationConfig::read(dir.path()) {
        Err(FileError::Io { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    });
}

/// What is accepted is the same after it was written and read again.
fn read(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(config) = GenerationConfig::from_json(text) {
        assert_eq!(GenerationConfig::from_json(&config.to_json()).unwrap(), config);
    }
}

#[test]
fn cut_or_damaged_files_never_panic() {
    GenerationConfig::from_json(GOOD).unwrap();
    check_truncations(GENERATION_FILE, GOOD.as_bytes(), |bytes| {
        assert!(GenerationConfig::from_json(str::from_utf8(bytes).unwrap()).is_err() || bytes.len() == GOOD.len());
    });
    check_damage(GENERATION_FILE, GOOD.as_bytes(), 6000, read);
}
