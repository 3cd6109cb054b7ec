//! `state.json` of a checkpoint: what is accepted is the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_trainer::checkpoint::parse_state;

fuzz_target!(|bytes: &[u8]| {
    let Ok(state) = parse_state(bytes) else { return };
    let written = serde_json::to_vec_pretty(&state).expect("a state can be written");
    let again = parse_state(&written).expect("a state that was written can be read");
    // Compared as text, because NaN is not itself.
    let text = serde_json::to_vec_pretty(&again).expect("a state can be written");
    assert_eq!(text, written);
});
