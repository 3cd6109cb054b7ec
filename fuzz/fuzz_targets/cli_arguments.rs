//! What a shell hands over, an argument a line: a command, help or a usage error, and the same one however often it is asked.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let given: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let parsed = onebit_cli::fuzzing::arguments(given.clone());
    assert_eq!(onebit_cli::fuzzing::arguments(given), parsed);
    if let Err(message) = parsed {
        assert!(!message.is_empty());
    }
});
