use serde_json::json;

use super::*;
use crate::tokenizer::{train_bpe, train_word};

/// A vocabulary of either scheme with every kind of token.
fn sentencepiece() -> GgmlVocabulary {
    let mut vocabulary = GgmlVocabulary {
        model: "llama".to_owned(),
        bos: Some(1),
        eos: Some(2),
        unknown: Some(0),
        ..GgmlVocabulary::default()
    };
    let mut add = |token: &str, score: f32, kind: TokenKind| {
        vocabulary.tokens.push(token.to_owned());
        vocabulary.scores.push(score);
        vocabulary.token_types.push(kind.code());
    };
    add("<unk>", 0.0, TokenKind::Unknown);
    add("<s>", 0.0, TokenKind::Control);
    add("</s>", 0.0, TokenKind::Control);
    for byte in 0..=255 {
        add(&format!("<0x{byte:02X}>"), 0.0, TokenKind::Byte);
    }
    add("<tool>", 0.0, TokenKind::UserDefined);
    for (i, piece) in ["▁a", "ab", "▁ab", "abb", "▁", "a", "b", "c"].into_iter().enumerate() {
        add(piece, -(i as f32), TokenKind::Normal);
    }
    add("[PAD268]", -1000.0, TokenKind::Unused);
    vocabulary
}

fn byte_level() -> GgmlVocabulary {
    train_gpt2().to_ggml().unwrap()
}

/// A trained tokenizer with GPT-2's words instead of its own.
fn train_gpt2() -> Tokenizer {
    let trained = train_bpe(["the cat sat on the mat and the cat ate the rat"], 280).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(trained.json()).unwrap();
    json["pre_tokenizer"] = pre::find("gpt-2").unwrap().json();
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text).unwrap();
    ids.into_iter().map(|id| tokenizer.token_of(id).unwrap()).collect()
}

