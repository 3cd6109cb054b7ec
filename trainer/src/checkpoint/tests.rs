use onebit_engine::Device;
use onebit_model::config::{LinearMode, TensorKind};

use super::*;
use crate::options::OptimizerKind;

fn model() -> (Vec<TensorSpec>, Vec<Tensor>, Optimizer) {
    model_with(OptimizerKind::AdamW)
}

fn model_with(kind: OptimizerKind) -> (Vec<TensorSpec>, Vec<Tensor>, Optimizer) {
    let specs = vec![
        TensorSpec {
            name: "a".into(),
            shape: vec![3, 4],
            kind: TensorKind::Linear(LinearMode::Ternary),
        },
        TensorSpec {
            name: "b".into(),
            shape: vec![5],
            kind: TensorKind::Norm,
        },
    ];
    let device = Device::cpu().unwrap();
    let value = |n: usize, x: f32| (0..n).map(|i| x + i as f32 / 3.0).collect();
    let tensors = vec![
        Tensor::from_f32(device, [3, 4], value(12, 1.0)).unwrap(),
        Tensor::from_f32(device, [5], value(5, -2.0)).unwrap(),
    ];
    let optimizer = Optimizer::new(kind, &specs, &tensors);
    (specs, tensors, optimizer)
}

fn state(step: u64) -> State {
    let options = TrainOptions::default();
    State {
        step,
        total_steps: 100,
        options,
        config: "{}".into(),
        data: "d".into(),
        metrics_bytes: 10 * step,
    }
}

#[test]
fn what_was_saved_comes_back_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    assert!(latest(dir.path()).unwrap().is_none());
    for step in [5, 10, 115] {
        save(dir.path(), &state(step), &specs, &tensors, &mut optimizer, 2).unwrap();
    }
    assert!(!dir.path().join("step-5").exists());
    let found = latest(dir.path()).unwrap().unwrap();
    assert_eq!((found.state, found.skipped.len()), (state(115), 0));
    let mut empty: Vec<Tensor> = tensors
        .iter()
        .map(|t| Tensor::zeros(t.device(), t.shape().clone()))
        .collect();
    restore(&found.path, &specs, &mut empty, &mut optimizer).unwrap();
    for (a, b) in tensors.iter().zip(&empty) {
        assert_eq!(a.f32().unwrap(), b.f32().unwrap());
    }
}

/// Moments of every kind come back as they were, in their own types, and those of another kind are refused.
#[test]
fn moments_come_back_to_the_bit() {
    let kinds = [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::Muon];
    for kind in kinds {
        let dir = tempfile::tempdir().unwrap();
        let (specs, tensors, mut optimizer) = model_with(kind);
        let (mut moved, options) = (tensors.clone(), TrainOptions::default());
        for step in 0..3 {
            optimizer
                .step(&options, &mut moved, &tensors, (0.1, 1.0), step)
                .unwrap();
        }
        let saved = save(dir.path(), &state(3), &specs, &moved, &mut optimizer, 1).unwrap();
        for other in kinds {
            let (_, mut found, mut fresh) = model_with(other);
            let restored = restore(&saved, &specs, &mut found, &mut fresh);
            // Muon's checkpoint has all that AdamW's has of a matrix but the second moment, and AdamW's all that Muon's has.
            if other == OptimizerKind::Muon && kind == OptimizerKind::AdamW {
                continue;
            }
            assert_eq!(restored.is_ok(), other == kind, "{kind:?} as {other:?}");
            if other == kind {
                let (found, expected) = (fresh.state(&specs).unwrap(), optimizer.state(&specs).unwrap());
                assert_eq!(format!("{found:?}"), format!("{expected:?}"));
                assert!(!format!("{found:?}").contains("NaN"));
            }
        }
        let file = fs::read(saved.join("optimizer.safetensors")).unwrap();
        let stored = SafeTensors::deserialize(&file).unwrap();
        let types = ["first.a", "second.b"].map(|name| stored.tensor(name).unwrap().dtype());
        match kind {
            OptimizerKind::AdamW8bit => {
                assert_eq!(types, [Dtype::I8, Dtype::U8]);
                assert_eq!(stored.tensor("second_scale.a").unwrap().dtype(), Dtype::F32);
            }
            _ => assert_eq!(types, [Dtype::F32; 2]),
        }
    }
}

/// Every byte matters: a file cut or changed anywhere makes the checkpoint one that is passed over.
#[test]
fn any_damage_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    save(dir.path(), &state(5), &specs, &tensors, &mut optimizer, 9).unwrap();
    let newest = save(dir.path(), &state(6), &specs, &tensors, &mut optimizer, 9).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let path = newest.join(file);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 5, "{file} cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            assert_eq!(
                latest(dir.path()).unwrap().unwrap().state.step,
                5,
                "{file} changed at {at}"
            );
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 6);
    }
    fs::remove_file(newest.join("manifest.json")).unwrap();
    fs::remove_file(dir.path().join("step-5/manifest.json")).unwrap();
    let error = latest(dir.path()).unwrap_err().to_string();
    assert!(error.contains("none is whole"), "{error}");
}

#[test]
fn a_manifest_names_the_files_of_a_checkpoint_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, tensors, mut optimizer) = model();
    let path = save(dir.path(), &state(5), &specs, &tensors, &mut optimizer, 9)
        .unwrap()
        .join("manifest.json");
    let good = fs::read_to_string(&path).unwrap();
    let entry = r#"{"bytes": 0, "blake3": ""}"#;
    for (text, expected) in [
        ("{}".to_string(), "does not name model.safetensors"),
        (
            good.replace("optimizer.safetensors", "optimiser.safetensors"),
            "does not name optimizer.safetensors",
        ),
        (good.replacen('{', &format!("{{\"../x\": {entry},"), 1), "names ../x"),
        (
            good.replacen('{', &format!("{{\"/etc/passwd\": {entry},"), 1),
            "names /etc/passwd",
        ),
        (
            good.replacen('{', &format!("{{\"..\": {entry},"), 1),
            "names .., which is no file",
        ),
        (good.replace("\"bytes\": ", "\"bytes\": -"), "invalid value"),
        (
            format!("{{\"model.safetensors\": {}", "[".repeat(100_000)),
            "invalid type: sequence",
        ),
        ("[]".to_string(), "invalid type"),
    ] {
        fs::write(&path, &text).unwrap();
        let error = latest(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:.80}: {error}");
    }
    fs::write(&path, good).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 5);
}

/// A checkpoint may be a link to another disk. It is read through the link; when it is old, the link goes and not what it leads to.
#[cfg(unix)]
#[test]
fn linked_checkpoints_are_read_and_never_deleted_through_the_link() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (specs, tensors, mut optimizer) = model();
    let kept = save(elsewhere.path(), &state(5), &specs, &tensors, &mut optimizer, 9).unwrap();
    std::os::unix::fs::symlink(&kept, dir.path().join("step-5")).unwrap();
    assert_eq!(latest(dir.path()).unwrap().unwrap().state.step, 5);
    save(dir.path(), &state(6), &specs, &tensors, &mut optimizer, 1).unwrap();
    assert!(fs::symlink_metadata(dir.path().join("step-5")).is_err());
    read_state(&kept).unwrap();
}
