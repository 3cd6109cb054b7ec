//! A one-file model: what opens can be run, and is the same file after it was written and opened again.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::{as_if_mapped, scratch, with_right_length};
use onebit_kernels_cpu::Isa;
use onebit_model::files::{OneFile, OneFileOptions, Parts, save_one_file};
use onebit_model::runtime::{Serial, Session, SessionOptions};

fn check(bytes: &[u8]) {
    let Ok(file) = OneFile::from_shared(as_if_mapped(bytes), Path::new("fuzz")) else {
        return;
    };
    let template = file.chat_template().ok();
    if let Ok(tokenizer) = file.tokenizer() {
        let ids = tokenizer.encode("one two three").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    }
    let verified = file.verify().is_ok();
    let Ok(model) = file.model() else {
        assert!(!verified, "verified, and no model");
        return;
    };
    let options = SessionOptions::new(model.config().max_position_embeddings.min(3));
    if let Ok(mut session) = Session::new(&model, Serial, Isa::best(), options) {
        for id in [0, 1] {
            let _ = session.decode(id);
        }
    }
    let parts = Parts {
        generation: file.generation(),
        chat_template: template.as_ref(),
        ..Parts::default()
    };
    let Some(written) = save(&file, &parts) else {
        assert!(!verified, "verified, and cannot be written");
        return;
    };
    let again =
        OneFile::from_shared(as_if_mapped(&written), Path::new("again")).expect("a file that was written opens");
    assert_eq!(again.config(), file.config());
    assert_eq!(again.generation(), file.generation());
    again.model().expect("a model that was written opens");
    assert!(
        save(&again, &parts).as_ref() == Some(&written),
        "the same model is another file"
    );
}

/// The file that the model becomes; none where a weight stands for nothing, which opening does not see.
fn save(file: &OneFile, parts: &Parts<'_>) -> Option<Vec<u8>> {
    let path = scratch("model.1bit");
    save_one_file(&path, file, &OneFileOptions::default(), parts, &|_, _| ()).ok()?;
    Some(fs::read(path).expect("it was just written"))
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = with_right_length(bytes) {
        check(&bytes);
    }
});
