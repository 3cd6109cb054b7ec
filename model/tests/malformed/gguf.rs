//! GGUF: the classes of damage are beside the reader; here are the cuts, the random damage, and the memory of both.

use std::fs;

use onebit_model::files::gguf::{Gguf, GgufModel, GgufOptions, TensorType, save_gguf};
use onebit_model::files::{HfDirectory, ModelSource};

use crate::harness::{check_damage, check_truncations};
use crate::small;

/// A small model in half precision.
pub fn whole() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    small::save_trits(dir.path());
    let options = GgufOptions {
        linears: Some(TensorType::F16),
        ..GgufOptions::default()
    };
    let (source, path) = (HfDirectory::open(dir.path()).unwrap(), dir.path().join("m.gguf"));
    save_gguf(&path, &source, &options, &|_, _| ()).unwrap();
    fs::read(path).unwrap()
}

/// Everything that a program does with a file.
pub fn use_all(bytes: &[u8]) -> bool {
    let gguf = Gguf::from_bytes(bytes.to_vec());
    let Ok(model) = GgufModel::from_bytes(bytes.to_vec(), "attack") else {
        return false;
    };
    assert!(gguf.is_ok());
    let tokenizer = model.tokenizer();
    if let Ok(Some(tokenizer)) = &tokenizer {
        let ids = tokenizer.encode("one two three").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    }
    let read = model
        .config()
        .tensors()
        .iter()
        .all(|spec| model.tensor(&spec.name).is_ok());
    read && tokenizer.is_ok()
}

#[test]
fn cut_or_damaged_files_never_panic() {
    let whole = whole();
    assert!(use_all(&whole));
    check_truncations("m.gguf", &whole, |bytes| {
        assert!(!use_all(bytes) || bytes.len() == whole.len())
    });
    check_damage("m.gguf", &whole, 3000, |bytes| {
        use_all(bytes);
    });
}
