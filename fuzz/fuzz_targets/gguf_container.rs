//! The container of a GGUF file, without the model in it: what is accepted is covered by header, metadata and tensors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::files::gguf::Gguf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(bytes.to_vec()) else {
        return;
    };
    let mut data = 0;
    for info in gguf.tensors() {
        assert!(!info.is_empty());
        assert_eq!(info.kind.bytes(info.len()), Some(info.bytes()));
        assert_eq!(gguf.data(info).len(), info.bytes());
        assert_eq!(gguf.tensor(&info.name), Some(info));
        data += info.bytes();
    }
    assert!(data < bytes.len());
    let texts: usize = gguf.metadata().keys().map(String::len).sum();
    assert!(texts < bytes.len());
});
