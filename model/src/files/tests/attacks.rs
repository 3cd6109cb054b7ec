//! Damaged and hostile files: each a named error, never a panic. The classes of damage to the container are in `tests/malformed`.

use std::fs;

use super::*;

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    save_small(dir.path());
    let path = dir.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let beyond = (header..whole.len()).step_by(997);
    for end in (0..header).step_by(7).chain(beyond).chain([header, whole.len() - 1]) {
        assert!(
            Weights::from_bytes(whole[..end].to_vec(), "cut").is_err(),
            "cut at {end}"
        );
    }
    for end in [0, 4, 8, 100, header, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(
            matches!(load_model(dir.path()), Err(FileError::Header { .. })),
            "cut at {end}"
        );
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(Weights::from_bytes(longer, "longer").is_err());
    Weights::from_bytes(whole, "whole").unwrap();
}

#[test]
fn a_changed_header_byte_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    save_small(dir.path());
    let whole = fs::read(dir.path().join(WEIGHTS_FILE)).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (mut refused, mut accepted) = (0, 0);
    for at in 0..header {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        match Weights::from_bytes(bytes, "flip") {
            // A changed letter of a name is a container like any other.
            Ok(weights) => {
                weights.names().for_each(|name| assert!(weights.get(name).is_some()));
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        refused > header / 3 && accepted > 0,
        "{refused} refused, {accepted} accepted of {header}"
    );
}

#[test]
fn names_shapes_and_types_are_checked_against_the_config() {
    let refused = |from: &str, to: &str| {
        let dir = tempfile::tempdir().unwrap();
        save_small(dir.path());
        edit(&dir.path().join(WEIGHTS_FILE), from, to);
        load_model(dir.path()).unwrap_err().to_string()
    };
    let missing = refused("layers.1.self_attn.q_proj", "layers.1.self_attn.p_proj");
    assert!(
        missing.contains("layers.1.self_attn.q_proj.weight is missing"),
        "{missing}"
    );
    assert!(
        missing.contains("did you mean model.layers.1.self_attn.p_proj.weight"),
        "{missing}"
    );
    let shape = refused("\"shape\":[40,32]", "\"shape\":[32,40]");
    assert!(
        shape.contains("model.embed_tokens.weight: expected shape [40, 32], found [32, 40]"),
        "{shape}"
    );
    let dtype = refused(
        "{\"dtype\":\"F32\",\"shape\":[40,32]",
        "{\"dtype\":\"I32\",\"shape\":[40,32]",
    );
    assert!(
        dtype.contains("model.embed_tokens.weight: expected F32, F16 or BF16, found I32"),
        "{dtype}"
    );

    let dir = tempfile::tempdir().unwrap();
    let (mut config, tensors) = save_small(dir.path());
    config.sub_norms = false;
    fs::write(dir.path().join(CONFIG_FILE), config.to_json()).unwrap();
    let unknown = load_model(dir.path()).unwrap_err().to_string();
    assert!(
        unknown.contains("unknown tensor model.layers.0.mlp.ffn_sub_norm.weight"),
        "{unknown}"
    );
    assert!(unknown.contains("and 3 more"), "{unknown}");

    // A tied head saved again is accepted when it is the embedding, and only then.
    config = small();
    config.tie_word_embeddings = false;
    let mut with_head = tensors.clone();
    with_head.insert("lm_head.weight".into(), tensors["model.embed_tokens.weight"].clone());
    let save = |all: &BTreeMap<String, MasterTensor>| {
        save_master(dir.path(), &config, &NamedTensor::all(all), Extras::default()).unwrap();
        fs::write(dir.path().join(CONFIG_FILE), small().to_json()).unwrap();
        load_master(dir.path())
    };
    assert_eq!(save(&with_head).unwrap().1, tensors);
    with_head.get_mut("lm_head.weight").unwrap().data[0] += 1.0;
    assert!(matches!(save(&with_head), Err(FileError::UnknownTensor { .. })));
}

#[test]
fn packed_weights_are_checked() {
    let packed = |change: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        let config = small();
        let tensors = weights_of(&config);
        save_packed(
            dir.path(),
            &config,
            &NamedTensor::all(&tensors),
            Extras::default(),
            HighPrecision::F32,
        )
        .unwrap();
        change(dir.path());
        load_model(dir.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    packed(&|_| ()).unwrap();
    // The last byte of the file lies in the last packed matrix.
    let last = |value: u8| {
        move |dir: &Path| {
            let path = dir.join(WEIGHTS_FILE);
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() = value;
            fs::write(path, bytes).unwrap();
        }
    };
    packed(&last(0b1000_0001)).unwrap();
    let code = packed(&last(0b1100_0000)).unwrap_err();
    // v_proj of the last layer: 16 rows, 32 columns.
    assert!(
        code.contains("layers.1.self_attn.v_proj.weight: row 15, column 31 holds the code 3"),
        "{code}"
    );

    let name = "model.layers.0.mlp.down_proj.weight_scale";
    let scale = |value: f32| {
        move |dir: &Path| {
            let path = dir.join(WEIGHTS_FILE);
            let mut bytes = fs::read(&path).unwrap();
            let start = {
                let weights = Weights::open_file(&path).unwrap();
                let gamma = weights.get(name).unwrap().bytes.to_vec();
                bytes.windows(4).position(|window| window == gamma).unwrap()
            };
            bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
            fs::write(path, bytes).unwrap();
        }
    };
    packed(&scale(0.5)).unwrap();
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let message = packed(&scale(value)).unwrap_err();
        assert!(
            message.contains(name) && message.contains("positive finite"),
            "{message}"
        );
    }
    let missing = packed(&|dir| {
        edit(
            &dir.join(WEIGHTS_FILE),
            "down_proj.weight_scale",
            "down_proj.weight_skale",
        )
    });
    assert!(missing.unwrap_err().contains("weight_scale is missing"));
    let float = packed(&|dir| {
        fs::write(dir.join(CONFIG_FILE), small().to_json()).unwrap();
    });
    assert!(
        float
            .unwrap_err()
            .contains("expected F32, F16 or BF16, found U8; packed weights need quantization_config")
    );
}

#[test]
fn a_directory_without_a_model_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load_model(dir.path()), Err(FileError::Config { .. })));
    fs::write(dir.path().join(CONFIG_FILE), small().to_json()).unwrap();
    assert!(matches!(
        load_model(dir.path()),
        Err(FileError::Io { action: "open", .. })
    ));
    fs::create_dir(dir.path().join(WEIGHTS_FILE)).unwrap();
    assert!(matches!(load_model(dir.path()), Err(FileError::Io { .. })));
}
