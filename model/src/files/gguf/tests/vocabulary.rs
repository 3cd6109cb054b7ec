//! The tokenizer, the tokens around a text and the template travel inside the file.

use super::*;
use crate::files::GenerationConfig;
use crate::files::gguf::{GgufError, Value};
use crate::tokenizer::{GgmlVocabulary, Tokenizer, train_word};

/// A byte-level tokenizer of fewer tokens than the model has rows.
fn tokenizer() -> Tokenizer {
    let mut vocabulary = GgmlVocabulary {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: ["<|end|>", "h", "i", "\u{120}", "hi", "\u{120}hi", "a"]
            .map(String::from)
            .to_vec(),
        merges: ["h i", "\u{120} hi"].map(String::from).to_vec(),
        eos: Some(0),
        bos: Some(0),
        ..GgmlVocabulary::default()
    };
    vocabulary.token_types = vec![1; 7];
    vocabulary.token_types[0] = 3;
    Tokenizer::from_ggml(&vocabulary).unwrap()
}

#[test]
fn a_tokenizer_with_fewer_tokens_than_rows_is_filled_up_and_read_back() {
    let tokenizer = tokenizer();
    let mut config = bitnet();
    config.eos_token_ids = vec![0, 6];
    let generation = GenerationConfig::from_json(r#"{"eos_token_id": [3]}"#).unwrap();
    let options = GgufOptions {
        tokenizer: Some(&tokenizer),
        generation: Some(&generation),
        chat_template: Some("{{ messages }}"),
        ..GgufOptions::default()
    };
    let back = read(&written(&made(config.clone()), &options).unwrap());
    assert!(back.has_tokenizer());
    let again = back.tokenizer().unwrap().unwrap();
    for text in ["hi", " hi hi", "ahi<|end|>hi"] {
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text}");
    }
    assert_eq!(again.eos(), Some(0));
    assert_eq!(back.chat_template(), Some("{{ messages }}"));
    assert_eq!(back.config().eos_token_ids, config.eos_token_ids);
    assert_eq!(back.config().bos_token_id, None);
    let keys = back.container().metadata();
    let id = |key: &str| keys.get(&format!("tokenizer.ggml.{key}_token_id"));
    // The model's ends first, then those of its sampling settings.
    assert_eq!(
        [id("eos"), id("eot"), id("eom")],
        [0, 6, 3].map(Value::Unsigned).each_ref().map(Some)
    );
    let Some(Value::Array(tokens)) = keys.get("tokenizer.ggml.tokens") else {
        panic!("no tokens")
    };
    assert_eq!(tokens.count, 40);
}

#[test]
fn the_token_before_a_text_is_put_there_only_where_the_model_wants_it() {
    let tokenizer = tokenizer();
    let options = GgufOptions {
        tokenizer: Some(&tokenizer),
        ..GgufOptions::default()
    };
    for (bos, added) in [(None, false), (Some(0), true)] {
        let mut config = bitnet();
        config.bos_token_id = bos;
        let back = read(&written(&made(config), &options).unwrap());
        assert_eq!(back.config().bos_token_id, bos);
        let keys = back.container().metadata();
        assert_eq!(keys["tokenizer.ggml.add_bos_token"], Value::Bool(added));
        assert_eq!(keys["tokenizer.ggml.bos_token_id"], Value::Unsigned(0));
    }
}

#[test]
fn a_tokenizer_that_ggml_has_no_form_for_stays_as_it_is() {
    let text = "the cat sat on the mat\nthe dog sat\n";
    let words = train_word([text], None).unwrap();
    let mut config = bitnet();
    config.vocab_size = 40.max(words.vocab_size());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let options = GgufOptions {
        tokenizer: Some(&words),
        ..GgufOptions::default()
    };
    let notes = save_gguf(&path, &made(config), &options, &|_, _| {}).unwrap().notes;
    assert!(
        notes.iter().any(|note| note.contains("for this program alone")),
        "{notes:?}"
    );
    let back = GgufModel::open(&path).unwrap();
    let again = back.tokenizer().unwrap().unwrap();
    assert_eq!(again.json(), words.json());
}

#[test]
fn a_division_into_words_that_the_file_does_not_name_is_told() {
    let tokenizer = tokenizer();
    let options = GgufOptions {
        tokenizer: Some(&tokenizer),
        ..GgufOptions::default()
    };
    let mut bytes = written(&made(bitnet()), &options).unwrap();
    assert!(read(&bytes).notes().is_empty());
    let key = b"tokenizer.ggml.pre";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at..at + key.len()].copy_from_slice(b"general.unused_key");
    let back = read(&bytes);
    let [note] = back.notes() else {
        panic!("{:?}", back.notes())
    };
    assert!(note.contains("tokenizer.ggml.pre is absent"), "{note}");
    let again = back.tokenizer().unwrap().unwrap();
    assert_eq!(again.to_ggml().unwrap().pre.as_deref(), Some("default"));
}

#[test]
fn more_tokens_than_rows_are_refused() {
    let tokenizer = tokenizer();
    let mut config = bitnet();
    config.vocab_size = 5;
    let options = GgufOptions {
        tokenizer: Some(&tokenizer),
        ..GgufOptions::default()
    };
    match written(&made(config), &options).unwrap_err() {
        FileError::Gguf { source, .. } => assert!(matches!(*source, GgufError::Tokenizer(_)), "{source}"),
        other => panic!("{other}"),
    }
}
