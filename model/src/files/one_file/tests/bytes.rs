//! The bytes of a file are those of every earlier version of the writer.

use safetensors::Dtype;

use super::*;
use crate::files::{HfDirectory, MasterTensor};

/// A directory with weights of integer arithmetic alone, so that every machine has the same.
fn directory(config: &ModelConfig) -> TempDir {
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1u32 << 24) as f32 - 0.5) * 0.25
    };
    let tensors = { config.tensors().into_iter() }.map(|spec| {
        let data = (0..spec.len()).map(|_| value()).collect();
        let (shape, stored) = (spec.shape, Dtype::F32);
        (spec.name, MasterTensor { shape, data, stored })
    });
    let tensors = tensors.collect();
    let dir = tempfile::tempdir().unwrap();
    save_master(dir.path(), config, &NamedTensor::all(&tensors), Extras::default()).unwrap();
    dir
}

/// `int4` and `sketch` were made by the writer that had the whole model in memory; the others changed when binary and int4 linears got forms of their own and when
/// blocks of binary weights became those of 128.
const EXPECTED: [(&str, usize, &str); 4] = [
    (
        "columns",
        50_560,
        "4dd53cfb8c4700655e8aaaa66cf3ac0177a623d516a9d7574d9131c17c693870",
    ),
    (
        "int4",
        37_760,
        "8be86f60582ba1284b88be32396b64978ff4c398d06a17e8634d8f4e1477b9a9",
    ),
    (
        "int8",
        37_376,
        "723074ce360ab04a728434b9563a27758c97fd957607a4d73deb75eedc118986",
    ),
    (
        "sketch",
        2_927_360,
        "40b58d5316129cf379ccb574375f7029add5cb76b25cd88b11091e019d68d5bb",
    ),
];

#[test]
fn the_bytes_do_not_change() {
    // Rows long enough for t5, a head large enough for a sketch.
    let large = ModelConfig {
        hidden_size: 512,
        head_dim: 128,
        vocab_size: 2049,
        num_hidden_layers: 1,
        layer_modes: small().layer_modes[..1].to_vec(),
        ..small()
    };
    let t2 = OneFileOptions {
        layout: TernaryLayout::All(Layout::T2),
        ..Default::default()
    };
    let with = |storage, columns| OneFileOptions { storage, columns, ..t2 };
    let sketch = OneFileOptions {
        storage: FloatStorage::F16,
        ..Default::default()
    };
    let cases = [
        ("columns", mixed(), with(FloatStorage::Stored, true)),
        ("int4", small(), with(FloatStorage::Int4, false)),
        ("int8", mixed(), with(FloatStorage::Int8, false)),
        ("sketch", large, sketch),
    ];
    let found = cases.map(|(name, config, options)| {
        let dir = directory(&config);
        let path = dir.path().join("model.1bit");
        let source = HfDirectory::open(dir.path()).unwrap();
        save_one_file(&path, &source, &options, &Parts::default(), &|_, _| ()).unwrap();
        let file = OneFile::open(&path).unwrap();
        file.verify().unwrap();
        assert_eq!(file.model().unwrap().sketch().is_some(), name == "sketch");
        let bytes = fs::read(&path).unwrap();
        (name, bytes.len(), blake3::hash(&bytes).to_hex().to_string())
    });
    assert_eq!(
        found,
        EXPECTED.map(|(name, bytes, hash)| (name, bytes, hash.to_string()))
    );
}
