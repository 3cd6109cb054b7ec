//! A one-file model as a board reads it, without files and without the tokenizers crate: what opens gives tokens or an error value, and its memory is what was
//! foretold. Where both tokenizers open a sound file, they give the same ids.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::{as_if_mapped, with_right_length};
use onebit_model::decode::{TextGenerator, TextOptions};
use onebit_model::files::OneFile;
use onebit_model::image::Image;
use onebit_model::runtime::KvType;

const TEXT: &str = "one two's 34\n\n  five — \u{1f980}";

fn check(bytes: &[u8]) {
    let Ok(image) = Image::new(as_if_mapped(bytes)) else {
        return;
    };
    let tokenizer = image.tokenizer();
    if let Ok(Some(tokenizer)) = &tokenizer {
        let ids = tokenizer.encode(TEXT);
        let _ = tokenizer.decode(&ids);
        if let Ok(file) = OneFile::from_shared(as_if_mapped(bytes), Path::new("fuzz"))
            && file.verify().is_ok()
            && let Ok(other) = file.tokenizer()
        {
            assert_eq!(other.encode(TEXT).expect("text is encoded"), ids);
        }
    }
    let options = TextOptions {
        context: image.config().max_position_embeddings.min(6),
        kv: KvType::Int8,
        ..TextOptions::of(&image)
    };
    let foretold = TextGenerator::memory_bytes(&image, &options);
    let Ok(mut generator) = TextGenerator::new(&image, options) else {
        return;
    };
    foretold.expect("memory is foretold of what opens");
    if generator.begin("one two", 4).is_err() {
        return;
    }
    while let Ok(Some(id)) = generator.next_token() {
        let _ = generator.text_of(id);
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = with_right_length(bytes) {
        check(&bytes);
    }
});
