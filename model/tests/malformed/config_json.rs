//! `config.json`: sizes for which there is no model are refused before anything of that size is allocated.

use onebit_model::config::json::{MAX_CONFIG_BYTES, parse};
use onebit_model::config::{ConfigError, ModelConfig};
use onebit_model::files::{CONFIG_FILE, FileError, read_config};
use serde_json::{Value, json};

use crate::harness::{check_damage, check_truncations, peak_of, seed_damaged};
use crate::small;

/// Memory for reading a config of a few hundred bytes.
const SMALL: usize = 256 << 10;

fn refused(text: &str) -> ConfigError {
    seed_damaged(&["config_json"], text.as_bytes());
    let (result, peak) = peak_of(|| parse(text));
    assert!(peak < SMALL + 64 * text.len(), "{text:.200}: {peak} bytes");
    match result {
        Err(error) => error,
        Ok(parsed) => panic!("{text:.200}: {parsed:?}"),
    }
}

/// A good config with one key set.
fn with(key: &str, value: Value) -> String {
    let mut config: Value = serde_json::from_str(&small::config().to_json()).unwrap();
    config[key] = value;
    config.to_string()
}

#[test]
fn implausible_sizes_are_refused_without_memory() {
    let sizes = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ];
    for key in sizes {
        for value in [
            json!(0),
            json!(1_000_000_000),
            json!(u64::from(u32::MAX) + 1),
            json!(u64::MAX >> 1),
            json!(u64::MAX),
        ] {
            let text = with(key, value);
            assert!(matches!(refused(&text), ConfigError::Invalid { .. }), "{text}");
        }
        for value in [
            json!(-1),
            json!(i64::MIN),
            json!(1.5),
            json!(1e300),
            json!("16"),
            json!(true),
            json!([16]),
            json!({}),
        ] {
            let text = with(key, value);
            assert!(matches!(refused(&text), ConfigError::WrongType { .. }), "{text}");
        }
    }
    // Each allowed, all together more than there can be.
    let mut config: Value = serde_json::from_str(&small::config().to_json()).unwrap();
    for (key, value) in [
        ("vocab_size", 1u64 << 22),
        ("hidden_size", 1 << 17),
        ("intermediate_size", 1 << 19),
        ("num_hidden_layers", 1 << 12),
        ("num_attention_heads", 1 << 10),
        ("num_key_value_heads", 1 << 10),
        ("head_dim", 128),
    ] {
        config[key] = value.into();
    }
    config
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !["onebit", "quantization_config"].contains(&key.as_str()));
    let (result, _) = peak_of(|| parse(&config.to_string()));
    assert!(
        matches!(
            result,
            Err(ConfigError::Invalid {
                field: "parameter count",
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn wrong_kinds_and_numbers_are_refused() {
    for (key, value) in [
        ("tie_word_embeddings", json!(1)),
        ("tie_word_embeddings", json!("true")),
        ("rms_norm_eps", json!("1e-5")),
        ("hidden_act", json!(7)),
        ("bos_token_id", json!(-1)),
        ("eos_token_id", json!([1, "2"])),
        ("quantization_config", json!([])),
    ] {
        let text = with(key, value);
        assert!(matches!(refused(&text), ConfigError::WrongType { .. }), "{text}");
    }
    for (key, value) in [
        ("rms_norm_eps", json!(0)),
        ("rms_norm_eps", json!(-1e-5)),
        ("rms_norm_eps", json!(1e300)),
        ("bos_token_id", json!(12)),
        ("eos_token_id", json!(12)),
        ("eos_token_id", json!(vec![0; 65])),
    ] {
        let text = with(key, value);
        assert!(matches!(refused(&text), ConfigError::Invalid { .. }), "{text}");
    }
    assert!(matches!(
        refused(&with("hidden_size", Value::Null)),
        ConfigError::MissingKey { key: "hidden_size", .. }
    ));
    assert!(matches!(
        refused(&with("hiden_size", json!(1))),
        ConfigError::UnknownKey { .. }
    ));
    assert!(matches!(
        refused(&with("model_type", json!("gpt2"))),
        ConfigError::Unsupported { .. }
    ));
    for number in ["NaN", "Infinity", "1e999", "-"] {
        let text = with("rms_norm_eps", json!("HERE")).replace("\"HERE\"", number);
        assert!(matches!(refused(&text), ConfigError::Syntax { .. }), "{text}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    let good = small::config().to_json();
    let cases = [
        (String::new(), "EOF"),
        ("[]".into(), "expected an object"),
        (format!("{good}{{}}"), "trailing"),
        ("[".repeat(100_000), "recursion limit"),
        (
            format!("{{\"quantization_config\":{}", "{\"a\":".repeat(100_000)),
            "recursion limit",
        ),
        ("{\"a\": \"\\ud800\"}".into(), "hex escape"),
    ];
    for (text, expected) in cases {
        let error = refused(&text);
        assert!(
            matches!(&error, ConfigError::Syntax { message } if message.contains(expected)),
            "{text:.80}: {error}"
        );
    }
}

/// Published configurations have a key twice, so the last counts: in a text, and so in every reader of it here.
#[test]
fn of_a_key_given_twice_the_last_counts() {
    let text = with("rms_norm_eps", json!(0.25)).replacen('{', "{\"rms_norm_eps\": 0.5, ", 1);
    assert_eq!(text.matches("\"rms_norm_eps\"").count(), 2);
    assert_eq!(parse(&text).unwrap().config.rms_norm_eps, 0.25);
}

#[test]
fn files_that_are_too_long_or_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CONFIG_FILE);
    small::check_no_texts(&path, 4 * MAX_CONFIG_BYTES as usize, || match read_config(dir.path()) {
        Err(FileError::Config {
            source: ConfigError::Io { message, .. },
            ..
        }) => message,
        other => panic!("{other:?}"),
    });
}

/// What is accepted has a model, and is the same after it was written and read again.
fn read(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(parsed) = parse(text) {
        parsed.config.validate().unwrap();
        assert_eq!(ModelConfig::from_json(&parsed.config.to_json()).unwrap(), parsed.config);
    }
}

#[test]
fn cut_or_damaged_configs_never_panic() {
    let good = small::config().to_json();
    check_truncations("config.json", good.as_bytes(), |bytes| {
        let text = str::from_utf8(bytes).unwrap();
        assert!(parse(text).is_err() || text.len() >= good.trim_end().len());
    });
    check_damage("config.json", good.as_bytes(), 6000, read);
}
