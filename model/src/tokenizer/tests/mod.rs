mod bpe_alone;
mod bpe_dropout;
mod packed;
mod stream;

use std::path::PathBuf;

use super::*;

/// SplitMix64: enough randomness for properties, the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// Letters, digits, punctuation, every kind of white space, and any character at all.
    fn text(&mut self, chars: usize) -> String {
        const USUAL: &[&str] = &[
            "a",
            "B",
            "the",
            " the",
            " ",
            " ",
            "  ",
            "\n",
            "\n\n",
            " \n ",
            "\r\n",
            "\t",
            "'s",
            "<unk>",
            " <unk>",
            "7",
            "12",
            ".",
            ",",
            "@-@",
            "é",
            "e\u{301}",
            "漢字",
            "\u{a0}",
            "\u{2028}",
            "👩‍🚀",
            "<|endoftext|>",
            "\0",
            "�",
            "﷽",
        ];
        let mut text = String::new();
        for _ in 0..chars {
            match self.below(4) {
                0 => text.push(char::from_u32(self.below(0x11_0000) as u32).unwrap_or('?')),
                _ => text.push_str(USUAL[self.below(USUAL.len())]),
            }
        }
        text
    }
}

fn shared(file: &str) -> Option<PathBuf> {
    let root = std::env::var("ONEBIT_TESTDATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into());
    let path = PathBuf::from(root).join("data").join(file);
    if !path.exists() {
        eprintln!(
            "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA",
            path.display()
        );
    }
    path.exists().then_some(path)
}

fn sample() -> String {
    let mut random = Random(1);
    let words = [
        "the", "cat", "sat", "on", "a", "mat", "<unk>", "lobster", "@-@", "2009", ",", ".",
    ];
    (0..4000)
        .map(|i| {
            format!(
                "{}{}",
                if i % 17 == 0 { " \n " } else { " " },
                words[random.below(words.len())]
            )
        })
        .collect()
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream(false);
    let mut text = String::new();
    for &id in ids {
        text += &stream.push(id).unwrap();
    }
    text + &stream.finish().unwrap()
}

/// Found by fuzzing: a file whose pre-tokeniser had lost its name.
#[test]
fn without_bytes_on_the_way_in_nothing_is_promised() {
    let tokenizer = train_bpe([sample()], 400).unwrap();
    let mut file: serde_json::Value = serde_json::from_slice(tokenizer.json()).unwrap();
    file["pre_tokenizer"] = serde_json::Value::Null;
    let without = Tokenizer::from_bytes(serde_json::to_vec(&file).unwrap()).unwrap();
    assert!(tokenizer.is_lossless() && !without.is_lossless());
    let ids = without.encode("one two").unwrap();
    assert_ne!(without.decode(&ids).unwrap(), "one two");
}

#[test]
fn bpe_is_lossless_for_any_text() {
    let tokenizer = train_bpe([sample()], 400).unwrap();
    assert!(tokenizer.is_lossless());
    let mut random = Random(2);
    for round in 0..400 {
        let text = random.text(round % 60);
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(
            tokenizer.decode_text(&ids).unwrap(),
            text,
            "our table of bytes and the library's decoder agree"
        );
        assert_eq!(streamed(&tokenizer, &ids), text);
    }
    let every: Vec<u32> = (1..257).collect();
    let mut bytes = tokenizer.decode_bytes(&every).unwrap();
    bytes.sort_unstable();
    assert_eq!(bytes, (0..=255).collect::<Vec<u8>>(), "ids 1 to 256 are the 256 bytes");
}

#[test]
fn whole_words_are_single_tokens_and_other_words_bytes() {
    let text = "The fox saw the hen. The hen saw nothing!";
    let tokenizer = train_whole_words([text], 1000).unwrap();
    let tokens = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().map(|&id| tokenizer.token_of(id).unwrap()).collect()
    };
    assert_eq!(tokens("The hen saw"), ["The", "Ġhen", "Ġsaw"]);
    assert_eq!(tokens(" hens"), ["Ġ", "h", "e", "n", "s"]);
    // Seven words of more than a byte: The, " fox", " saw", " the", " hen", " The", " nothing"; "." and "!" are bytes.
    assert_eq!(tokenizer.vocab_size(), 257 + 7);
    for text in [text, "Grüße, 世界! \u{1f980}\n\n  end", "\0\u{7f}"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
    }
    // The most frequent come first, and the limit holds.
    let small = train_whole_words([text], 258).unwrap();
    assert_eq!(small.vocab_size(), 258);
    assert!(matches!(train_whole_words([""], 300), Err(TokenizerError::NoText)));
    assert!(matches!(
        train_whole_words(["a"], 200),
        Err(TokenizerError::VocabTooSmall { .. })
    ));
}

