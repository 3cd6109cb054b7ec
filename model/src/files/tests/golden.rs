//! Files that `transformers` wrote.

use std::io::Write;
use std::path::PathBuf;

use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::quantize::{abs_sum, absmean_scale, ternary_i8};

use super::*;
use crate::config::WeightStorage;

/// The folder of tiny models, or a loud line and `None`.
fn models() -> Option<PathBuf> {
    let root = std::env::var_os("ONEBIT_TESTDATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let dir = root.join("models/hf-bitnet-tiny");
    if dir.is_dir() {
        return Some(dir);
    }
    // Not `eprintln!`, which the test harness hides when a test passes.
    let line = format!(
        "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA
",
        dir.display()
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

#[test]
fn every_variant_is_read() {
    let Some(dir) = models() else { return };
    let master = [
        ("tiny-f32", Dtype::F32),
        ("tiny-bf16", Dtype::BF16),
        ("tiny-online", Dtype::F32),
    ];
    for (name, dtype) in master.into_iter().chain([("tiny-llama-f32", Dtype::F32)]) {
        let (config, tensors) = load_master(&dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensors.len(), config.tensors().len(), "{name}");
        assert!(
            tensors
                .values()
                .all(|t| t.stored == dtype && t.data.iter().all(|v| v.is_finite())),
            "{name}"
        );
        assert_eq!(config.sub_norms, !name.contains("llama"), "{name}");
        assert_eq!(
            config.uses_mode(crate::config::LinearMode::Ternary),
            name == "tiny-online",
            "{name}"
        );
    }
    for (name, storage) in [
        ("tiny-packed-autobitlinear", WeightStorage::PackedMultiply),
        ("tiny-packed-bitlinear", WeightStorage::PackedDivide),
        ("tiny-llama-packed-bitlinear", WeightStorage::PackedDivide),
    ] {
        let model = load_model(&dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(model.config.storage, storage, "{name}");
        assert_eq!(model.linears.len(), 14, "{name}");
        assert!(
            model.linears.values().all(|l| matches!(l, LoadedLinear::Ternary(_))),
            "{name}"
        );
        assert!(
            matches!(load_master(&dir.join(name)), Err(FileError::Packed { .. })),
            "{name}"
        );
    }
}

#[test]
fn packed_files_hold_the_quantised_online_weights() {
    let Some(dir) = models() else { return };
    let (config, master) = load_master(&dir.join("tiny-online")).unwrap();
    let multiply = load_model(&dir.join("tiny-packed-autobitlinear")).unwrap();
    let divide = load_model(&dir.join("tiny-packed-bitlinear")).unwrap();
    for (name, linear) in &multiply.linears {
        let data = &master[name].data;
        let gamma = absmean_scale(abs_sum(Isa::SCALAR, data), data.len());
        let mut trits = vec![0; data.len()];
        ternary_i8(Isa::SCALAR, data, gamma, &mut trits);
        let (LoadedLinear::Ternary(a), LoadedLinear::Ternary(b)) = (linear, &divide.linears[name]) else {
            panic!("{name} is not packed")
        };
        assert_eq!(a.trits, trits, "{name}");
        assert_eq!(b.trits, trits, "{name}");
        // Both conventions mean the same scale; mean|W| is summed in another order by torch.
        assert!(
            (a.scale / gamma - 1.0).abs() < 1e-6,
            "{name}: {} against {gamma}",
            a.scale
        );
        assert!(
            (b.scale / gamma - 1.0).abs() < 1e-6,
            "{name}: {} against {gamma}",
            b.scale
        );
    }
    // What we pack ourselves from the same weights is the same model.
    let out = tempfile::tempdir().unwrap();
    save_packed(
        out.path(),
        &config,
        &NamedTensor::all(&master),
        Extras::default(),
        HighPrecision::F32,
    )
    .unwrap();
    let ours = load_model(out.path()).unwrap();
    assert_eq!(ours.config, multiply.config);
    assert_eq!(ours.tensors, multiply.tensors);
    for (name, linear) in &ours.linears {
        let (LoadedLinear::Ternary(a), LoadedLinear::Ternary(b)) = (linear, &multiply.linears[name]) else {
            panic!("{name} is not packed")
        };
        assert_eq!(a.trits, b.trits, "{name}");
    }
}

#[test]
fn reading_and_writing_a_float_model_keeps_every_bit() {
    let Some(dir) = models() else { return };
    let (config, master) = load_master(&dir.join("tiny-llama-f32")).unwrap();
    let out = tempfile::tempdir().unwrap();
    save_master(out.path(), &config, &NamedTensor::all(&master), Extras::default()).unwrap();
    assert_eq!(load_master(out.path()).unwrap(), (config, master));
}
