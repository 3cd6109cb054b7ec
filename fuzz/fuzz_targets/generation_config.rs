//! `generation_config.json`: what is accepted is in range, and is the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::files::GenerationConfig;

fuzz_target!(|text: &str| {
    let Ok(config) = GenerationConfig::from_json(text) else {
        return;
    };
    let within = |value: Option<f32>, low, high| assert!(value.is_none_or(|x| (low..=high).contains(&x)), "{config:?}");
    within(config.temperature, 0.0, 100.0);
    within(config.top_p, 0.0, 1.0);
    within(config.min_p, 0.0, 1.0);
    within(config.repetition_penalty, 0.01, 100.0);
    let again = GenerationConfig::from_json(&config.to_json()).expect("settings that were written can be read");
    assert_eq!(again, config);
});