#[track_caller]
fn refused(vocabulary: &GgmlVocabulary) -> GgmlError {
    match Tokenizer::from_ggml(vocabulary) {
        Err(TokenizerError::Ggml(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sentencepiece_by_hand() {
    let tokenizer = Tokenizer::from_ggml(&sentencepiece()).unwrap();
    assert_eq!(tokens(&tokenizer, "abb"), ["▁ab", "b"], "▁a has the highest score");
    assert_eq!(tokens(&tokenizer, "cabb"), ["▁", "c", "abb"]);
    assert_eq!(tokens(&tokenizer, " c"), ["▁", "▁", "c"]);
    assert_eq!(tokens(&tokenizer, "é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokens(&tokenizer, "<s>c<tool>"), ["<s>", "▁", "c", "<tool>"]);
    assert!(tokenizer.is_special(0) && tokenizer.is_special(1) && !tokenizer.is_special(259));
    for text in ["ab cab", " c", "é\n<tool>", "", "  "] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
    let back = tokenizer.to_ggml().unwrap();
    assert_eq!(back.tokens, sentencepiece().tokens);
    assert_eq!(back.token_types, sentencepiece().token_types);
    assert_eq!(
        (back.add_bos, back.add_eos),
        (Some(true), Some(false)),
        "llama.cpp's defaults"
    );

    let plain = GgmlVocabulary {
        add_space_prefix: Some(false),
        ..sentencepiece()
    };
    let plain = Tokenizer::from_ggml(&plain).unwrap();
    assert_eq!(tokens(&plain, "cab"), ["c", "ab"]);
    assert_eq!(plain.decode(&plain.encode(" c").unwrap()).unwrap(), " c");
    assert_eq!(plain.to_ggml().unwrap().add_space_prefix, Some(false));
}

#[test]
fn old_files_say_less() {
    let vocabulary = GgmlVocabulary {
        token_types: Vec::new(),
        ..sentencepiece()
    };
    let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
    assert_eq!(tokens(&tokenizer, "<s>é"), ["<s>", "▁", "<0xC3>", "<0xA9>"]);
    let vocabulary = GgmlVocabulary {
        bos: None,
        eos: None,
        unknown: None,
        ..sentencepiece()
    };
    let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.unknown()),
        (Some(1), Some(2), Some(0))
    );
    let mut vocabulary = sentencepiece();
    vocabulary.tokens[259].clear();
    assert_eq!(
        Tokenizer::from_ggml(&vocabulary).unwrap().token_of(259).unwrap(),
        "[EMPTY_259]"
    );
    let vocabulary = GgmlVocabulary {
        token_types: Vec::new(),
        pre: None,
        eos: Some(0),
        ..byte_level()
    };
    let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
    assert_eq!(tokenizer.to_ggml().unwrap().pre.as_deref(), Some("default"));
    assert!(tokenizer.is_special(0));
}

#[test]
fn every_known_division_goes_there_and_back() {
    let words = "don't DON'T 1234567 été_été  \n\n x\r\n\t`a+b` <=> ‘’ 漢字 ½²\u{a0}\u{a0}end   ";
    let mut different = std::collections::HashSet::new();
    for name in pre::known().split(", ") {
        let vocabulary = GgmlVocabulary {
            pre: Some(name.to_owned()),
            ..byte_level()
        };
        let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
        let back = tokenizer.to_ggml().unwrap();
        let again = Tokenizer::from_ggml(&back).unwrap();
        let known = pre::find(name).unwrap();
        assert_eq!(back.pre.as_deref(), Some(known.names[0]), "{name}");
        assert_eq!(again.encode(words).unwrap(), tokenizer.encode(words).unwrap(), "{name}");
        let pre = tokenizer.inner.get_pre_tokenizer().unwrap();
        let mut split = tokenizers::PreTokenizedString::from(words);
        tokenizers::PreTokenizer::pre_tokenize(pre, &mut split).unwrap();
        let parts = split.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        different.insert(parts.into_iter().map(|part| part.1).collect::<Vec<_>>());
    }
    // gpt-2, llama-bpe (dbrx divides alike), qwen2, smollm, falcon and default.
    assert_eq!(different.len(), 6);
}

#[test]
fn other_spellings_of_the_same_words_are_recognised() {
    let gpt2 = byte_level();
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    for (steps, name) in [
        (
            vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            "smollm",
        ),
        (
            vec![
                split(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
                bytes(false),
            ],
            "gpt-2",
        ),
        (
            vec![
                split(
                    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                ),
                bytes(false),
            ],
            "qwen2",
        ),
    ] {
        let mut json: serde_json::Value = serde_json::from_slice(train_gpt2().json()).unwrap();
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
        let vocabulary = Tokenizer::from_bytes(json.to_string()).unwrap().to_ggml().unwrap();
        assert_eq!(vocabulary.pre.as_deref(), Some(name));
        assert_eq!(vocabulary.merges, gpt2.merges);
    }
}

#[test]
fn the_composed_form_of_qwen_is_left_out() {
    let mut json: serde_json::Value = serde_json::from_slice(train_gpt2().json()).unwrap();
    json["pre_tokenizer"] = pre::find("qwen2").unwrap().json();
    json["normalizer"] = json!({"type": "NFC"});
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    let again = Tokenizer::from_ggml(&tokenizer.to_ggml().unwrap()).unwrap();
    let (apart, composed) = ("e\u{301}", "\u{e9}");
    assert_eq!(tokenizer.encode(apart).unwrap(), tokenizer.encode(composed).unwrap());
    assert_eq!(again.encode(composed).unwrap(), tokenizer.encode(composed).unwrap());
    assert_eq!(again.decode(&again.encode(apart).unwrap()).unwrap(), apart);
}

#[test]
fn templates_become_flags_and_back() {
    for (add_bos, add_eos) in [(false, false), (true, false), (false, true), (true, true)] {
        let vocabulary = GgmlVocabulary {
            bos: Some(3),
            eos: Some(0),
            unknown: Some(4),
            padding: Some(5),
            add_bos: Some(add_bos),
            add_eos: Some(add_eos),
            ..byte_level()
        };
        let tokenizer = Tokenizer::from_ggml(&vocabulary).unwrap();
        assert_eq!(tokenizer.to_ggml().unwrap(), vocabulary);
        let whole = tokenizer.inner.encode("the", true).unwrap();
        assert_eq!(whole.get_ids().len(), 1 + usize::from(add_bos) + usize::from(add_eos));
    }
}

#[test]
fn every_kind_of_damage_has_its_own_error() {
    let change = |f: &dyn Fn(&mut GgmlVocabulary)| {
        let mut vocabulary = sentencepiece();
        f(&mut vocabulary);
        refused(&vocabulary)
    };
    let tokens = sentencepiece().tokens.len();
    assert_eq!(change(&|v| v.tokens.clear()), GgmlError::Empty);
    let length = |key, found| GgmlError::Length { key, found, tokens };
    assert_eq!(change(&|v| v.scores.clear()), length("tokenizer.ggml.scores", 0));
    assert_eq!(
        change(&|v| v.scores.push(0.0)),
        length("tokenizer.ggml.scores", tokens + 1)
    );
    assert_eq!(
        change(&|v| v.token_types.truncate(7)),
        length("tokenizer.ggml.token_type", 7)
    );
    assert_eq!(
        change(&|v| v.model = "t5".to_owned()),
        GgmlError::UnknownModel { found: "t5".to_owned() }
    );
    for code in [-1, 0, 7] {
        assert_eq!(
            change(&|v| v.token_types[5] = code),
            GgmlError::UnknownType { id: 5, code }
        );
    }
    assert_eq!(
        change(&|v| v.tokens[9] = "<s>".to_owned()),
        GgmlError::Duplicate {
            first: 1,
            second: 9,
            token: "<s>".to_owned()
        }
    );
    assert_eq!(change(&|v| v.scores[4] = f32::NAN), GgmlError::Score { id: 4 });
    for wrong in ["<0x-1>", "<0xZZ>", "<0x1>", "<0x0a>", "<0x100>", "byte"] {
        assert_eq!(
            change(&|v| v.tokens[3] = wrong.to_owned()),
            GgmlError::Byte {
                id: 3,
                token: wrong.to_owned()
            }
        );
    }
    assert_eq!(
        change(&|v| v.tokens[261] = "a".repeat(5000)),
        GgmlError::TooLong {
            id: 261,
            length: 5000,
            limit: 1024
        }
    );
    let set: [(&str, fn(&mut GgmlVocabulary)); 4] = [
        ("bos", |v| v.bos = Some(4_000_000_000)),
        ("eos", |v| v.eos = Some(4_000_000_000)),
        ("unknown", |v| v.unknown = Some(4_000_000_000)),
        ("padding", |v| v.padding = Some(4_000_000_000)),
    ];
    for (what, set) in set {
        let id = 4_000_000_000;
        assert_eq!(change(&set), GgmlError::SpecialOutside { what, id, tokens });
    }

    let change = |f: &dyn Fn(&mut GgmlVocabulary)| {
        let mut vocabulary = byte_level();
        f(&mut vocabulary);
        refused(&vocabulary)
    };
    assert_eq!(
        change(&|v| v.pre = Some("klingon".to_owned())),
        GgmlError::UnknownPre {
            found: "klingon".to_owned()
        }
    );
    assert!(
        change(&|v| v.pre = Some("klingon".to_owned()))
            .to_string()
            .contains("smollm")
    );
    for merge in ["th", "", " ", "t ", " h", "é"] {
        assert_eq!(
            change(&|v| v.merges[1] = merge.to_owned()),
            GgmlError::MergeForm {
                index: 1,
                merge: merge.to_owned()
            },
            "{merge:?}"
        );
    }
    for (merge, token) in [("t 漢", "漢"), ("漢 t", "漢"), ("q q", "qq")] {
        assert_eq!(
            change(&|v| v.merges[1] = merge.to_owned()),
            GgmlError::MergeToken {
                index: 1,
                merge: merge.to_owned(),
                token: token.to_owned()
            }
        );
    }
    let missing: [(&str, fn(&mut GgmlVocabulary)); 2] = [
        ("bos", |v| (v.bos, v.add_bos) = (None, Some(true))),
        ("eos", |v| (v.eos, v.add_eos) = (None, Some(true))),
    ];
    for (what, set) in missing {
        assert_eq!(change(&set), GgmlError::SpecialMissing { what });
    }
    // Every message says what to do.
    assert!(change(&|v| v.merges[1] = "x".to_owned()).to_string().contains(';'));
}

#[test]
fn what_has_no_form_is_named() {
    let reason = |tokenizer: &Tokenizer| match tokenizer.to_ggml() {
        Err(TokenizerError::Ggml(GgmlError::NoForm { reason })) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&train_word(["a b c a"], None).unwrap()).contains("WordLevel"));
    let changed = |of: &Tokenizer, f: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_slice(of.json()).unwrap();
        f(&mut json);
        reason(&Tokenizer::from_bytes(json.to_string()).unwrap())
    };
    let gpt2 = train_gpt2();
    assert!(changed(&gpt2, &|j| j["pre_tokenizer"] = json!({"type": "Whitespace"})).contains("pre-tokenizer"));
    assert!(changed(&gpt2, &|j| j["model"]["dropout"] = json!(0.5)).contains("random"));
    assert!(changed(&gpt2, &|j| j["normalizer"] = json!({"type": "Lowercase"})).contains("normalizer"));
    assert!(changed(&gpt2, &|j| j["normalizer"] = json!({"type": "NFC"})).contains("normalizer"));
    assert!(changed(&gpt2, &|j| j["decoder"] = json!({"type": "Fuse"})).contains("decoder"));
    assert!(changed(&gpt2, &|j| j["added_tokens"][0]["lstrip"] = json!(true)).contains("spaces"));
    assert!(changed(&gpt2, &|j| j["model"]["end_of_word_suffix"] = json!("</w>")).contains("suffix"));
    assert!(changed(&gpt2, &|j| j["pre_tokenizer"]["add_prefix_space"] = json!(true)).contains("pre-tokenizer"));
    let cls = json!({"type": "BertProcessing", "sep": ["a", 66], "cls": ["b", 67]});
    assert!(changed(&gpt2, &|j| j["post_processor"] = cls.clone()).contains("post-processor"));
    // Words that no merges lead to, with ignore_merges: gpt-2 has none.
    assert!(
        changed(&gpt2, &|j| {
            j["model"]["ignore_merges"] = json!(true);
            j["model"]["vocab"]["zebra"] = json!(280);
        })
        .contains("zebra")
    );
    let sp = Tokenizer::from_ggml(&sentencepiece()).unwrap();
    assert!(changed(&sp, &|j| j["model"]["byte_fallback"] = json!(false)).contains("bytes"));
    assert!(changed(&sp, &|j| j["normalizer"] = json!({"type": "NFKC"})).contains("normalizer"));
    assert!(changed(&sp, &|j| j["model"]["merges"] = json!([["a", "b"], ["▁", "a"]])).contains("not merged"));
    let apart = json!([["▁", "ab"], ["a", "b"], ["▁a", "b"], ["▁", "a"], ["ab", "b"]]);
    assert!(changed(&sp, &|j| j["model"]["merges"] = apart.clone()).contains("one after the other"));
}

#[test]
fn a_difference_that_no_text_shows_is_no_hindrance() {
    let mut json: serde_json::Value = serde_json::from_slice(train_gpt2().json()).unwrap();
    json["model"]["ignore_merges"] = json!(true);
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    assert_eq!(tokenizer.to_ggml().unwrap(), byte_level());
}

#[test]
fn padding_fills_up_and_never_cuts() {
    let mut vocabulary = sentencepiece();
    let before = vocabulary.tokens.len();
    vocabulary.tokens[before - 1] = "[PAD270]".to_owned();
    vocabulary.pad_to(before + 4).unwrap();
    assert_eq!(
        vocabulary.tokens[before..],
        ["[PAD269]", "[PAD270]_", "[PAD271]", "[PAD272]"]
    );
    assert_eq!(vocabulary.token_types[before..], [5; 4]);
    assert_eq!(vocabulary.scores.len(), before + 4);
    assert_eq!(Tokenizer::from_ggml(&vocabulary).unwrap().vocab_size(), before + 4);
    let error = vocabulary.pad_to(before).unwrap_err().to_string();
    assert!(error.contains("273 tokens and the embedding 269 rows"), "{error}");
    let mut vocabulary = GgmlVocabulary {
        token_types: Vec::new(),
        ..byte_level()
    };
    let tokens = vocabulary.tokens.len();
    vocabulary.pad_to(tokens + 1).unwrap();
    assert_eq!((vocabulary.token_types[0], vocabulary.token_types[tokens]), (1, 5));
    assert!(vocabulary.scores.is_empty());
}

#[test]
fn a_tokenizer_of_our_trainer_goes_as_gpt_2_unless_it_keeps_tags() {
    let plain = "the cat sat on the mat, and the other_cat sat 'there'. ".repeat(20);
    let trained = crate::tokenizer::train_bpe([&plain], 300).unwrap();
    let vocabulary = trained.to_ggml().unwrap();
    assert_eq!(vocabulary.pre.as_deref(), Some("gpt-2"));
    let back = Tokenizer::from_ggml(&vocabulary).unwrap();
    for text in [
        "the cat <unk> sat<unk>",
        "<|the|> <the_cat> a_b |the> <<the>> é<é>",
        "it'll sat  \n\n <the>the",
        "<|endoftext|>the <|endoftext|>",
    ] {
        assert_eq!(back.encode(text).unwrap(), trained.encode(text).unwrap(), "{text}");
    }
    let tags = "the <unk> sat on the <unk> ".repeat(20);
    let trained = crate::tokenizer::train_bpe([&tags], 300).unwrap();
    let reason = trained.to_ggml().unwrap_err().to_string();
    assert!(reason.contains("part of a tag"), "{reason}");
}
