//! Streaming: the outputs joined are the whole text, and nothing waits that is known.

use serde_json::json;

use super::*;

/// A SentencePiece vocabulary with bytes, spaces in every place, and special tokens.
fn pieces(prefix: bool) -> Tokenizer {
    let mut vocabulary = GgmlVocabulary {
        model: "llama".to_owned(),
        add_space_prefix: Some(prefix),
        ..GgmlVocabulary::default()
    };
    let mut add = |token: &str, kind: TokenKind| {
        vocabulary.scores.push(-(vocabulary.tokens.len() as f32));
        vocabulary.tokens.push(token.to_owned());
        vocabulary.token_types.push(kind.code());
    };
    add("<unk>", TokenKind::Unknown);
    add("<s>", TokenKind::Control);
    add("</s>", TokenKind::Control);
    for byte in 0..=255 {
        add(&format!("<0x{byte:02X}>"), TokenKind::Byte);
    }
    for piece in ["▁", "▁▁", "▁a", "a", "b", "ab", "é", "▁漢", "👩", "�", "a▁", "\n"] {
        add(piece, TokenKind::Normal);
    }
    add("  ", TokenKind::UserDefined);
    add("<tool>", TokenKind::UserDefined);
    Tokenizer::from_ggml(&vocabulary).unwrap()
}

/// Bytes that make broken and whole characters often.
fn byte(random: &mut Random) -> u8 {
    const USUAL: [u8; 14] = [
        0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x91, 0xa9, 0x80, 0xff, b'x', b' ', 0xed,
    ];
    USUAL[random.below(USUAL.len())]
}

/// Ids of all kinds.
fn ids(tokenizer: &Tokenizer, random: &mut Random) -> Vec<u32> {
    let n = random.below(12);
    (0..n)
        .map(|_| match random.below(3) {
            0 => random.below(tokenizer.vocab_size()) as u32,
            1 => {
                let byte = byte(random);
                let spelled = tokenizer.id_of(&format!("<0x{byte:02X}>"));
                let character = byte_level::alphabet()[byte as usize].to_string();
                spelled.or(tokenizer.id_of(&character)).unwrap_or(0)
            }
            _ => (tokenizer.vocab_size() - 1 - random.below(14)) as u32,
        })
        .collect()
}

#[track_caller]
fn check_stream(tokenizer: &Tokenizer, ids: &[u32]) {
    let whole = tokenizer.decode(ids).unwrap();
    assert_eq!(streamed(tokenizer, ids), whole, "{ids:?}");
    let plain: Vec<u32> = ids.iter().copied().filter(|&id| !tokenizer.is_special(id)).collect();
    let mut stream = tokenizer.stream(true);
    let mut text = String::new();
    for &id in ids {
        text += &stream.push(id).unwrap();
    }
    text += &stream.finish().unwrap();
    assert_eq!(
        text,
        tokenizer.decode(&plain).unwrap(),
        "without special tokens: {ids:?}"
    );
}

/// What the stream holds back is the beginning of a character and nothing else.
fn check_prompt(tokenizer: &Tokenizer, ids: &[u32]) {
    let mut stream = tokenizer.stream(false);
    let mut text = String::new();
    for n in 1..=ids.len() {
        text += &stream.push(ids[n - 1]).unwrap();
        let bytes = tokenizer.decode_bytes(&ids[..n]).unwrap();
        let known = match bytes.utf8_chunks().last() {
            Some(last) if std::str::from_utf8(last.invalid()).is_err_and(|e| e.error_len().is_none()) => {
                &bytes[..bytes.len() - last.invalid().len()]
            }
            _ => &bytes,
        };
        assert_eq!(text, String::from_utf8_lossy(known), "{:?}", &ids[..n]);
    }
}

#[test]
fn streams_of_bytes_are_exact_and_prompt() {
    let bpe = train_bpe([sample()], 400).unwrap();
    let mut random = Random(11);
    for tokenizer in [bpe, pieces(true), pieces(false)] {
        assert_ne!(tokenizer.decoding, Decoding::Library);
        for _ in 0..1500 {
            let ids = ids(&tokenizer, &mut random);
            check_stream(&tokenizer, &ids);
            check_prompt(&tokenizer, &ids);
        }
    }
}

