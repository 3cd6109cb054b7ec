//! Damaged tokenizer files: no panic, and no memory out of proportion to the file.

#[path = "common/counting.rs"]
mod counting;

use counting::peak_of;
use onebit_model::tokenizer::{Tokenizer, TokenizerError, train_bpe};

#[track_caller]
fn within(name: &str, size: usize, bytes: usize) {
    let limit = 4 * size + (16 << 20);
    assert!(
        bytes <= limit,
        "{name}: {bytes} bytes for a file of {size}, allowed {limit}"
    );
}

/// Reads a damaged file within the memory allowed; one that is read nevertheless is used.
#[track_caller]
fn survives(name: &str, file: &[u8], read: impl Fn(&[u8]) -> Result<Tokenizer, TokenizerError>) -> bool {
    let (result, bytes) = peak_of(|| read(file));
    within(name, file.len(), bytes);
    let Ok(tokenizer) = result else { return false };
    if let Ok(ids) = tokenizer.encode("ab <s> é x\u{301}1 \u{fffd}") {
        let _ = tokenizer.decode(&ids);
        let mut stream = tokenizer.stream(true);
        for &id in &ids {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
    }
    let _ = (tokenizer.to_ggml(), tokenizer.pack(), tokenizer.decode(&[u32::MAX, 0]));
    true
}

fn json(file: &[u8]) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_bytes(file)
}

/// Small sound files of every scheme.
fn files() -> Vec<(&'static str, String)> {
    let added = r#"[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}]"#;
    let file = |normalizer: &str, pre: &str, decoder: &str, model: &str| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":{added},"normalizer":{normalizer},"pre_tokenizer":{pre},"post_processor":null,"decoder":{decoder},"model":{model}}}"#
        )
    };
    vec![
        (
            "byte-level",
            file(
                "null",
                r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#,
                r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
                r#"{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{"<s>":0,"a":1,"b":2,"Ġ":3,"ab":4,"Ã":5},"merges":[["a","b"]]}"#,
            ),
        ),
        (
            "pieces",
            file(
                r#"{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#,
                "null",
                r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
                r#"{"type":"BPE","dropout":null,"unk_token":"<s>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"vocab":{"<s>":0,"a":1,"b":2,"▁":3,"ab":4,"<0xC3>":5,"<0xA9>":6},"merges":["a b"]}"#,
            ),
        ),
        (
            "unigram",
            file(
                "null",
                r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
                r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"#,
                r#"{"type":"Unigram","unk_id":0,"vocab":[["<s>",0.0],["a",-1.5],["▁ab",-2.0]],"byte_fallback":false}"#,
            ),
        ),
        (
            "wordpiece",
            file(
                r#"{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"#,
                r#"{"type":"BertPreTokenizer"}"#,
                r###"{"type":"WordPiece","prefix":"##","cleanup":true}"###,
                r###"{"type":"WordPiece","unk_token":"<s>","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"<s>":0,"a":1,"##b":2}}"###,
            ),
        ),
    ]
}

#[test]
fn cut_at_every_byte() {
    for (name, file) in files() {
        assert!(
            survives(name, file.as_bytes(), json),
            "{name}: {:?}",
            json(file.as_bytes())
        );
        for end in 0..file.len() {
            assert!(!survives(name, &file.as_bytes()[..end], json), "{name}: {end}");
        }
    }
}

#[test]
fn changed_at_every_byte() {
    for (name, file) in files() {
        for at in 0..file.len() {
            for byte in [b'0', b'"', b'{', b'-', file.as_bytes()[at] ^ 1, 0xff] {
                let mut bytes = file.clone().into_bytes();
                bytes[at] = byte;
                survives(name, &bytes, json);
            }
        }
    }
}

#[test]
fn sizes_out_of_proportion() {
    let byte_level = &files()[0].1;
    let put = |part: &str, with: &str| {
        let at = byte_level.find(part).unwrap();
        format!("{}{with}", &byte_level[..at])
    };
    let zeros = "0,".repeat(1 << 20);
    let objects = "{},".repeat(1 << 20);
    let lists = "[],".repeat(1 << 20);
    let mut hostile = Vec::new();
    for part in [
        r#""normalizer""#,
        r#""pre_tokenizer""#,
        r#""decoder""#,
        r#""added_tokens""#,
        r#""merges""#,
        r#""vocab""#,
        r#""unknown_part""#,
    ] {
        for values in [&zeros, &objects, &lists] {
            let list = format!("{part}:[{values}0]");
            let known = if byte_level.contains(part) {
                part
            } else {
                r#""decoder""#
            };
            hostile.push(put(known, &format!("{list}}}}}")));
            hostile.push(put(known, &list));
        }
        let known = if byte_level.contains(part) {
            part
        } else {
            r#""decoder""#
        };
        hostile.push(put(known, &format!("{part}:{}", "[".repeat(1 << 20))));
        hostile.push(put(known, &format!("{part}:{}", r#"{"a":"#.repeat(1 << 18))));
    }
    hostile.extend(["[", "{", "\"", " ", "\\", "[{\"a\":"].map(|text| text.repeat(1 << 20)));
    for id in ["4294967295", "4000000000", "18446744073709551615", "1e300"] {
        hostile.push(byte_level.replace(r#""ab":4"#, &format!(r#""ab":{id}"#)));
        hostile.push(byte_level.replace(r#"{"id":0"#, &format!(r#"{{"id":{id}"#)));
    }
    for (at, file) in hostile.iter().enumerate() {
        assert!(
            !survives(&format!("file {at}"), file.as_bytes(), json),
            "file {at}: {}",
            &file[..300.min(file.len())]
        );
    }
}

#[test]
fn lengths_of_a_model_file_ask_for_nothing() {
    let sound = include_bytes!("sentencepiece/unigram.model");
    let read = |file: &[u8]| Tokenizer::from_sentencepiece(file);
    assert!(survives("sound", sound, read));
    for field in 1..6u8 {
        let mut file = vec![field << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f];
        file.extend(sound);
        assert!(!survives("a length of 32 GiB", &file, read));
    }
    // The table of characters says how long it is once more.
    let table = [26, 6, 18, 4, 0xff, 0xff, 0xff, 0xff];
    assert!(!survives("a table of 4 GiB", &[&sound[..], &table].concat(), read));
    assert!(!survives("pieces without end", &[10, 0].repeat(1 << 20), read));
    assert!(!survives(
        "one piece again",
        &[10, 3, 10, 1, b'a'].repeat(1 << 19),
        read
    ));
    for at in 0..sound.len() {
        let mut file = sound.to_vec();
        file[at] ^= 0xff;
        survives("changed", &file, read);
    }
}

#[test]
fn the_bound_is_one_and_leaves_room() {
    assert!(std::panic::catch_unwind(|| within("too much", 10, 17 << 20)).is_err());
    // A real one of some size stays within the bound too.
    let text: String = (0..20_000).map(|i| format!(" w{}", i * 7919 % 4001)).collect();
    let trained = train_bpe([text], 2000).unwrap();
    assert!(survives("trained", trained.json(), json));
}
