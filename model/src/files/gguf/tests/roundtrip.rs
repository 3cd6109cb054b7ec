//! What goes in comes out: the same trits, the same γ, the same floats, and so the same logits.

use super::*;
use crate::files::gguf::{Graph, LINEAR_TYPES, TensorType};
use crate::runtime::{FloatStorage, PackedModel};

fn options(linears: TensorType) -> GgufOptions<'static> {
    GgufOptions {
        linears: Some(linears),
        ..GgufOptions::default()
    }
}

/// Bit for bit, whatever the form.
fn assert_same(made: &Made, back: &GgufModel, what: &str) {
    let mut expected = made.config.clone();
    expected.storage = back.config().storage;
    assert_eq!(back.config(), &expected, "{what}");
    for spec in made.config.tensors() {
        let (a, b) = (&made.tensors[&spec.name], back.tensor(&spec.name).unwrap());
        match (a, b) {
            (TensorSource::Float(a), TensorSource::Float(b)) => {
                assert_eq!(a.clone().into_f32(), b.into_f32(), "{what}: {}", spec.name);
            }
            (a, b) => assert!(*a == b, "{what}: {}", spec.name),
        }
    }
    let model = PackedModel::from_source(made, FloatStorage::Stored).unwrap();
    let again = PackedModel::from_source(back, FloatStorage::Stored).unwrap();
    let parts = |model: &PackedModel| {
        (
            model.blocks().to_vec(),
            model.norm().to_vec(),
            model.embedding().clone(),
            model.head().clone(),
        )
    };
    assert!(parts(&model) == parts(&again), "{what}");
}

#[test]
fn every_type_of_every_graph_keeps_every_bit() {
    for (config, graph) in [
        (bitnet(), Graph::Bitnet),
        (bitnet_b158(), Graph::BitnetB158),
        (llama(), Graph::Llama),
    ] {
        let made = made(config);
        for linears in LINEAR_TYPES {
            let bytes = written(&made, &options(linears)).unwrap();
            assert_eq!(
                bytes,
                written(&made, &options(linears)).unwrap(),
                "the same bytes twice"
            );
            let back = read(&bytes);
            assert_eq!(back.graph(), graph);
            let what = format!("{} {}", graph.name(), linears.name());
            assert_same(&made, &back, &what);
            // And once more from the file, which is a source like any other.
            assert_eq!(bytes, written(&back, &options(linears)).unwrap(), "{what}");
        }
    }
}

#[test]
fn the_older_name_of_the_relu2_graph_may_be_asked_for() {
    let made = made(bitnet_b158());
    let bytes = written(
        &made,
        &GgufOptions {
            graph: Some(Graph::Bitnet25),
            ..options(TensorType::I2S)
        },
    )
    .unwrap();
    let back = read(&bytes);
    assert_eq!(back.graph(), Graph::Bitnet25);
    assert_same(&made, &back, "bitnet-25");
}

#[test]
fn llama_has_the_rows_of_queries_and_keys_pair_by_pair() {
    let made = made(llama());
    let bytes = written(&made, &options(TensorType::F16)).unwrap();
    let back = read(&bytes);
    let file = back.container();
    let info = file.tensor("blk.0.attn_q.weight").unwrap();
    let TensorSource::Trits { values, scale } = &made.tensors["model.layers.0.self_attn.q_proj.weight"] else {
        panic!("not ternary")
    };
    let (cols, dim) = (256, 128);
    let half = f16::from_f32(*scale);
    // Row 2i of a head is our row i, row 2i + 1 our row i + dim/2.
    for (theirs, ours) in [
        (0, 0),
        (1, dim / 2),
        (2, 1),
        (dim - 1, dim - 1),
        (dim, dim),
        (dim + 1, dim + dim / 2),
    ] {
        let row: Vec<f16> = file.data(info)[2 * cols * theirs..2 * cols * (theirs + 1)]
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([b[0], b[1]]))
            .collect();
        let expected: Vec<f16> = values[cols * ours..cols * (ours + 1)]
            .iter()
            .map(|&trit| f16::from_f32(f32::from(trit)) * half)
            .collect();
        assert_eq!(row, expected, "row {theirs}");
    }
}

