//! A SentencePiece model: what is accepted encodes and decodes any text without a panic, and gives ids of its vocabulary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::tokenizer::Tokenizer;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes) else {
        return;
    };
    for text in [
        "one two three",
        "",
        "  A\u{e9}\u{4e2d}\u{1f600}\n\t0",
        "<s>one</s> <unk>",
    ] {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()), "{text:?}");
        let _ = tokenizer.decode(&ids);
    }
    let _ = tokenizer.decode(&[0, 1, 2, u32::MAX]);
});
