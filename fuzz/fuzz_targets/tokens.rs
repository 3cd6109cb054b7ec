//! `*.tokens`, both formats: what opens can be read to its end, and what verifies has ids of its vocabulary and documents in order.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::scratch;
use onebit_trainer::data::{TokenFile, TokenWriter};

fn check(bytes: &[u8]) {
    let path = scratch("corpus.tokens");
    fs::write(&path, bytes).expect("there is room for a small file");
    let Ok(file) = TokenFile::open(&path) else { return };
    assert!(file.len() * file.id_width() < bytes.len());
    let (mut ids, mut documents) = (Vec::new(), Vec::new());
    let read = file.get(0..file.len(), &mut ids);
    assert!(file.get(0..file.len() + 1, &mut Vec::new()).is_err());
    for index in 0..file.documents() {
        if let Ok(range) = file.document(index) {
            assert!(range.start <= range.end && range.end <= file.len());
            documents.push(range);
        }
    }
    let _ = file.check_for(1000, None);
    let (Ok(()), Some(vocab_size)) = (file.verify(), file.vocab_size()) else {
        return;
    };
    read.expect("a file that was verified can be read");
    assert_eq!(documents.len(), file.documents());
    assert!(ids.iter().all(|id| (*id as usize) < vocab_size));
    // Written again from its ids it says the same, unless it has documents without tokens, which the writer leaves out, or none.
    let whole =
        documents.iter().all(|range| !range.is_empty()) && documents.last().map_or(0, |range| range.end) == file.len();
    if !whole || documents.windows(2).any(|pair| pair[0].end != pair[1].start) {
        return;
    }
    let other = scratch("again.tokens");
    let mut writer = TokenWriter::create(&other, vocab_size, file.tokenizer().unwrap_or_default(), true)
        .expect("a vocabulary that was read");
    for range in documents {
        writer.push(&ids[range]).expect("ids that were read");
        writer.end_document();
    }
    let written = writer.finish(
        file.source_bytes().unwrap_or_default(),
        file.source_words().unwrap_or_default(),
    );
    let written = written.expect("there is room for a small file");
    written.verify().expect("a file that was written verifies");
    let mut again = Vec::new();
    written
        .get(0..written.len(), &mut again)
        .expect("a file that was written can be read");
    assert_eq!(again, ids);
    assert_eq!(written.documents(), file.documents());
}

/// With the checksums of what stands there, so that a mutation gets past them.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let content = blake3::hash(bytes.get(192..)?);
    bytes[96..128].copy_from_slice(content.as_bytes());
    let header = blake3::hash(&bytes[..128]);
    bytes[128..160].copy_from_slice(header.as_bytes());
    bytes.starts_with(b"1BTK").then_some(bytes)
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = sealed(bytes) {
        check(&bytes);
    }
});
