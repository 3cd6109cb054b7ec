mod keeping;

use onebit_engine::Device;
use onebit_model::config::{LinearMode, TensorKind};

use safetensors::tensor::{Dtype, SafeTensors};

use super::*;
use crate::optimizer::Rates;
use crate::options::OptimizerKind;
use crate::storage::Disk;

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
        guard: GuardState::default(),
        val_loss: None,
        stream: None,
        ended: false,
    }
}

fn save(
    root: &Path,
    state: &State,
    specs: &[TensorSpec],
    parameters: &[Tensor],
    optimizer: &mut Optimizer,
    last: usize,
) -> Result<PathBuf> {
    save_keeping(root, state, (specs, parameters, optimizer), keeping(last, false))
}

/// Every step is one of the run's own.
fn keeping(last: usize, best: bool) -> Keep {
    let schedule = SaveSchedule { every: 1, last_step: 0 };
    Keep { last, best, schedule }
}

fn save_keeping(
    root: &Path,
    state: &State,
    (specs, parameters, optimizer): (&[TensorSpec], &[Tensor], &mut Optimizer),
    keep: Keep,
) -> Result<PathBuf> {
    let mut snapshot = Snapshot {
        state: state.clone(),
        specs: specs.to_vec(),
        parameters: parameters.to_vec(),
        optimizer: optimizer.clone(),
        files: vec![("config.json", b"{}".to_vec())],
        metrics: None,
    };
    snapshot.save(&Disk, root, keep)
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
        let rates = Rates {
            lr: 0.1,
            weight_decay: options.weight_decay,
        };
        for step in 0..3 {
            optimizer
                .step(&options, &mut moved, &tensors, (rates, 1.0), step)
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

#[test]
fn a_run_saves_at_every_so_many_steps_and_at_the_last() {
    let saves = |every| {
        let schedule = SaveSchedule { every, last_step: 10 };
        (0..=12).filter(|step| schedule.has(*step)).collect::<Vec<u64>>()
    };
    assert_eq!(saves(4), [0, 4, 8, 10, 12]);
    assert_eq!(saves(0), [10]);
}

/// Where no run was there is no checkpoint, which is no error; what cannot be looked into is one.
#[test]
fn no_directory_is_not_one_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    assert!(latest(&dir.path().join("none")).unwrap().is_none());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = latest(&file).unwrap_err();
    assert!(
        matches!(&error, TrainError::Io { path, .. } if *path == file),
        "{error}"
    );
}

fn read_all(directory: &Path, wanted: Vec<(&str, Vec<usize>, ValuesMut<'_>)>) -> Result<()> {
    let wanted = wanted.into_iter().map(|(name, shape, values)| StoredMut {
        name: name.into(),
        shape,
        values,
    });
    tensors::read_tensors(directory, "all", wanted.collect())
}

/// A file may have tensors that nobody asks for. Those that are asked for have that type and shape.
#[test]
fn tensors_are_found_among_others_and_are_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    // More than are converted at a time.
    let long: Vec<f32> = (0..20_000).map(|i| i as f32).collect();
    let all = [
        ("a", vec![2], Values::F32(&[1.5, -2.0])),
        ("b", vec![100, 200], Values::F32(&long)),
        ("c", vec![3], Values::I8(&[3, -4, 5])),
    ];
    let all = all.map(|(name, shape, values)| Stored {
        name: name.into(),
        shape,
        values,
    });
    let (path, mut whole) = (dir.path().join("all"), Vec::new());
    tensors::write_tensors(&path, &mut whole, all.into()).unwrap();
    fs::write(&path, &whole).unwrap();
    let (mut a, mut b, mut c) = ([0.0; 2], vec![0.0; 20_000], [0; 3]);
    read_all(
        dir.path(),
        vec![
            ("c", vec![3], ValuesMut::I8(&mut c)),
            ("a", vec![2], ValuesMut::F32(&mut a)),
        ],
    )
    .unwrap();
    assert_eq!((a, c), ([1.5, -2.0], [3, -4, 5]));
    read_all(dir.path(), vec![("b", vec![100, 200], ValuesMut::F32(&mut b))]).unwrap();
    assert_eq!(b, long);

    let refused = |name: &str, shape: &[usize], values: ValuesMut<'_>, expected: &str| {
        let error = read_all(dir.path(), vec![(name, shape.to_vec(), values)]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused("b", &[200, 100], ValuesMut::F32(&mut b), "b: expected");
    refused("c", &[3], ValuesMut::U8(&mut [0; 3]), "c: expected");
    refused("d", &[2], ValuesMut::F32(&mut a), "d is not there");
    fs::write(&path, &whole[..whole.len() - 4]).unwrap();
    refused("c", &[3], ValuesMut::I8(&mut c), "b: the file ends in it");
    // A header as long as the format allows is looked for, a longer one is not.
    for (length, expected) in [
        (100_000_000u64, "EOF"),
        (100_000_001, "a header of"),
        (u64::MAX, "a header of"),
    ] {
        fs::write(&path, [&length.to_le_bytes()[..], b"{"].concat()).unwrap();
        refused("a", &[2], ValuesMut::F32(&mut a), expected);
    }
}

/// A disk with so much room.
#[derive(Debug)]
struct Small {
    free: u64,
    /// It is enough.
    suffices: bool,
}

impl Storage for Small {
    fn create_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.create_directory(path)
    }

    fn create(&self, path: &Path) -> std::io::Result<Box<dyn crate::storage::Output>> {
        assert!(self.suffices, "{} is written although there is no room", path.display());
        Disk.create(path)
    }

    fn append(&self, path: &Path, length: u64) -> std::io::Result<Box<dyn crate::storage::Output>> {
        Disk.append(path, length)
    }

    fn sync_file(&self, path: &Path) -> std::io::Result<()> {
        Disk.sync_file(path)
    }

    fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.sync_directory(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.remove_directory(path)
    }

    fn free_space(&self, _: &Path) -> std::io::Result<Option<u64>> {
        Ok(Some(self.free))
    }
}

#[test]
fn a_disk_without_room_is_seen_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (specs, parameters, optimizer) = model();
    let mut snapshot = Snapshot {
        state: state(5),
        specs,
        parameters,
        optimizer,
        files: vec![("config.json", b"{}".to_vec())],
        metrics: None,
    };
    let keep = keeping(1, false);
    // 17 weights and two moments of each, and a file.
    let enough = (1 << 20) + 12 * 17 + 2;
    let mut save = |free, suffices| snapshot.save(&Small { free, suffices }, dir.path(), keep);
    for short in [1 << 20, enough - 1] {
        let error = save(short, false).unwrap_err();
        assert!(matches!(error, TrainError::NoSpace { needed, free, .. } if needed == enough && free == short));
    }
    save(enough, true).unwrap();
}
