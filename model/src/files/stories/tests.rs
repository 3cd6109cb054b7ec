use std::fs;

use super::source::{half_split, unpack};
use super::*;
use crate::files::ModelSource;
use crate::runtime::{FloatStorage, PackedModel, TensorSource};

/// A file of one layer: width 8, feed-forward 4, 2 heads, 1 key and value head, 5 tokens.
fn small() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for word in [1u32, 8, 4, 1, 2, 1, 5, 16] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.push(1);
    bytes.resize(HEADER_BYTES as usize, 0);
    for i in 0..8 + 5 * 8 {
        bytes.extend((i as f32).to_le_bytes());
    }
    for (i, trits) in [64, 32, 32, 64, 32, 32, 32].into_iter().enumerate() {
        bytes.extend((i as f32 + 0.5).to_le_bytes());
        // The first row of q is 1 0 −1 0 1 0 0 0.
        let row = [0b0100_1100, 0b0100_0000];
        bytes.extend((0..trits / 4).map(|j| row.get(j).copied().unwrap_or(j as u8 & 0b0101_0101)));
    }
    bytes
}

fn open(bytes: &[u8]) -> Result<StoriesModel, FileError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.bin");
    fs::write(&path, bytes).unwrap();
    StoriesModel::open(&path)
}

#[test]
fn tensors_are_where_the_format_has_them() {
    let model = open(&small()).unwrap();
    let trits = |name: &str| match model.tensor(name).unwrap() {
        TensorSource::Trits { values, scale } => (values, scale),
        other => panic!("{other:?}"),
    };
    let (q, gamma) = trits("model.layers.0.self_attn.q_proj.weight");
    assert_eq!((&q[..8], gamma), (&[1, 0, -1, 0, 1, 0, 0, 0][..], 0.5));
    assert_eq!(trits("model.layers.0.mlp.gate_proj.weight").1, 4.5);
    assert_eq!(trits("model.layers.0.mlp.down_proj.weight").1, 5.5);
    assert_eq!(trits("model.layers.0.mlp.up_proj.weight").1, 6.5);
    let floats = |name: &str| match model.tensor(name).unwrap() {
        TensorSource::Float(values) => values.into_f32(),
        other => panic!("{other:?}"),
    };
    assert_eq!(floats("model.norm.weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert_eq!(floats("model.embed_tokens.weight")[39], 47.0);
    assert_eq!(floats("model.layers.0.self_attn.attn_sub_norm.weight"), [0.125; 8]);
    assert_eq!(floats("model.layers.0.mlp.ffn_sub_norm.weight"), [0.25; 4]);
    let missing = model.tensor("model.layers.1.mlp.up_proj.weight").unwrap_err();
    assert!(matches!(missing, FileError::MissingTensor { .. }));
    PackedModel::from_source(&model, FloatStorage::Stored).unwrap();
}

#[test]
fn rows_of_heads_are_put_in_the_order_of_halves() {
    // Two heads of four rows, one column.
    assert_eq!(half_split(&[0, 1, 2, 3, 4, 5, 6, 7], 2, 1), [0, 2, 1, 3, 4, 6, 5, 7]);
}

#[test]
fn the_first_trit_is_in_the_highest_bits_and_one_code_is_none() {
    assert_eq!(unpack(&[0b0100_1101]).unwrap(), [1, 0, -1, 1]);
    assert_eq!(unpack(&[0, 0b0000_1000]), Err(6));
    let mut bytes = small();
    *bytes.last_mut().unwrap() = 0b0000_0010;
    let error = open(&bytes)
        .unwrap()
        .tensor("model.layers.0.mlp.up_proj.weight")
        .unwrap_err();
    assert!(matches!(error, FileError::Code { row: 3, col: 7, .. }), "{error}");
}

#[test]
fn what_is_no_such_file_is_refused() {
    let whole = small();
    for end in [0, 3, 255, 256, 400, whole.len() - 1] {
        assert!(matches!(open(&whole[..end]), Err(FileError::Stories { .. })), "{end}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(open(&longer).is_err());
    // Magic, version, each size, and whether the head is tied.
    for at in (0..36).step_by(4).chain([36]) {
        for value in [0, 0xff] {
            let mut bytes = whole.clone();
            let wide = if at == 36 { 1 } else { 4 };
            bytes[at..at + wide].fill(value);
            // The context alone has no tensor: any size that is one will do.
            assert!(open(&bytes).is_err(), "byte {at} of {value}");
        }
    }
    let mut scale = whole;
    let at = HEADER_BYTES as usize + 4 * 48;
    scale[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = open(&scale)
        .unwrap()
        .tensor("model.layers.0.self_attn.q_proj.weight")
        .unwrap_err();
    assert!(matches!(error, FileError::Scale { .. }), "{error}");
}