#[test]
fn pieces_decode_as_the_library_does_where_bytes_are_characters() {
    let mut random = Random(12);
    for tokenizer in [pieces(true), pieces(false)] {
        for round in 0..1000 {
            let text = random.text(round % 30);
            let ids = tokenizer.encode(&text).unwrap();
            let whole = tokenizer.decode(&ids).unwrap();
            assert_eq!(whole, tokenizer.decode_text(&ids).unwrap());
            check_stream(&tokenizer, &ids);
        }
    }
}

#[test]
fn a_run_of_bytes_keeps_the_characters_beside_a_wrong_one() {
    let tokenizer = pieces(true);
    let of = |bytes: &[u8]| -> Vec<u32> {
        let names = bytes.iter().map(|byte| format!("<0x{byte:02X}>"));
        names.map(|name| tokenizer.id_of(&name).unwrap()).collect()
    };
    let ids = of("é€".as_bytes());
    let broken = [&ids[..], &of(&[0xff]), &ids[..]].concat();
    assert_eq!(tokenizer.decode(&broken).unwrap(), "é€\u{fffd}é€");
    let bytes = ["é€".as_bytes(), &[0xff], "é€".as_bytes()].concat();
    assert_eq!(tokenizer.decode_bytes(&broken).unwrap(), bytes);
    let mut stream = tokenizer.stream(true);
    let parts: Vec<String> = broken.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts, ["", "é", "", "", "€", "\u{fffd}", "", "é", "", "", "€"]);
    // An incomplete character at the end.
    assert_eq!(streamed(&tokenizer, &ids[..3]), "é\u{fffd}");
}

#[test]
fn only_the_first_space_of_a_text_goes() {
    let tokenizer = pieces(true);
    let id = |token: &str| tokenizer.id_of(token).unwrap();
    for (tokens, text) in [
        (&["▁a", "▁a"][..], "a a"),
        (&["▁", "▁a"], " a"),
        (&["▁▁", "a"], " a"),
        (&["<s>", "▁a"], "<s> a"),
        (&["  ", "a"], " a"),
        (&["a", "▁"], "a "),
        (&["▁"], ""),
        (&["<0x20>", "<0x20>"], " "),
    ] {
        let ids: Vec<u32> = tokens.iter().map(|token| id(token)).collect();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{tokens:?}");
        assert_eq!(tokenizer.decode_text(&ids).unwrap(), text, "{tokens:?}");
        check_stream(&tokenizer, &ids);
    }
}

#[test]
fn streams_through_the_library() {
    let tokens = [
        "[UNK]", "▁a", "b", "▁", "▁▁", "##b", "##,", ".", "é", "漢", "\u{fffd}", "n</w>", "'s", " ", "\n",
    ];
    let vocab: serde_json::Map<String, Value> = (tokens.iter().zip(0u32..))
        .map(|(token, id)| ((*token).to_owned(), id.into()))
        .collect();
    for decoder in [
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": false}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "Fuse"}),
        Value::Null,
    ] {
        let json = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": decoder, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
        });
        let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
        assert_eq!(tokenizer.decoding, Decoding::Library);
        let mut random = Random(13);
        for _ in 0..2000 {
            let n = random.below(9);
            let ids: Vec<u32> = (0..n).map(|_| random.below(tokens.len()) as u32).collect();
            assert_eq!(
                streamed(&tokenizer, &ids),
                tokenizer.decode(&ids).unwrap(),
                "{decoder} {:?}",
                ids.iter().map(|&id| tokens[id as usize]).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_continuation_is_joined_with_its_prompt() {
    let words = crate::tokenizer::train_word(["a small boat had been lost\n"], None).unwrap();
    let ids = words.encode("a small boat had been\nlost").unwrap();
    for prompt in 1..ids.len() {
        let mut stream = words.stream_behind(&ids[..prompt]);
        let mut text = words.decode(&ids[..prompt]).unwrap();
        for &id in &ids[prompt..] {
            text += &stream.push(id).unwrap();
        }
        text += &stream.finish().unwrap();
        assert_eq!(text, words.decode(&ids).unwrap(), "{prompt} tokens of prompt");
    }
    let pieces = pieces(true);
    let id = |token: &str| pieces.id_of(token).unwrap();
    let behind = |before: &[u32]| pieces.stream_behind(before).push(id("▁a")).unwrap();
    assert_eq!([behind(&[id("▁a")]), behind(&[])], [" a", "a"]);
    // By itself it is a text that begins with its first word.
    let mut stream = words.stream_behind(&[]);
    assert_eq!(stream.push(ids[3]).unwrap(), "had");
}
