//! `manifest.json` of a checkpoint: each file is named once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_trainer::checkpoint::parse_manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = parse_manifest(bytes) else { return };
    assert!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0));
});
