//! `*.tokens` in memory: as `tokens`, without a file system, so that a hundred times as many inputs are tried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_trainer::data::TokenFile;

fn check(bytes: &[u8]) {
    let Ok(file) = TokenFile::from_bytes(bytes.to_vec(), "fuzz") else {
        return;
    };
    assert!(file.len() * file.id_width() < bytes.len());
    let mut ids = Vec::new();
    let read = file.get(0..file.len(), &mut ids);
    assert!(file.get(0..file.len() + 1, &mut Vec::new()).is_err());
    let mut documents = 0;
    for index in 0..file.documents() {
        if let Ok(range) = file.document(index) {
            assert!(range.start <= range.end && range.end <= file.len());
            documents += 1;
        }
    }
    assert!(file.document(file.documents()).is_err());
    let _ = file.check_for(1000, None);
    if let (Ok(()), Some(vocab_size)) = (file.verify(), file.vocab_size()) {
        read.expect("a file that was verified can be read");
        assert_eq!(documents, file.documents());
        assert!(ids.iter().all(|id| (*id as usize) < vocab_size));
    }
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
