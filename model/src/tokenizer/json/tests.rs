use serde_json::json;

use super::*;
use crate::tokenizer::{Tokenizer, TokenizerError};

fn bpe() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [
            {"id": 3, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
    })
}

#[track_caller]
fn refused(json: impl ToString) -> JsonError {
    match Tokenizer::from_bytes(json.to_string()) {
        Err(TokenizerError::Invalid { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn with(f: impl Fn(&mut Value)) -> JsonError {
    let mut json = bpe();
    f(&mut json);
    refused(json)
}

#[test]
fn the_sound_file_is_read() {
    let tokenizer = Tokenizer::from_bytes(bpe().to_string()).unwrap();
    assert_eq!(tokenizer.encode("abb<s>").unwrap(), [2, 1, 3]);
    let mut other = bpe();
    other["model"]["merges"] = json!(["#version: 0.2", "a b"]);
    let tokenizer = Tokenizer::from_bytes(other.to_string()).unwrap();
    assert_eq!(tokenizer.encode("abb").unwrap(), [2, 1]);
}

#[test]
fn no_json_and_half_a_file() {
    assert_eq!(refused(""), JsonError::Truncated { line: 1, column: 0 });
    assert!(matches!(
        refused("{} x"),
        JsonError::Type { .. } | JsonError::Syntax { .. }
    ));
    assert!(matches!(refused("tokenizer"), JsonError::Syntax { .. }));
    assert!(matches!(refused(bpe().to_string() + "}"), JsonError::Syntax { .. }));
    let text = bpe().to_string();
    for end in 0..text.len() {
        assert!(matches!(refused(&text[..end]), JsonError::Truncated { .. }), "{end}");
    }
}

#[test]
fn wrong_types() {
    for json in [
        json!([1]),
        json!("x"),
        json!({}),
        json!({"model": null}),
        json!({"model": {}}),
    ] {
        assert!(matches!(refused(&json), JsonError::Type { .. }), "{json}");
    }
    let typed: [(&str, Value); 9] = [
        ("/model", json!([])),
        ("/model/vocab", json!(7)),
        ("/model/vocab", json!([["a", "b"]])),
        ("/model/vocab/a", json!("0")),
        ("/model/vocab/a", json!(-1)),
        ("/model/vocab/a", json!(0.5)),
        ("/model/merges", json!("a b")),
        ("/added_tokens", json!({})),
        ("/added_tokens/0", json!(1)),
    ];
    for (place, value) in typed {
        let error = with(|json| *json.pointer_mut(place).unwrap() = value.clone());
        assert!(matches!(error, JsonError::Type { .. }), "{place} {value}: {error}");
    }
    for (place, value) in [
        ("/model/type", json!("Magic")),
        ("/normalizer", json!(3)),
        ("/decoder", json!({"type": "?"})),
    ] {
        let error = with(|json| *json.pointer_mut(place).unwrap() = value.clone());
        assert!(matches!(error, JsonError::Library { .. }), "{place} {value}: {error}");
    }
}

#[test]
fn tokens_ids_and_merges() {
    assert_eq!(with(|j| j["model"]["vocab"] = json!({})), JsonError::Empty);
    assert_eq!(
        refused(bpe().to_string().replace(r#""b":1"#, r#""b":1,"a":9"#)),
        JsonError::DuplicateToken {
            token: "a".to_owned(),
            first: 0,
            second: 9
        }
    );
    assert_eq!(
        with(|j| j["model"]["vocab"]["ab"] = json!(1)),
        JsonError::DuplicateId {
            id: 1,
            first: "ab".to_owned(),
            second: "b".to_owned()
        }
    );
    for id in [4_000_000_000u64, 5_000_000_000, u64::MAX, 80_000] {
        assert_eq!(
            with(|j| j["model"]["vocab"]["b"] = json!(id)),
            JsonError::IdOutside {
                token: "b".to_owned(),
                id,
                tokens: 3
            }
        );
    }
    assert_eq!(
        with(|j| j["added_tokens"][0]["id"] = json!(4_000_000_000u32)),
        JsonError::AddedId {
            token: "<s>".to_owned(),
            id: 4_000_000_000,
            found: 3
        }
    );
    let twice = with(|j| {
        let again = j["added_tokens"][0].clone();
        j["added_tokens"].as_array_mut().unwrap().push(again);
        j["added_tokens"][1]["id"] = json!(4);
    });
    assert_eq!(
        twice,
        JsonError::AddedId {
            token: "<s>".to_owned(),
            id: 4,
            found: 3
        }
    );
    let missing = |index, token: &str| JsonError::MergeToken {
        index,
        token: token.to_owned(),
    };
    assert_eq!(
        with(|j| j["model"]["merges"] = json!([["a", "b"], ["a", "c"]])),
        missing(1, "c")
    );
    assert_eq!(with(|j| j["model"]["merges"] = json!(["c a"])), missing(0, "c"));
    assert_eq!(with(|j| j["model"]["merges"] = json!([["b", "a"]])), missing(0, "ba"));
    for form in [
        json!("ab"),
        json!("a b c"),
        json!(["a"]),
        json!(["a", "b", "c"]),
        json!([]),
    ] {
        let error = with(|j| j["model"]["merges"] = json!([["a", "b"], form]));
        assert_eq!(error, JsonError::MergeForm { index: 1 }, "{form}");
    }
    // The library would cut the right token at the prefix's length.
    assert_eq!(
        with(|j| j["model"]["continuing_subword_prefix"] = json!("####")),
        JsonError::MergeForm { index: 0 }
    );
    assert_eq!(
        refused(bpe().to_string().replace(r#""merges":"#, r#""merges":[],"merges":"#)),
        JsonError::DuplicateKey {
            place: "model".to_owned(),
            key: "merges".to_owned()
        }
    );
    assert_eq!(
        refused(
            bpe()
                .to_string()
                .replace(r#""type":"BPE""#, r#""type":"WordLevel","type":"BPE""#)
        ),
        JsonError::DuplicateKey {
            place: "model".to_owned(),
            key: "type".to_owned()
        }
    );
    assert_eq!(
        refused(
            bpe()
                .to_string()
                .replace(r#""version":"#, r#""decoder":null,"version":"#)
        ),
        JsonError::DuplicateKey {
            place: "the file".to_owned(),
            key: "decoder".to_owned()
        }
    );
}

#[test]
fn nesting_and_sizes() {
    let mut deep = json!({"type": "NFC"});
    for _ in 0..12 {
        deep = json!({"type": "Sequence", "normalizers": [deep]});
    }
    let error = with(|j| j["normalizer"] = deep.clone());
    assert_eq!(
        error,
        JsonError::TooDeep {
            part: "normalizer".to_owned(),
            limit: 16
        }
    );
    for open in ["[", "{\"a\":"] {
        let text = bpe().to_string().replace(r#"{"type":"Fuse"}"#, &open.repeat(100_000));
        assert_eq!(
            refused(text),
            JsonError::TooDeep {
                part: "decoder".to_owned(),
                limit: 16
            }
        );
        assert!(matches!(
            refused(open.repeat(100_000)),
            JsonError::Type { .. } | JsonError::TooDeep { .. }
        ));
    }
    for (place, part) in [("", "the file"), ("/model", "model")] {
        let error = with(|j| (0..64).for_each(|i| j.pointer_mut(place).unwrap()[format!("key {i}")] = json!(0)));
        assert_eq!(
            error,
            JsonError::TooLarge {
                part: part.to_owned(),
                limit: 64
            }
        );
    }
    let error = with(|j| j["post_processor"] = json!(vec![0; 70_000]));
    assert_eq!(
        error,
        JsonError::TooLarge {
            part: "post_processor".to_owned(),
            limit: 65_536
        }
    );
}

#[test]
fn settings_on_which_the_library_fails() {
    let error = with(|j| {
        j["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]})
    });
    assert!(matches!(error, JsonError::Setting { .. }), "{error}");
    let error = with(|j| j["decoder"] = json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}));
    assert!(matches!(error, JsonError::Setting { .. }), "{error}");
    // "/////w==" is a length of 4 GiB.
    for table in [
        json!("AAAA"),
        json!("/////w=="),
        json!("BAAAAAAAAAA="),
        json!("!"),
        json!(1),
    ] {
        let error =
            with(|j| j["normalizer"]["normalizers"][0] = json!({"type": "Precompiled", "precompiled_charsmap": table}));
        assert!(matches!(error, JsonError::Charsmap { .. }), "{table}: {error}");
    }
}
