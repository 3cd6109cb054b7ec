//! `config.json`: what is accepted has a model, and is the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::config::ModelConfig;
use onebit_model::config::json::parse;

fuzz_target!(|text: &str| {
    let Ok(parsed) = parse(text) else { return };
    parsed.config.validate().expect("a config that was accepted is valid");
    assert!(parsed.config.parameter_count() > 0);
    let written = parsed.config.to_json();
    let again = ModelConfig::from_json(&written).expect("a config that was written can be read");
    assert_eq!(again, parsed.config);
    assert_eq!(again.to_json(), written);
});
