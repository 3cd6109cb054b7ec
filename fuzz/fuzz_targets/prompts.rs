//! The file of `--prompts`, in both forms: no prompt is longer than the file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for json in [false, true] {
        if let Ok(prompts) = onebit_cli::fuzzing::prompts(text, json) {
            assert!(!prompts.is_empty());
            assert!(prompts.iter().map(String::len).sum::<usize>() <= text.len());
        }
    }
});