#[test]
fn bpe_learns_words_and_tags() {
    let tokenizer = train_bpe([sample()], 400).unwrap();
    for word in [" the", " lobster", " <unk>", " @-@", " 2009"] {
        assert_eq!(tokenizer.encode(word).unwrap().len(), 1, "{word:?}");
    }
    assert_eq!(tokenizer.id_of(END_OF_TEXT), Some(0));
    assert_eq!(tokenizer.eos(), Some(0));
    assert_eq!(tokenizer.bos(), None);
    assert_eq!(tokenizer.encode("a<|endoftext|>").unwrap().last(), Some(&0));
    assert!(tokenizer.is_special(0) && !tokenizer.is_special(1));
}

#[test]
fn bpe_merges_by_hand() {
    // (a,b) comes 6 times; then (Ġ,ab) and (ab,c) 3 times each, and Ġ has the smaller id; that leaves (ab,c) twice.
    let tokenizer = train_bpe(["abc\nabc\nab", " ab abc ab"], 260).unwrap();
    let spelled: Vec<_> = (257..260).map(|id| tokenizer.token_of(id).unwrap()).collect();
    assert_eq!(spelled, ["ab", "Ġab", "abc"]);
    assert_eq!(tokenizer.encode(" abc").unwrap(), [258, tokenizer.id_of("c").unwrap()]);
}

#[test]
fn bpe_depends_on_the_text_alone() {
    let text = sample();
    let one = train_bpe([&text], 500).unwrap();
    assert_eq!(one.json(), train_bpe([&text], 500).unwrap().json());
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let parts: Vec<&str> = text.split_inclusive(" \n").collect();
    let other = threads.install(|| train_bpe([parts.concat()], 500)).unwrap();
    assert_eq!(one.json(), other.json());
    assert_ne!(one.fingerprint(), train_bpe([&text], 270).unwrap().fingerprint());
}

#[test]
fn sizes_and_texts_that_cannot_be() {
    assert!(matches!(
        train_bpe(["a"], 256),
        Err(TokenizerError::VocabTooSmall {
            requested: 256,
            minimum: 257,
            ..
        })
    ));
    assert_eq!(train_bpe(["a"], 257).unwrap().vocab_size(), 257);
    assert!(matches!(train_bpe([""], 300), Err(TokenizerError::NoText)));
    assert!(matches!(
        train_word(["a"], Some(2)),
        Err(TokenizerError::VocabTooSmall { minimum: 3, .. })
    ));
    assert!(matches!(train_word([" \n"], None), Err(TokenizerError::NoText)));
}

#[test]
fn a_long_word_costs_little_and_stays_lossless() {
    let text = format!("{} {}", "ab".repeat(200_000), " ".repeat(300_000));
    let tokenizer = train_bpe([&text], 300).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
}

