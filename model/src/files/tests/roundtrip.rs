use std::fs;

use super::*;
use crate::config::{FeedForward, LayerModes, LinearMode, WeightStorage};

#[test]
fn float_models_survive_and_their_bytes_are_the_same_each_time() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (config, tensors) = save_small(a.path());
    assert_eq!(load_master(a.path()).unwrap(), (config, tensors));
    save_small(b.path());
    save_small(b.path());
    for file in [CONFIG_FILE, WEIGHTS_FILE] {
        assert_eq!(
            fs::read(a.path().join(file)).unwrap(),
            fs::read(b.path().join(file)).unwrap(),
            "{file}"
        );
    }
    let files = fs::read_dir(b.path()).unwrap().count();
    assert_eq!(files, 2, "no temporary file is left");
}

#[test]
fn every_option_survives() {
    let mut config = small();
    config.feed_forward = FeedForward::Relu2;
    config.qk_norm = true;
    config.residual_scaling = true;
    config.final_logit_softcapping = Some(30.0);
    config.tie_word_embeddings = false;
    config.layer_modes[0] = LayerModes::uniform(LinearMode::Int8);
    config.layer_modes[1].down = LinearMode::F16;
    let tensors = weights_of(&config);
    let named = NamedTensor::all(&tensors);
    let generation = GenerationConfig {
        temperature: Some(0.7),
        ..Default::default()
    };
    let extras = Extras {
        tokenizer: Some(b"{\"fake\": 1}"),
        generation: Some(&generation),
    };
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("a/b");
    save_packed(&nested, &config, &named, extras, HighPrecision::F32).unwrap();
    let model = load_model(&nested).unwrap();
    assert_eq!(
        model.config,
        ModelConfig {
            storage: WeightStorage::PackedMultiply,
            ..config.clone()
        }
    );
    assert_eq!(fs::read(nested.join(TOKENIZER_FILE)).unwrap(), b"{\"fake\": 1}");
    assert_eq!(GenerationConfig::read(&nested).unwrap(), Some(generation));
    for layer in 0..2 {
        for linear in config.linears(layer) {
            match &model.linears[&linear.name] {
                LoadedLinear::Ternary(t) => {
                    assert_eq!(linear.mode, LinearMode::Ternary, "{}", linear.name);
                    assert_eq!(t.trits.len(), linear.rows * linear.cols);
                    assert!(t.trits.contains(&-1) && t.trits.contains(&1));
                }
                LoadedLinear::Master(t) => {
                    assert_ne!(linear.mode, LinearMode::Ternary, "{}", linear.name);
                    assert_eq!(t, &tensors[&linear.name]);
                }
            }
        }
    }
}

