use super::*;

#[test]
fn writing_then_reading_is_the_identity() {
    let full = GenerationConfig {
        temperature: Some(0.8),
        top_k: Some(50),
        top_p: Some(0.9),
        min_p: Some(0.05),
        repetition_penalty: Some(1.1),
        max_new_tokens: Some(100),
        bos_token_id: Some(1),
        eos_token_ids: vec![2, 3],
        suppress_tokens: vec![0, 7],
    };
    let greedy = GenerationConfig {
        temperature: Some(0.0),
        eos_token_ids: vec![2],
        ..full.clone()
    };
    for config in [full, greedy, GenerationConfig::default()] {
        assert_eq!(
            GenerationConfig::from_json(&config.to_json()).unwrap(),
            config,
            "{}",
            config.to_json()
        );
    }
    let text = GenerationConfig {
        temperature: Some(0.8),
        ..Default::default()
    }
    .to_json();
    assert!(text.contains("\"temperature\": 0.8\n"), "{text}");
}

#[test]
fn a_published_file_is_read() {
    let text = r#"{"_from_model_config": true, "bos_token_id": 128000, "do_sample": true,
        "eos_token_id": [128001, 128009], "max_length": 4096, "temperature": 0.6, "top_p": 0.9,
        "transformers_version": "4.40.0"}"#;
    let config = GenerationConfig::from_json(text).unwrap();
    assert_eq!(
        (config.temperature, config.top_p, config.top_k),
        (Some(0.6), Some(0.9), None)
    );
    assert_eq!(config.eos_token_ids, [128_001, 128_009]);
}

#[test]
fn wrong_values_and_unknown_keys_are_refused() {
    for (text, word) in [
        ("{\"temprature\": 1}", "did you mean `temperature`"),
        ("{\"num_beams\": 4}", "unknown key `num_beams`"),
        ("{\"top_p\": 1.5}", "from 0 to 1"),
        ("{\"temperature\": \"hot\"}", "`temperature`"),
        ("{\"top_k\": -1}", "`top_k`"),
        ("{\"eos_token_id\": [1, 4294967296]}", "`eos_token_id`"),
        ("{\"do_sample\": 1}", "`do_sample`"),
        ("[]", "expected an object"),
        ("{", "not valid JSON"),
    ] {
        let message = GenerationConfig::from_json(text).unwrap_err().to_string();
        assert!(
            message.contains(word) && message.starts_with("generation_config.json"),
            "{text}: {message}"
        );
    }
}

#[test]
fn an_absent_file_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(GenerationConfig::read(dir.path()).unwrap(), None);
}
