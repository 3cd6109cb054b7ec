//! `manifest.json` of a checkpoint: what is accepted names the files that there must be, none outside, and is the same written and read again.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use onebit_trainer::checkpoint::parse_manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entries) = parse_manifest(bytes) else { return };
    for needed in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(entries.contains_key(needed), "{needed}");
    }
    for name in entries.keys() {
        let mut parts = Path::new(name).components();
        assert!(
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)),
            "{name}"
        );
    }
    let written = serde_json::to_vec(&entries).expect("a manifest can be written");
    assert_eq!(parse_manifest(&written).as_ref(), Ok(&entries));
});
