//! Parquet files of training text, whose reader is another project's.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::scratch;
use onebit_trainer::data::text::Documents;

fuzz_target!(|bytes: &[u8]| {
    let path = scratch("text.parquet");
    fs::write(&path, bytes).expect("there is room for a small file");
    let Ok(documents) = Documents::open(&[path]) else {
        return;
    };
    for piece in documents.take(1000) {
        if piece.is_err() {
            break;
        }
    }
});
