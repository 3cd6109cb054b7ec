//! Training texts: plain, JSON Lines, and both compressed. What is plain comes out as it went in; nothing is read for ever.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use onebit_trainer::data::text::stream;

/// Bytes of text at most: a compressed file may stand for a thousand times its length.
const MOST: usize = 1 << 22;

fn read(name: &str, bytes: &[u8]) -> Option<(String, usize)> {
    let (mut text, mut documents) = (String::new(), 0);
    for piece in stream(Path::new(name), Cursor::new(bytes.to_vec())).ok()? {
        let piece = piece.ok()?;
        text.push_str(&piece.text);
        documents += usize::from(piece.ends_document);
        if text.len() > MOST {
            return None;
        }
    }
    Some((text, documents))
}

fuzz_target!(|bytes: &[u8]| {
    let plain = read("x.txt", bytes);
    assert_eq!(plain.is_some(), str::from_utf8(bytes).is_ok());
    if let Some((text, documents)) = plain {
        assert!(text.as_bytes() == bytes && documents == 1);
    }
    if let Some((text, documents)) = read("x.jsonl", bytes) {
        assert!(text.len() <= bytes.len());
        let lines = bytes.split(|byte| *byte == b'\n');
        assert_eq!(documents, lines.filter(|line| !line.trim_ascii().is_empty()).count());
    }
    for name in ["x.txt.gz", "x.jsonl.zst"] {
        let _ = read(name, bytes);
    }
});