#[test]
fn halves_are_rounded_and_named_in_the_config() {
    let config = small();
    let tensors = weights_of(&config);
    for (precision, dtype, bound) in [
        (HighPrecision::F16, Dtype::F16, 1.0 / 2048.0),
        (HighPrecision::BF16, Dtype::BF16, 1.0 / 256.0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        save_packed(
            dir.path(),
            &config,
            &NamedTensor::all(&tensors),
            Extras::default(),
            precision,
        )
        .unwrap();
        let model = load_model(dir.path()).unwrap();
        for (name, tensor) in &model.tensors {
            assert_eq!(tensor.stored, dtype);
            for (&a, &b) in tensor.data.iter().zip(&tensors[name].data) {
                assert!((a - b).abs() <= b.abs() * bound + 1e-7, "{name}: {a} {b}");
            }
        }
        let text = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
        assert!(text.contains(&format!("\"dtype\": \"{}\"", precision.name())), "{text}");
    }
}

#[test]
fn all_float_models_are_packed_as_float() {
    let mut config = small();
    config.set_all_modes(LinearMode::F16);
    let tensors = weights_of(&config);
    let dir = tempfile::tempdir().unwrap();
    save_packed(
        dir.path(),
        &config,
        &NamedTensor::all(&tensors),
        Extras::default(),
        HighPrecision::F32,
    )
    .unwrap();
    assert_eq!(load_master(dir.path()).unwrap(), (config, tensors));
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_the_old_model() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tensors) = save_small(dir.path());
    let pack = |config: &ModelConfig, tensors: &BTreeMap<String, MasterTensor>, precision| {
        save_packed(
            dir.path(),
            config,
            &NamedTensor::all(tensors),
            Extras::default(),
            precision,
        )
    };
    let mut changed = tensors.clone();
    changed.get_mut("model.norm.weight").unwrap().data[3] = 1e6;
    let error = pack(&config, &changed, HighPrecision::F16);
    assert!(matches!(&error, Err(FileError::Value { index: 3, .. })), "{error:?}");
    let name = "model.layers.0.mlp.up_proj.weight";
    changed = tensors.clone();
    changed.get_mut(name).unwrap().data[5] = f32::NAN;
    assert!(matches!(
        pack(&config, &changed, HighPrecision::F32),
        Err(FileError::Value { index: 5, .. })
    ));

    let odd = ModelConfig {
        intermediate_size: 50,
        ..config.clone()
    };
    let error = pack(&odd, &weights_of(&odd), HighPrecision::F32);
    assert!(matches!(&error, Err(FileError::Rows { rows: 50, .. })), "{error:?}");

    changed = tensors.clone();
    let moved = changed.remove(name).unwrap();
    let error = pack(&config, &changed, HighPrecision::F32);
    assert!(
        matches!(&error, Err(FileError::MissingTensor { name: n, .. }) if n == name),
        "{error:?}"
    );
    changed.insert("extra.weight".into(), moved.clone());
    changed.insert(name.into(), moved);
    let error = pack(&config, &changed, HighPrecision::F32);
    assert!(
        matches!(&error, Err(FileError::UnknownTensor { name: n, more: 0, .. }) if n == "extra.weight"),
        "{error:?}"
    );
    changed.remove("extra.weight");
    changed.get_mut(name).unwrap().shape.swap(0, 1);
    assert!(matches!(
        pack(&config, &changed, HighPrecision::F32),
        Err(FileError::Shape { .. })
    ));
    assert_eq!(load_master(dir.path()).unwrap(), (config, tensors));
}

#[test]
fn replacing_a_mapped_file_leaves_the_map_alone() {
    let dir = tempfile::tempdir().unwrap();
    save_small(dir.path());
    let mapped = Weights::open_dir(dir.path()).unwrap();
    let before = mapped.get("model.norm.weight").unwrap().bytes.to_vec();
    let mut other = weights_of(&small());
    other.values_mut().for_each(|tensor| tensor.data.fill(9.0));
    save_master(dir.path(), &small(), &NamedTensor::all(&other), Extras::default()).unwrap();
    assert_eq!(mapped.get("model.norm.weight").unwrap().bytes, before);
    let after = Weights::open_dir(dir.path()).unwrap();
    assert_ne!(after.get("model.norm.weight").unwrap().bytes, before);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, "old").unwrap();
    let failed = replace_file(&path, |temporary| {
        fs::write(temporary, "half").unwrap();
        Err(FileError::Rows {
            name: "x".into(),
            rows: 1,
        })
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn packing_and_unpacking_is_the_identity() {
    for (rows, cols) in [(4, 1), (8, 3), (12, 7), (64, 31), (0, 5), (4, 0)] {
        let trits: Vec<i8> = (0..rows * cols).map(|i| (i * 7 % 5 % 3) as i8 - 1).collect();
        let packed = pack_rows(&trits, rows, cols).unwrap();
        assert_eq!(packed.len(), rows / 4 * cols);
        assert_eq!(unpack_rows(&packed).unwrap(), trits);
    }
    assert_eq!(pack_rows(&[0; 6], 6, 1), None);
    assert_eq!(pack_rows(&[0; 7], 4, 2), None);
    // Code 3 in the field of the third quarter, second byte of three.
    assert_eq!(unpack_rows(&[0, 0b0011_0000, 0]), Err(2 * 3 + 1));
}
