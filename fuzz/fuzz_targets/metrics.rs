//! `metrics.jsonl`, read and drawn: whatever the numbers are, there is a picture or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok((picture, curve)) = onebit_cli::fuzzing::metrics(text) else {
        return;
    };
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    assert!(!curve.contains("NaN"), "{curve}");
});
