//! Vocabularies of GGUF files against the ids that llama.cpp gives, and there and back for real tokenizers.

use std::path::PathBuf;

use onebit_model::files::gguf::Gguf;
use onebit_model::tokenizer::{TokenKind, Tokenizer};

fn shared(file: &str) -> Option<PathBuf> {
    let root = std::env::var("ONEBIT_TESTDATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into());
    let path = PathBuf::from(root).join(file);
    if !path.exists() {
        eprintln!(
            "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA",
            path.display()
        );
    }
    path.exists().then_some(path)
}

/// Texts and ids of a file of vectors.
fn vectors(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let input = shared(&format!("data/tokenizers/vectors/ggml-vocab-{name}.gguf.inp"))?;
    let output = shared(&format!("data/tokenizers/vectors/ggml-vocab-{name}.gguf.out"))?;
    let input = std::fs::read_to_string(input).unwrap();
    let output = std::fs::read_to_string(output).unwrap();
    let ids = output
        .lines()
        .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    let pairs: Vec<_> = input
        .split("\n__ggml_vocab_test__\n")
        .map(str::to_owned)
        .zip(ids)
        .collect();
    assert!(pairs.len() >= 40, "{} texts", pairs.len());
    Some(pairs)
}

/// Texts on which two tokenizers must agree.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = ["gpt-2", "llama-spm", "llama-bpe"]
        .iter()
        .filter_map(|name| vectors(name))
        .flatten()
        .map(|(text, _)| text)
        .collect();
    for file in [
        "data/wikitext-2/valid.txt",
        "data/text/tinyshakespeare.txt",
        "data/text/tinystories_197k.txt",
    ] {
        if let Some(path) = shared(file) {
            let text = std::fs::read_to_string(path).unwrap();
            let end = text.floor_char_boundary(12_000);
            texts.extend(text[..end].split_inclusive("\n\n").map(str::to_owned));
            texts.push(text[..text.floor_char_boundary(4_000)].to_owned());
        }
    }
    texts.extend((0..0x1_000u32).step_by(16).map(|start| {
        let chars = (start..start + 16).filter_map(char::from_u32);
        chars.collect()
    }));
    texts.push("a <s> b</s><unk>  <0x0A>[PAD3]<|endoftext|> <|im_start|>user\n".to_owned());
    texts.push("\u{10ffff}\u{1f980}\u{e000}\u{200d}".to_owned());
    texts
}

fn assert_same(one: &Tokenizer, other: &Tokenizer, name: &str) {
    for text in texts() {
        let ids = one.encode(&text).unwrap();
        assert_eq!(other.encode(&text).unwrap(), ids, "{name}: {text:?}");
        assert_eq!(
            other.decode(&ids).unwrap(),
            one.decode(&ids).unwrap(),
            "{name}: {text:?}"
        );
    }
    assert_eq!(
        (one.bos(), one.eos(), one.unknown(), one.padding()),
        (other.bos(), other.eos(), other.unknown(), other.padding()),
        "{name}"
    );
    for id in 0..one.vocab_size() as u32 {
        assert_eq!(one.is_special(id), other.is_special(id), "{name}: {id}");
        if let Some(token) = one.token_of(id) {
            assert_eq!(other.token_of(id), Some(token), "{name}: {id}");
        }
    }
}

#[test]
fn sentencepiece_ids_match_the_vectors() {
    let (Some(path), Some(vectors)) = (
        shared("data/tokenizers/vectors/ggml-vocab-llama-spm.gguf"),
        vectors("llama-spm"),
    ) else {
        return;
    };
    let vocabulary = Gguf::open(&path).unwrap().vocabulary().unwrap().unwrap();
    assert_eq!((vocabulary.model.as_str(), vocabulary.tokens.len()), ("llama", 32_000));
    let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
    for (text, ids) in vectors {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()),
        (Some(1), Some(2), Some(0))
    );
    assert_eq!(tokenizer.vocab_size(), 32_000);

    let back = tokenizer.to_ggml().unwrap();
    assert_eq!(back.tokens, vocabulary.tokens);
    assert_eq!(back.token_types, vocabulary.token_types);
    assert_same(&tokenizer, &Tokenizer::from_ggml(&back).unwrap(), "llama-spm");
    assert_eq!(Tokenizer::from_ggml(&back).unwrap().to_ggml().unwrap(), back);
}

#[test]
fn gpt2_ids_match_the_vectors_after_the_way_through_gguf() {
    let (Some(path), Some(vectors)) = (shared("data/tokenizers/gpt2.tokenizer.json"), vectors("gpt-2")) else {
        return;
    };
    let vocabulary = Tokenizer::from_file(path).unwrap().to_ggml().unwrap();
    assert_eq!(vocabulary.pre.as_deref(), Some("gpt-2"));
    assert_eq!((vocabulary.tokens.len(), vocabulary.merges.len()), (50_257, 50_000));
    let control = vocabulary
        .token_types
        .iter()
        .filter(|&&code| code == TokenKind::Control.code());
    assert_eq!(control.count(), 1);
    let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
    for (text, ids) in vectors {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn tokenizers_of_others_go_there_and_back() {
    for name in ["gpt2", "smollm2", "small-llama3-style"] {
        let Some(path) = shared(&format!("data/tokenizers/{name}.tokenizer.json")) else {
            return;
        };
        let tokenizer = Tokenizer::from_file(path).unwrap();
        let mut vocabulary = tokenizer.to_ggml().unwrap();
        let again = Tokenizer::from_ggml(&vocabulary).unwrap();
        assert_same(&tokenizer, &again, name);
        assert_eq!(again.to_ggml().unwrap(), vocabulary, "{name}");

        // An embedding has more rows: the rows between are tokens that no text has.
        let rows = vocabulary.tokens.len().next_multiple_of(64) + 64;
        vocabulary.pad_to(rows).unwrap();
        let padded = Tokenizer::from_ggml(&vocabulary).unwrap();
        assert_eq!(padded.vocab_size(), rows);
        assert_same(&tokenizer, &padded, name);
        assert_eq!(padded.to_ggml().unwrap(), vocabulary, "{name}");
    }
}