#[test]
fn master_weights_are_quantised_as_everywhere() {
    let mut made = made(bitnet());
    let mut state = 7u32;
    for spec in made.config.tensors() {
        if let TensorKind::Linear(_) = spec.kind {
            let values = (0..spec.len()).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            });
            made.tensors
                .insert(spec.name, TensorSource::Float(FloatValues::F32(values.collect())));
        }
    }
    let back = read(&written(&made, &options(TensorType::Tq1_0)).unwrap());
    let model = PackedModel::from_source(&made, FloatStorage::Stored).unwrap();
    assert_eq!(
        model.blocks(),
        PackedModel::from_source(&back, FloatStorage::Stored).unwrap().blocks()
    );
}

#[test]
fn a_smaller_head_is_near() {
    let made = made(bitnet());
    let name = "model.embed_tokens.weight";
    let TensorSource::Float(values) = made.tensors[name].clone() else {
        panic!("not float")
    };
    let values = values.into_f32();
    for (head, most) in [
        (TensorType::F32, 0.0),
        (TensorType::F16, 1e-4),
        (TensorType::Q8_0, 0.5 / 127.0 * 0.55),
        (TensorType::Q6K, 0.5 / 32.0 * 1.1),
        (TensorType::Q4_0, 0.5 / 8.0 * 1.05),
    ] {
        let options = GgufOptions {
            head: Some(head),
            ..options(TensorType::Tq2_0)
        };
        let back = read(&written(&made, &options).unwrap());
        let TensorSource::Float(found) = back.tensor(name).unwrap() else {
            panic!("not float")
        };
        let worst = values
            .iter()
            .zip(found.into_f32())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst <= most, "{}: {worst}", head.name());
        let quantised = !matches!(head, TensorType::F32 | TensorType::F16);
        assert_eq!(back.notes().len(), usize::from(quantised), "{:?}", back.notes());
    }
}

#[test]
fn a_head_of_integers_is_rounded_and_said_to_be() {
    let mut made = made(bitnet());
    let name = "model.embed_tokens.weight";
    let (values, steps) = (vec![3i8; 40 * 256], vec![0.1f32; 40]);
    let integers = FloatValues::Int8 {
        values: values.into(),
        steps: steps.into(),
    };
    made.tensors.insert(name.to_string(), TensorSource::Float(integers));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let written = save_gguf(&path, &made, &GgufOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(written.graph, Graph::Bitnet);
    assert!(written.notes.iter().any(|note| note.contains("rounded")), "{written:?}");
    let TensorSource::Float(found) = GgufModel::open(&path).unwrap().tensor(name).unwrap() else {
        panic!("not float")
    };
    assert!(found.into_f32().iter().all(|&v| v == f16::from_f32(3.0 * 0.1).to_f32()));
}

#[test]
fn float_weights_of_one_magnitude_stay_float_where_the_file_says_so() {
    let mut made = made(llama());
    let name = "model.layers.1.mlp.down_proj.weight";
    let one = FloatValues::F16(vec![f16::ONE; 256 * 512].into());
    made.tensors.insert(name.to_string(), TensorSource::Float(one));
    let bytes = written(&made, &options(TensorType::Tq2_0)).unwrap();
    assert_same(&made, &read(&bytes), "as it was written");
    // Without our key they are what llama.cpp's converter writes for a ternary matrix.
    let key = b"onebit.linear_scales";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap();
    let mut other = bytes.clone();
    other[at..at + key.len()].copy_from_slice(b"general.linearscales");
    assert_eq!(read(&other).config().layer_modes[1].down, LinearMode::Ternary);
}

#[test]
fn version_2_is_read_as_version_3() {
    let made = made(bitnet());
    let mut bytes = written(&made, &options(TensorType::Tq1_0)).unwrap();
    assert_eq!(bytes[4], 3);
    bytes[4] = 2;
    assert_same(&made, &read(&bytes), "version 2");
}

#[test]
fn sampling_settings_and_the_name_travel() {
    let generation = crate::files::GenerationConfig::from_json(r#"{"temperature": 0.6, "top_k": 40}"#).unwrap();
    let options = GgufOptions {
        name: Some("Little one"),
        generation: Some(&generation),
        ..GgufOptions::default()
    };
    let back = read(&written(&made(bitnet()), &options).unwrap());
    assert_eq!(back.generation(), Some(&generation));
    let name = back.container().metadata()["general.name"].clone();
    assert_eq!(name, crate::files::gguf::Value::Text("Little one".into()));
}
