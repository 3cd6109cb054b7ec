//! Damaged and hostile files: each a named error, never a panic.

use std::fs;

use super::*;

fn problem(bytes: Vec<u8>) -> String {
    match Weights::from_bytes(bytes, "attack") {
        Err(FileError::Header { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_headers_are_refused_by_class() {
    let good = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(
        Weights::from_bytes(container(good, 8), "x")
            .unwrap()
            .get("a")
            .unwrap()
            .shape,
        [2]
    );
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |b: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}},{b}}}"#);
    let cases: &[(String, usize, &str)] = &[
        (good.into(), 9, "end at 8 of 9"),
        (good.into(), 7, "0..8 of 7"),
        (one("F32", "[2]", "[1,9]"), 9, "begins at 1"),
        (one("F32", "[2]", "[8,0]"), 8, "begins at 8"),
        (one("F32", "[3]", "[0,8]"), 8, "not [3] of F32"),
        (one("U8", "[2]", "[0,8]"), 8, "not [2] of U8"),
        (one("F32", "[4294967296,4294967296,4]", "[0,8]"), 8, "not [4294967296"),
        (
            one("F32", "[9223372036854775808,2]", "[0,0]"),
            0,
            "not [9223372036854775808",
        ),
        (one("F4", "[3]", "[0,1]"), 1, "not [3] of F4"),
        (one("F32", "[-1]", "[0,8]"), 8, "header"),
        (one("F32", "[2.0]", "[0,8]"), 8, "header"),
        (one("F33", "[2]", "[0,8]"), 8, "F33"),
        (one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions"),
        (
            one("U8", "[18446744073709551615]", "[0,18446744073709551615]"),
            0,
            "of 0 bytes",
        ),
        (
            two(r#""b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}"#),
            12,
            "begins at 4",
        ),
        (
            two(r#""b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}"#),
            8,
            "begins at 0",
        ),
        (
            two(r#""b":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}"#),
            16,
            "begins at 12",
        ),
        (
            two(r#""a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}"#),
            16,
            "stands twice",
        ),
        (
            two(r#""a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}"#),
            8,
            "stands twice",
        ),
        (
            two(r#""b":{"dtype":"U8","shape":[0],"data_offsets":[8,8],"x":1}"#),
            8,
            "unknown field",
        ),
        (two(r#""__metadata__":{"x":1}"#), 8, "header"),
        (two(r#""__metadata__":{},"__metadata__":{}"#), 8, "stands twice"),
        (format!(" {good}"), 8, "does not begin"),
        (format!("{good}{good}"), 8, "trailing"),
        ("[]".into(), 0, "does not begin"),
        ("{".into(), 0, "header"),
        ("[".repeat(100_000), 0, "does not begin"),
        (format!("{{\"a\":{}", "[".repeat(100_000)), 0, "header"),
    ];
    for (header, data, expected) in cases {
        let found = problem(container(header, *data));
        assert!(found.contains(expected), "{header:.200}: {found}");
    }
}

#[test]
fn header_lengths_beyond_the_file_or_the_limit_are_refused() {
    for (length, expected) in [
        (u64::MAX, "limit"),
        (u64::MAX - 7, "limit"),
        (1 << 63, "limit"),
        (100_000_001, "limit"),
        (100_000_000, "in a file of 10"),
        (3, "in a file of 10"),
        (0, "does not begin"),
    ] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let found = problem(bytes);
        assert!(found.contains(expected), "{length}: {found}");
    }
    for n in 0..8 {
        assert!(problem(vec![0; n]).contains("too short"));
    }
    let mut invalid = 4u64.to_le_bytes().to_vec();
    invalid.extend([b'{', 0xff, 0xfe, b'}']);
    assert!(problem(invalid).contains("header"));
}

#[test]
fn offsets_that_wrap_around_are_refused() {
    // Sixteen tensors of 2^60 bytes: each one's size is a number, their sum is not.
    let entry = |i: u64| {
        let (start, end) = (i.wrapping_mul(1 << 60), (i + 1).wrapping_mul(1 << 60));
        format!(r#""t{i:02}":{{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[{start},{end}]}}"#)
    };
    let entries: Vec<String> = (0..16).map(entry).collect();
    let found = problem(container(&format!("{{{}}}", entries.join(",")), 64));
    assert!(found.contains("of 64 bytes") || found.contains("begins at"), "{found}");
}

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
