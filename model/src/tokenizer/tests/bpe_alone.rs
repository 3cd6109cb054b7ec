//! The tokenizer without the library ([`crate::bpe`]) has the ids of the one that has it, and refuses by name what it does not know.

use serde_json::json;
use tokenizers::utils::SysRegex;

use super::packed::llama_like;
use super::*;
use crate::bpe::words::{self, Class, KNOWN, class};
use crate::bpe::{BpeError, BpeTokenizer, Utf8Stream};

/// Texts of people, where the test data is.
fn real_texts() -> Vec<String> {
    let files = [
        "text/tinyshakespeare.txt",
        "text/tinystories_197k.txt",
        "wikitext-2/valid.txt",
        "tokenizers/vectors/ggml-vocab-gpt-2.gguf.inp",
        "tokenizers/gpt2.tokenizer.json",
        "README.md",
    ];
    let texts = files.iter().filter_map(|file| shared(file));
    texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

fn random_texts(seed: u64, count: usize) -> impl Iterator<Item = String> {
    let mut random = Random(seed);
    (0..count).map(move |i| random.text(i % 60))
}

/// Letters, numbers and white space are those of the expressions, every one of them.
#[test]
fn every_character_is_of_the_class_that_the_expressions_see() {
    let all: Vec<char> = (0..=0x10_ffff).filter_map(char::from_u32).collect();
    let text: String = all.iter().collect();
    let mut found = vec![Class::Other; text.len()];
    for (expression, class) in [
        (r"\p{L}", Class::Letter),
        (r"\p{N}", Class::Number),
        (r"\s", Class::Space),
    ] {
        for (start, _) in SysRegex::new(expression).unwrap().find_iter(&text) {
            found[start] = class;
        }
    }
    let wrong: Vec<_> = text.char_indices().filter(|&(at, c)| class(c) != found[at]).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(found.iter().filter(|&&class| class == Class::Letter).count() > 100_000);
}

/// What matches, and what stands between two matches.
fn words_of_expression(expression: &SysRegex, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut done = 0;
    for (start, end) in expression.find_iter(text) {
        words.extend((done < start).then(|| text[done..start].to_owned()));
        words.push(text[start..end].to_owned());
        done = end;
    }
    words.extend((done < text.len()).then(|| text[done..].to_owned()));
    words
}

#[test]
fn words_are_those_of_the_expressions() {
    // Everything that an alternative can begin, end or be confused with.
    const PARTS: &[&str] = &[
        "'",
        "'s",
        "'S",
        "'ſ",
        "'ll",
        "'Ll",
        "'re",
        "'rE",
        "'v",
        "'m",
        "'D",
        "<",
        "<|",
        "|>",
        ">",
        "_",
        "a",
        "É",
        "漢",
        "1",
        "22",
        "Ⅷ",
        "½",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{85}",
        "\u{3000}",
        ".",
        "!?",
        "\u{301}",
        "👩‍🚀",
        "ⓐ",
        "\0",
    ];
    let mut random = Random(11);
    let mut texts: Vec<String> = (0..6000)
        .map(|i| (0..i % 14).map(|_| PARTS[random.below(PARTS.len())]).collect())
        .collect();
    texts.extend(random_texts(12, 1500));
    // All of it goes through all expressions; the regex engine takes half a second for a megabyte.
    let real = real_texts().into_iter();
    texts.extend(real.map(|text| text.chars().take(200_000).collect::<String>()));
    for (expression, step) in KNOWN {
        let regex = SysRegex::new(expression).unwrap();
        for text in &texts {
            let mut words = Vec::new();
            words::divide(&[*step], text, &mut |word| words.push(word.to_owned()));
            let expected = words_of_expression(&regex, text);
            if words != expected {
                let at = words
                    .iter()
                    .zip(&expected)
                    .position(|(a, b)| a != b)
                    .unwrap_or(words.len());
                panic!(
                    "{expression}: word {at} is {:?}, not {:?}",
                    words.get(at),
                    expected.get(at)
                );
            }
        }
    }
}

fn alone(tokenizer: &Tokenizer) -> std::result::Result<BpeTokenizer, BpeError> {
    BpeTokenizer::new(tokenizer.pack().expect("byte-level BPE").into())
}

fn check_same(tokenizer: &Tokenizer, alone: &BpeTokenizer, text: &str) {
    let ids = tokenizer.encode(text).unwrap();
    let found = alone.encode(text);
    if found != ids {
        let at = found.iter().zip(&ids).position(|(a, b)| a != b).unwrap_or(0);
        let from = at.saturating_sub(4);
        panic!(
            "id {at}: {:?}, not {:?}, in {:.200?}",
            &found[from..(at + 4).min(found.len())],
            &ids[from..(at + 4).min(ids.len())],
            text
        );
    }
    assert_eq!(alone.decode_bytes(&ids).unwrap(), tokenizer.decode_bytes(&ids).unwrap());
    let mut stream = Utf8Stream::default();
    let mut theirs = tokenizer.stream(true);
    for &id in &ids {
        assert_eq!(alone.push_token(id, &mut stream).unwrap(), theirs.push(id).unwrap());
    }
    assert_eq!(stream.finish(), theirs.finish().unwrap());
}

fn check_vocabulary(tokenizer: &Tokenizer, alone: &BpeTokenizer) {
    assert_eq!(alone.vocab_size(), tokenizer.vocab_size());
    assert_eq!((alone.bos(), alone.eos()), (tokenizer.bos(), tokenizer.eos()));
    for id in 0..tokenizer.vocab_size() as u32 + 2 {
        assert_eq!(alone.token_of(id).map(str::to_owned), tokenizer.token_of(id));
        assert_eq!(alone.is_special(id), tokenizer.is_special(id));
        assert_eq!(alone.has_id(id), tokenizer.has_id(id));
        let spelling = tokenizer.token_of(id).unwrap_or_else(|| "none such".into());
        assert_eq!(alone.id_of(&spelling), tokenizer.id_of(&spelling));
    }
    let outside = tokenizer.vocab_size() as u32;
    let vocab_size = tokenizer.vocab_size();
    assert_eq!(
        alone.decode(&[outside]),
        Err(BpeError::UnknownId {
            id: outside,
            vocab_size
        })
    );
}

#[test]
fn the_ids_are_those_of_the_library() {
    let words = train_whole_words([sample()], 400).unwrap();
    for tokenizer in [train_bpe([sample()], 1000).unwrap(), words, llama_like()] {
        let alone = alone(&tokenizer).unwrap();
        check_vocabulary(&tokenizer, &alone);
        let long = "abcabcab".repeat(300);
        let added = [
            "the whale  \n the whale",
            "<|begin_of_text|>the whalethe whaleé!é!<|endoftext|>",
            "the whale<|endoftext|>",
        ];
        let added = added.into_iter().map(str::to_owned);
        for text in random_texts(5, 600).chain([sample(), long, String::new()]).chain(added) {
            check_same(&tokenizer, &alone, &text);
        }
    }
}

#[test]
fn the_ids_of_other_makers_tokenizers_on_the_texts_of_people() {
    for file in [
        "gpt2.tokenizer.json",
        "smollm2.tokenizer.json",
        "small-llama3-style.tokenizer.json",
    ] {
        let Some(path) = shared(&format!("tokenizers/{file}")) else {
            return;
        };
        let tokenizer = Tokenizer::from_file(path).unwrap();
        if tokenizer.pack().is_none() {
            eprintln!("{file} has no packed form");
            continue;
        }
        let alone = alone(&tokenizer).unwrap();
        check_vocabulary(&tokenizer, &alone);
        for text in real_texts() {
            check_same(&tokenizer, &alone, &text.chars().take(400_000).collect::<String>());
        }
        random_texts(6, 300).for_each(|text| check_same(&tokenizer, &alone, &text));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let plain = train_bpe([sample()], 300).unwrap();
    let added = |single_word: bool, content: &str, id: usize| json!({ "id": id, "content": content, "single_word": single_word, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
    let split = |pattern: &str, behavior: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]})
    };
    let size = plain.vocab_size();
    for (key, value, named) in [
        (
            "normalizer",
            json!({"type": "NFC"}),
            "normalizer is not known here: {\"type\":\"NFC\"}",
        ),
        (
            "pre_tokenizer",
            split(r"\S+", "Isolated"),
            "pre_tokenizer is not known here",
        ),
        (
            "pre_tokenizer",
            split(words::WORDS, "Removed"),
            "pre_tokenizer is not known here",
        ),
        (
            "pre_tokenizer",
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            "add_prefix_space",
        ),
        ("decoder", json!({"type": "Fuse"}), "decoder is not known here"),
        (
            "added_tokens",
            json!([added(true, "word", size)]),
            "added token is not known here",
        ),
    ] {
        let mut changed: Value = serde_json::from_slice(plain.json()).unwrap();
        changed[key] = value;
        let tokenizer = Tokenizer::from_bytes(changed.to_string()).unwrap();
        let error = alone(&tokenizer).unwrap_err().to_string();
        assert!(error.contains(named), "{key}: {error}");
    }
}

#[test]
fn damaged_tables_give_an_error_or_other_ids_and_never_a_panic() {
    let tokenizer = llama_like();
    let bytes = tokenizer.pack().unwrap();
    for end in (0..bytes.len()).step_by(5) {
        assert!(BpeTokenizer::new(bytes[..end].to_vec().into()).is_err(), "{end}");
    }
    let (mut usable, mut refused) = (0, 0);
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= [1, 0x80, 0xff][at % 3];
        match BpeTokenizer::new(bytes.into()) {
            Ok(damaged) => {
                usable += 1;
                let ids = damaged.encode("<|begin_of_text|> the cat's mat, the whale  é!");
                let _ = (damaged.decode(&ids), damaged.token_of(u32::MAX), damaged.id_of("th"));
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.to_string().starts_with("packed tokenizer")
                        || error.to_string().contains("no packed tokenizer"),
                    "{error}"
                );
            }
        }
    }
    assert!(usable > 1000 && refused > 1000, "{usable} usable, {refused} refused");
}
