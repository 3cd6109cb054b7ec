//! A one-file model as far as opening looks: names, types, shapes and places, not the model that is made of them.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::{as_if_mapped, with_right_length};
use onebit_model::files::OneFile;

fn check(bytes: &[u8]) {
    let Ok(file) = OneFile::from_shared(as_if_mapped(bytes), Path::new("fuzz")) else {
        return;
    };
    file.config().validate().expect("a config that was accepted is valid");
    assert_eq!(file.file_bytes(), bytes.len());
    let parts: usize = file.parts().map(|(_, len)| len).sum();
    assert!(parts <= bytes.len());
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = with_right_length(bytes) {
        check(&bytes);
    }
});