#[test]
fn words_and_line_ends() {
    let text = " \n = Homarus gammarus = \n \n The <unk> lobster is a lobster . \n";
    let tokenizer = train_word([text], None).unwrap();
    let spelled = |text: &str| -> Vec<String> {
        tokenizer
            .encode(text)
            .unwrap()
            .into_iter()
            .map(|id| tokenizer.token_of(id).unwrap())
            .collect()
    };
    assert_eq!(
        spelled(text),
        "<eos> = Homarus gammarus = <eos> <eos> The <unk> lobster is a lobster . <eos>"
            .split(' ')
            .collect::<Vec<_>>()
    );
    assert_eq!(spelled("The whale"), ["The", "<unk>"]);
    assert_eq!((tokenizer.unknown(), tokenizer.eos()), (Some(0), Some(1)));
    assert_eq!(
        tokenizer.id_of("lobster"),
        Some(3),
        "by frequency: =, lobster are twice, in byte order"
    );
    assert!(!tokenizer.is_lossless());
    let ids = tokenizer.encode(text).unwrap();
    let plain = "\n= Homarus gammarus =\n\nThe <unk> lobster is a lobster .\n";
    assert_eq!(tokenizer.decode(&ids).unwrap(), plain);
    assert_eq!(streamed(&tokenizer, &ids), plain);
    assert_eq!(tokenizer.encode(plain).unwrap(), ids);
    assert_eq!(train_word([text], Some(4)).unwrap().vocab_size(), 4);
}

#[test]
fn files_fingerprints_and_bad_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let tokenizer = train_bpe([sample()], 270).unwrap();
    tokenizer.save(&path).unwrap();
    let again = Tokenizer::from_file(&path).unwrap();
    assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    assert_eq!(again.encode(&sample()).unwrap(), tokenizer.encode(&sample()).unwrap());
    let value: Value = serde_json::from_slice(tokenizer.json()).unwrap();
    let pretty = Tokenizer::from_bytes(serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    assert_eq!(
        pretty.fingerprint(),
        tokenizer.fingerprint(),
        "white space does not count"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no temporary file is left"
    );

    for bad in [&b""[..], b"{}", b"[1]", &tokenizer.json()[..tokenizer.json().len() / 2]] {
        assert!(matches!(
            Tokenizer::from_bytes(bad),
            Err(TokenizerError::Invalid { .. })
        ));
    }
    assert!(matches!(
        Tokenizer::from_file(folder.path().join("none")),
        Err(TokenizerError::Read { .. })
    ));
    // A device, of which another would be read for ever.
    #[cfg(unix)]
    assert!(matches!(
        Tokenizer::from_file("/dev/null"),
        Err(TokenizerError::Read { .. })
    ));
    assert!(matches!(
        tokenizer.save(folder.path().join("no/where.json")),
        Err(TokenizerError::Write { .. })
    ));
    assert!(matches!(
        tokenizer.decode(&[270]),
        Err(TokenizerError::UnknownId {
            id: 270,
            vocab_size: 270
        })
    ));
    assert!(tokenizer.stream(true).push(270).is_err());
}

#[test]
fn streams_hold_back_incomplete_characters() {
    let tokenizer = train_bpe(["x"], 257).unwrap();
    let ids = tokenizer.encode("é👩").unwrap();
    let mut stream = tokenizer.stream(true);
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts, ["", "é", "", "", "", "👩"]);
    assert_eq!(stream.push(0).unwrap(), "", "control tokens are left out");
    // A lead byte without its character, then a letter: one U+FFFD, as in lossy decoding of the whole.
    let broken = [ids[0], tokenizer.encode("x").unwrap()[0], ids[2], ids[3]];
    assert_eq!(streamed(&tokenizer, &broken), "\u{fffd}x\u{fffd}");
    assert_eq!(streamed(&tokenizer, &broken), tokenizer.decode(&broken).unwrap());
}

/// The ids of a text in pieces, and whole, are the same.
fn check_split(tokenizer: &Tokenizer, text: &str, size: usize) -> usize {
    let pieces = tokenizer.split(text, size);
    assert_eq!(pieces.concat(), text);
    let ids: Vec<u32> = pieces
        .iter()
        .flat_map(|piece| tokenizer.encode_whole(piece).unwrap())
        .collect();
    assert!(ids == tokenizer.encode_whole(text).unwrap(), "ids change at a border");
    pieces.len()
}

