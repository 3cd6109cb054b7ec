//! A safetensors container as `safetensors` asks, without writing it again: some ten times as many inputs a second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::with_right_length;
use onebit_model::files::Weights;

fn check(bytes: Vec<u8>) {
    let len = bytes.len();
    let Ok(weights) = Weights::from_bytes(bytes, "fuzz") else {
        return;
    };
    let mut data = 0;
    for name in weights.names() {
        let view = weights.get(name).expect("a name has a tensor");
        let bits = view.shape.iter().product::<usize>() * view.dtype.bitsize();
        assert_eq!(bits, 8 * view.bytes.len());
        data += view.bytes.len();
    }
    assert!(8 + data <= len);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec());
    if let Some(bytes) = with_right_length(bytes) {
        check(bytes);
    }
});
