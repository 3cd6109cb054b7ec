//! A safetensors container: what is accepted covers the file exactly, and is the same after it was written by the format's own library.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::with_right_length;
use onebit_model::files::Weights;
use safetensors::tensor::TensorView;

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
    let views = weights.names().map(|name| {
        let view = weights.get(name).expect("a name has a tensor");
        (
            name,
            TensorView::new(view.dtype, view.shape.to_vec(), view.bytes).expect("a tensor of the format"),
        )
    });
    let written = safetensors::serialize(views, None).expect("tensors that can be written");
    let again = Weights::from_bytes(written, "again").expect("a container that can be read");
    assert!(again.names().eq(weights.names()));
    for name in weights.names() {
        assert_eq!(again.get(name), weights.get(name));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec());
    if let Some(bytes) = with_right_length(bytes) {
        check(bytes);
    }
});
