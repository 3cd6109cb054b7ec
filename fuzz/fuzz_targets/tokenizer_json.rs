//! `tokenizer.json`: what is accepted encodes and decodes any text without a panic, gives ids of its vocabulary, loses nothing where it says so, and
//! is the same tokenizer in its packed form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::tokenizer::Tokenizer;

const TEXTS: [&str; 4] = [
    "one two three",
    "",
    "  A\u{e9}\u{4e2d}\u{1f600}\n\t0",
    "<s>one</s> [UNK]",
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes) else {
        return;
    };
    let packed = tokenizer.pack();
    let packed = packed
        .map(|packed| Tokenizer::from_packed(packed.into(), bytes.to_vec().into()).expect("a packed tokenizer opens"));
    for text in TEXTS {
        let ids = tokenizer.encode(text);
        if let Some(packed) = &packed {
            assert_eq!(packed.encode(text).ok(), ids.as_ref().ok().cloned(), "{text:?}");
        }
        let Ok(ids) = ids else { continue };
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{text:?}");
        if let Ok(decoded) = tokenizer.decode(&ids)
            && tokenizer.is_lossless()
        {
            assert_eq!(decoded, text);
        }
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX]);
});
