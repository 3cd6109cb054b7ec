//! The packed form is the tokenizer it was made from, and damaged bytes are harmless.

use serde_json::json;

use super::*;
use crate::bpe::words::LLAMA3;
use crate::tokenizer::packed::tokenize;

/// A tokenizer as Llama 3 has one: words by an expression of its own, whole words before merges, merges as texts, tokens added after the
/// vocabulary.
pub(super) fn llama_like() -> Tokenizer {
    let plain = train_bpe([sample()], 700).unwrap();
    let mut value: Value = serde_json::from_slice(plain.json()).unwrap();
    let merges: Vec<String> = value["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    value["model"]["merges"] = json!(merges);
    value["model"]["ignore_merges"] = json!(true);
    value["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": LLAMA3 }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ]});
    let added = value["added_tokens"].as_array_mut().unwrap();
    for (i, (content, special)) in [("<|begin_of_text|>", true), ("the whale", false), ("é!", true)]
        .iter()
        .enumerate()
    {
        added.push(json!({
            "id": plain.vocab_size() + i, "content": content, "single_word": false, "lstrip": false, "rstrip": i == 1,
            "normalized": false, "special": special,
        }));
    }
    Tokenizer::from_bytes(value.to_string()).unwrap()
}

fn unpacked(tokenizer: &Tokenizer, bytes: Vec<u8>) -> Result<Tokenizer> {
    Tokenizer::from_packed(bytes.into(), tokenizer.json().to_vec().into())
}

#[test]
fn the_packed_form_gives_the_same_ids_and_the_same_text() {
    let words = train_whole_words([sample()], 400).unwrap();
    for tokenizer in [train_bpe([sample()], 1000).unwrap(), words, llama_like()] {
        let bytes = tokenizer.pack().expect("byte-level BPE");
        assert_eq!(tokenizer.pack().as_ref(), Some(&bytes), "the same bytes each time");
        let packed = unpacked(&tokenizer, bytes.clone()).unwrap();
        assert_eq!(packed.json(), tokenizer.json());
        assert_eq!(packed.fingerprint(), tokenizer.fingerprint());
        assert_eq!(packed.vocab_size(), tokenizer.vocab_size());
        assert_eq!(
            (packed.bos(), packed.eos(), packed.unknown(), packed.is_lossless()),
            (
                tokenizer.bos(),
                tokenizer.eos(),
                tokenizer.unknown(),
                tokenizer.is_lossless()
            )
        );
        assert_eq!(packed.pack(), Some(bytes));
        for id in 0..tokenizer.vocab_size() as u32 + 2 {
            assert_eq!(packed.token_of(id), tokenizer.token_of(id));
            assert_eq!(packed.is_special(id), tokenizer.is_special(id));
            assert_eq!(
                (packed.has_id(id), tokenizer.has_id(id)),
                (tokenizer.token_of(id).is_some(), packed.has_id(id))
            );
            let spelling = tokenizer.token_of(id).unwrap_or_else(|| "none such".into());
            assert_eq!(packed.id_of(&spelling), tokenizer.id_of(&spelling));
        }
        let mut random = Random(5);
        let texts = (0..400).map(|i| random.text(1 + i % 60));
        let long = "abcabcab".repeat(300);
        for text in texts.chain([sample(), long, String::new(), "the whale  the whale".into()]) {
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(packed.encode(&text).unwrap(), ids, "{text:?}");
            assert_eq!(
                packed.decode_bytes(&ids).unwrap(),
                tokenizer.decode_bytes(&ids).unwrap()
            );
            assert_eq!(streamed(&packed, &ids), streamed(&tokenizer, &ids));
        }
    }
}

#[test]
fn merges_of_equal_rank_go_from_left_to_right_and_stale_ones_are_dropped() {
    // "aaaa…" has one merge at every place, and each merge takes its neighbours away.
    let tokenizer = train_bpe(["aaaa aaaaa aaa aaaaaaaa aaaaaaa ".repeat(30)], 264).unwrap();
    let packed = unpacked(&tokenizer, tokenizer.pack().unwrap()).unwrap();
    for n in 0..40 {
        let text = "a".repeat(n);
        assert_eq!(packed.encode(&text).unwrap(), tokenizer.encode(&text).unwrap(), "{n}");
    }
}

#[test]
fn other_schemes_have_no_packed_form() {
    assert_eq!(train_word(["a b c a"], None).unwrap().pack(), None);
    let plain = train_bpe([sample()], 300).unwrap();
    for (key, value) in [
        ("byte_fallback", json!(true)),
        ("dropout", json!(0.5)),
        ("continuing_subword_prefix", json!("##")),
        ("end_of_word_suffix", json!("</w>")),
    ] {
        let mut changed: Value = serde_json::from_slice(plain.json()).unwrap();
        changed["model"]["merges"] = json!([]);
        changed["model"][key] = value;
        assert_eq!(
            Tokenizer::from_bytes(changed.to_string()).unwrap().pack(),
            None,
            "{key}"
        );
    }
    let mut changed: Value = serde_json::from_slice(plain.json()).unwrap();
    changed["pre_tokenizer"] = json!({ "type": "Whitespace" });
    assert_eq!(Tokenizer::from_bytes(changed.to_string()).unwrap().pack(), None);
}

#[test]
fn damaged_tables_give_an_error_or_other_ids_and_never_a_panic() {
    let tokenizer = train_bpe([sample()], 300).unwrap();
    let bytes = tokenizer.pack().unwrap();
    for end in (0..bytes.len()).step_by(7) {
        let error = unpacked(&tokenizer, bytes[..end].to_vec()).unwrap_err().to_string();
        assert!(error.contains("the packed tokenizer"), "{error}");
    }
    let mut usable = 0;
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= [1, 0x80, 0xff][at % 3];
        if let Ok((tables, _)) = Tables::open(bytes.clone().into()) {
            usable += 1;
            let tokens = tokenize(&tables, "ĠtheĠcat'sĠmat");
            assert!(tokens.iter().all(|token| token.offsets.0 < token.offsets.1));
            let _ = (tables.spelling(u32::MAX), tables.find("th"), tables.iter().count());
        }
        // The library's part of opening one takes milliseconds.
        if at % 97 == 0
            && let Ok(packed) = unpacked(&tokenizer, bytes)
        {
            let ids = packed.encode("the cat's mat").unwrap_or_default();
            let _ = (packed.decode(&ids), packed.token_of(u32::MAX), packed.id_of("th"));
        }
    }
    assert!(
        usable > bytes.len() / 2,
        "{usable} of {} changes leave tables",
        bytes.len()
    );
}