#[test]
fn borders_do_not_change_ids() {
    let mut random = Random(3);
    let bpe = train_bpe([sample()], 400).unwrap();
    let word = train_word([sample()], None).unwrap();
    let mut found = 0;
    for _ in 0..200 {
        let text = random.text(200);
        found += check_split(&bpe, &text, 40) - 1;
        found += check_split(&word, &text, 40) - 1;
    }
    assert!(found > 200, "{found} borders");
    assert!(check_split(&bpe, &sample(), 300) > 40);
    assert_eq!(check_split(&bpe, &"x".repeat(5000), 100), 1);
}

#[test]
fn tokenizers_of_others() {
    for (file, size) in [("gpt2", 50257), ("smollm2", 49152), ("small-llama3-style", 0)] {
        let Some(path) = shared(&format!("tokenizers/{file}.tokenizer.json")) else {
            return;
        };
        let tokenizer = Tokenizer::from_file(path).unwrap();
        assert!(
            size == 0 || tokenizer.vocab_size() == size,
            "{file}: {}",
            tokenizer.vocab_size()
        );
        assert!(tokenizer.eos().is_some(), "{file}");
        assert!(file != "gpt2" || tokenizer.is_lossless());
        let mut random = Random(4);
        for round in 0..200 {
            let text = random.text(round % 50);
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(
                streamed(&tokenizer, &ids),
                tokenizer.decode_text(&ids).unwrap(),
                "{file}"
            );
            // SmolLM2's vocabulary lacks bytes that valid text can hold: what it cannot spell, it drops.
            assert!(
                !tokenizer.is_lossless() || tokenizer.decode(&ids).unwrap() == text,
                "{file}"
            );
            check_split(&tokenizer, &random.text(150), 40);
        }
        let Some(text) = shared("wikitext-2/valid.txt") else {
            return;
        };
        let text = std::fs::read_to_string(text).unwrap();
        assert!(
            check_split(&tokenizer, &text[..text.floor_char_boundary(300_000)], 10_000) > 20,
            "{file}"
        );
    }
}

#[test]
fn gpt2_ids_match_the_vectors() {
    let (Some(path), Some(input), Some(output)) = (
        shared("tokenizers/gpt2.tokenizer.json"),
        shared("tokenizers/vectors/ggml-vocab-gpt-2.gguf.inp"),
        shared("tokenizers/vectors/ggml-vocab-gpt-2.gguf.out"),
    ) else {
        return;
    };
    let tokenizer = Tokenizer::from_file(path).unwrap();
    let input = std::fs::read_to_string(input).unwrap();
    let output = std::fs::read_to_string(output).unwrap();
    let texts: Vec<&str> = input.split("\n__ggml_vocab_test__\n").collect();
    let expected: Vec<&str> = output.lines().collect();
    assert!(
        texts.len() >= 40 && texts.len() >= expected.len(),
        "{} texts, {} lines",
        texts.len(),
        expected.len()
    );
    for (text, ids) in texts.iter().zip(expected) {
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn wikitext_by_words_and_by_bpe() {
    let (Some(train), Some(valid)) = (shared("wikitext-2/train.txt"), shared("wikitext-2/valid.txt")) else {
        return;
    };
    let train = std::fs::read_to_string(train).unwrap();
    let valid = std::fs::read_to_string(valid).unwrap();
    let words = train_word([&train, &valid], None).unwrap();
    assert_eq!(words.vocab_size(), 33_278);
    assert_eq!(words.encode(&valid).unwrap().len(), 217_646);
    let start = std::time::Instant::now();
    let bpe = train_bpe([&train], 4096).unwrap();
    let trained = start.elapsed();
    assert_eq!(bpe.vocab_size(), 4096);
    assert_eq!(bpe.encode(" <unk>").unwrap().len(), 1);
    let start = std::time::Instant::now();
    let ids = bpe.encode(&valid).unwrap();
    eprintln!(
        "BPE 4096 on {} bytes: {trained:?}; {} ids of {} bytes: {:?}",
        train.len(),
        ids.len(),
        valid.len(),
        start.elapsed()
    );
    assert_eq!(bpe.decode(&ids).unwrap(), valid);
    assert!(trained.as_secs() < 60);
}
