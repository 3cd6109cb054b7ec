//! An int4 head inside a file.

use half::f16;
use onebit_kernels_cpu::int4_gemv;
use safetensors::Dtype;

use super::*;
use crate::runtime::FloatValues;

/// A model whose rows of 96 values end inside a block, and which has a head of its own.
fn int4() -> PackedModel {
    let config = ModelConfig {
        hidden_size: 96,
        ..mixed()
    };
    packed(&config, FloatStorage::Int4)
}

/// The bytes of a file of it, and where in it the tensor `name` begins.
fn file_of(name: &str) -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(save(&dir, &int4(), &Parts::default())).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    (bytes, 8 + length + metadata.info(name).unwrap().data_offsets.0)
}

#[test]
fn codes_and_steps_lie_in_the_file_and_nothing_else_of_the_head_does() {
    let (bytes, _) = file_of("lm_head.weight.i4");
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| {
        let view = theirs.tensor(name).unwrap();
        (view.dtype(), view.shape().to_vec())
    };
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        assert_eq!(shape(&format!("{name}.i4")), (Dtype::U8, vec![43, 64]));
        assert_eq!(shape(&format!("{name}.steps")), (Dtype::F16, vec![43, 4]));
        assert!(theirs.tensor(name).is_err());
    }
    let model = open(&bytes).unwrap();
    let FloatValues::Int4 { codes, steps, cols } = &model.head().values else {
        panic!("int4")
    };
    assert!(codes.is_shared() && steps.is_shared() && *cols == 96);
    assert_eq!(model.head().values.bytes(), 43 * (64 + 8));
    // From here to other types: they are the same weights.
    let file = OneFile::from_shared(aligned(&bytes), std::path::Path::new("m.1bit")).unwrap();
    let wide = file.model_as(FloatStorage::F32).unwrap();
    let mut weights = vec![0.0; 43 * 96];
    int4_gemv::dequantize(codes, steps, 96, &mut weights);
    assert_eq!(wide.head().values, FloatValues::F32(weights.into()));
    assert_eq!(logits(&file.model_as(FloatStorage::Int4).unwrap()), logits(&model));
}

#[test]
fn steps_that_are_no_numbers_are_refused() {
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let (bytes, at) = file_of(&format!("{name}.steps"));
        for place in [0, 2 * (43 * 4 - 1)] {
            for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
                let mut bytes = bytes.clone();
                bytes[at + place..at + place + 2].copy_from_slice(&bad.to_le_bytes());
                let error = open(&bytes).map(drop).unwrap_err().to_string();
                assert!(
                    error.contains(name) && error.contains("expected finite steps"),
                    "{error}"
                );
            }
            // A step may be negative, and 0.
            for good in [-f16::ONE, f16::ZERO, f16::MAX] {
                let mut bytes = bytes.clone();
                bytes[at + place..at + place + 2].copy_from_slice(&good.to_le_bytes());
                assert_eq!(logits(&open(&bytes).unwrap()).len(), 5 * 43);
            }
        }
    }
}

/// The error of a file whose header had `from` replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    let (mut bytes, _) = file_of("lm_head.weight.i4");
    let header = header_end(&bytes);
    let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
    assert!(text.contains(from) && from.len() == to.len(), "{from}");
    bytes[8..header].copy_from_slice(text.replace(from, to).as_bytes());
    open(&bytes).map(drop).unwrap_err().to_string()
}

#[test]
fn parts_of_another_size_or_type_are_refused() {
    for (from, to, expected) in [
        (
            "lm_head.weight.i4\":{\"dtype\":\"U8\",\"shape\":[43,64]",
            "lm_head.weight.i4\":{\"dtype\":\"U8\",\"shape\":[64,43]",
            "lm_head.weight.i4: expected shape [43, 64], found [64, 43]",
        ),
        (
            "lm_head.weight.steps\":{\"dtype\":\"F16\",\"shape\":[43,4]",
            "lm_head.weight.steps\":{\"dtype\":\"F16\",\"shape\":[4,43]",
            "lm_head.weight.steps: expected shape [43, 4], found [4, 43]",
        ),
        (
            "lm_head.weight.steps\":{\"dtype\":\"F16\"",
            "lm_head.weight.steps\":{\"dtype\":\"I16\"",
            "lm_head.weight.steps: expected F16, found I16",
        ),
        (
            "lm_head.weight.steps",
            "lm_head.weight.stops",
            "lm_head.weight.steps: is missing (did you mean lm_head.weight.stops?)",
        ),
        (
            "lm_head.weight.i4",
            "lm_head.weight.i8",
            "lm_head.weight.i8: expected I8, found U8",
        ),
    ] {
        let error = refused(from, to);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// Whatever the codes are, they are weights; those past the end of a row are multiplied by 0, and found by verifying.
#[test]
fn codes_past_the_end_of_a_row_are_harmless_and_found_by_verifying() {
    let (bytes, at) = file_of("lm_head.weight.i4");
    let expected = logits(&open(&bytes).unwrap());
    let mut changed = bytes.clone();
    // Columns 96 to 127 of the first row.
    changed[at + 48..at + 64].fill(0x3f);
    assert_eq!(logits(&open(&changed).unwrap()), expected);
    let verify = |bytes: Vec<u8>| {
        let file = OneFile::from_shared(aligned(&with_checksum(bytes)), std::path::Path::new("attack.1bit"));
        file.unwrap().verify()
    };
    let error = verify(changed).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight: holds"), "{error}");
    let mut other = bytes;
    other[at..at + 48].fill(0x3f);
    verify(other).unwrap();
}
