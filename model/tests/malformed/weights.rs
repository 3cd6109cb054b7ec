//! The tensors of a model directory: scales, codes, sizes.

use std::fs;
use std::path::Path;

use onebit_model::config::LinearMode;
use onebit_model::files::{FileError, HfDirectory, ModelSource, WEIGHTS_FILE, Weights};
use onebit_model::runtime::{FloatStorage, PackedModel};

use crate::harness::{check_damage, peak_of};
use crate::small;

#[test]
fn damaged_directories_never_panic() {
    for save in [small::save_floats, small::save_trits] {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path());
        let path = dir.path().join(WEIGHTS_FILE);
        let whole = fs::read(&path).unwrap();
        check_damage("a model directory", &whole, 1500, |bytes| {
            fs::write(&path, bytes).unwrap();
            let _ = PackedModel::open(dir.path(), FloatStorage::Stored);
        });
    }
}

/// Opens a model directory and reads every tensor.
fn read_all(dir: &Path) -> Result<(), FileError> {
    let source = HfDirectory::open(dir)?;
    let specs = source.config().tensors();
    specs.iter().try_for_each(|spec| source.tensor(&spec.name).map(drop))
}

/// The error of a packed model directory whose container was changed.
fn packed(change: impl Fn(&mut Vec<u8>, &Weights)) -> Result<(), FileError> {
    let dir = tempfile::tempdir().unwrap();
    small::save_trits(dir.path());
    let path = dir.path().join(WEIGHTS_FILE);
    let mut bytes = fs::read(&path).unwrap();
    let weights = Weights::from_bytes(bytes.clone(), "whole").unwrap();
    change(&mut bytes, &weights);
    fs::write(&path, bytes).unwrap();
    read_all(dir.path())
}

/// Where a tensor lies in the file; its bytes are found nowhere else.
fn place(bytes: &[u8], weights: &Weights, name: &str) -> std::ops::Range<usize> {
    let wanted = weights.get(name).unwrap().bytes;
    let mut places = bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, window)| *window == wanted);
    let start = places.next().unwrap().0;
    assert!(places.next().is_none());
    start..start + wanted.len()
}

#[test]
fn scales_and_codes_that_stand_for_nothing() {
    let (linear, scale) = (
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.mlp.up_proj.weight_scale",
    );
    packed(|_, _| ()).unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, -1.0] {
        let error = packed(|bytes, weights| {
            let range = place(bytes, weights, scale);
            bytes[range].copy_from_slice(&value.to_le_bytes());
        });
        assert!(
            matches!(&error, Err(FileError::Scale { name, .. }) if name == scale),
            "{value}: {error:?}"
        );
    }
    let error = packed(|bytes, weights| {
        let range = place(bytes, weights, linear);
        bytes[range.end - 1] |= 0b1100_0000;
    });
    // 20 rows of 16 columns.
    assert!(
        matches!(&error, Err(FileError::Code { name, row: 19, col: 15 }) if name == linear),
        "{error:?}"
    );
    let error = packed(|bytes, _| {
        let text = scale.as_bytes();
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        bytes[at + text.len() - 1] = b'x';
    });
    let wanted = |name: &str, hint: &Option<String>| {
        name == scale && hint.as_deref().is_some_and(|hint| hint.ends_with("scalx"))
    };
    assert!(
        matches!(&error, Err(FileError::MissingTensor { name, suggestion, .. }) if wanted(name, suggestion)),
        "{error:?}"
    );
}

#[test]
fn sizes_of_another_model_are_refused() {
    let refused = |key: &str, from: &str, to: &str| {
        let dir = tempfile::tempdir().unwrap();
        small::save_floats(dir.path());
        let path = dir.path().join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        let changed = text.replace(&format!("\"{key}\": {from}"), &format!("\"{key}\": {to}"));
        assert_ne!(text, changed, "{key}");
        fs::write(&path, changed).unwrap();
        let (result, peak) = peak_of(|| read_all(dir.path()));
        assert!(peak < 1 << 20, "{key}: {peak} bytes");
        result.unwrap_err()
    };
    let shape = |error: &FileError, wanted: &str| matches!(error, FileError::Shape { name, .. } if name == wanted);
    // The embedding has fewer rows than there are token ids; and a vocabulary as large as a config may say.
    for vocab in ["13", "4194304"] {
        let error = refused("vocab_size", "12", vocab);
        assert!(shape(&error, "model.embed_tokens.weight"), "{error}");
    }
    assert!(shape(&refused("hidden_size", "16", "32"), "model.embed_tokens.weight"));
    let error = refused("num_hidden_layers", "1", "2");
    assert!(
        matches!(&error, FileError::MissingTensor { name, .. } if name.contains("layers.1.")),
        "{error}"
    );
    let error = refused("num_attention_heads", "2", "1");
    assert!(
        matches!(&error, FileError::Shape { name, .. } if name.contains("q_proj")),
        "{error}"
    );
}

/// Every weight must be a number, whether a scale is computed from it or not, in every type in which it may be kept.
#[test]
fn weights_that_are_not_finite() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = small::config();
    config.tie_word_embeddings = false;
    config.layer_modes[0].k = LinearMode::F16;
    small::save(dir.path(), &config);
    let path = dir.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    let weights = Weights::from_bytes(whole.clone(), "whole").unwrap();
    let opened = |name: &str, value: f32, storage| {
        let mut bytes = whole.clone();
        let start = place(&bytes, &weights, name).start;
        bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        PackedModel::open(dir.path(), storage).map(drop)
    };
    let refused = |name: &str, value, storage| {
        let error = opened(name, value, storage).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("finite"), "{storage:?}: {error}");
    };
    for spec in config.tensors() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (_, storage) in FloatStorage::ALL {
                refused(&spec.name, value, storage);
            }
        }
    }
    // Finite as it is stored, and not in half precision.
    opened("lm_head.weight", 1e6, FloatStorage::Stored).unwrap();
    refused("lm_head.weight", 1e6, FloatStorage::F16);
}
