//! A GGUF file: what the container accepts lies inside the file, and what is accepted as a model gives every tensor that its configuration names, or
//! says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::files::ModelSource;
use onebit_model::files::gguf::{Gguf, GgufModel};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes(bytes.to_vec()) else {
        return;
    };
    let data: usize = gguf.tensors().iter().map(|info| gguf.data(info).len()).sum();
    assert!(data <= bytes.len());
    let Ok(model) = GgufModel::from_bytes(bytes.to_vec(), "fuzz") else {
        return;
    };
    model.config().validate().expect("a config that was accepted is valid");
    for spec in model.config().tensors() {
        let stored = model.stored(&spec.name).is_ok();
        assert!(
            model.tensor(&spec.name).is_err() || stored,
            "{} is read and not stored",
            spec.name
        );
    }
    if let Ok(Some(tokenizer)) = model.tokenizer() {
        let ids = tokenizer.encode("one two three").unwrap_or_default();
        assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        let _ = tokenizer.decode(&ids);
    }
});
