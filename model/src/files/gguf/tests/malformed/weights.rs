//! Codes that stand for nothing, and scales that are none.

use super::*;

#[test]
fn weights_and_scales() {
    let weights = |change: &dyn Fn(&mut [u8])| {
        let good = written(&made(bitnet()), &GgufOptions::default()).unwrap();
        let place = read(&good)
            .container()
            .tensor("blk.0.attn_q.weight")
            .unwrap()
            .place
            .clone();
        let mut bytes = good;
        change(&mut bytes[place]);
        let model = GgufModel::from_bytes(bytes, "m").unwrap();
        match model.tensor("model.layers.0.self_attn.q_proj.weight").unwrap_err() {
            FileError::Gguf { source, .. } => *source,
            other => panic!("{other}"),
        }
    };
    refused!(weights(&|w| w[66 + 3] |= 3), GgufError::Code { at, .. } if *at == 256 + 3);
    let scale = |block: usize, d: f16| weights(&|w| w[66 * block + 64..][..2].copy_from_slice(&d.to_le_bytes()));
    refused!(scale(5, f16::from_f32(2.0)), GgufError::Scales { block: 5, .. });
    for bad in [f16::NAN, f16::INFINITY, -f16::ONE] {
        refused!(scale(0, bad), GgufError::Scale { .. });
    }
    let factor = |value: f32| {
        let good = written(&made(bitnet()), &GgufOptions::default()).unwrap();
        let place = read(&good)
            .container()
            .tensor("blk.0.attn_q.scale")
            .unwrap()
            .place
            .clone();
        let mut bytes = good;
        bytes[place].copy_from_slice(&value.to_le_bytes());
        GgufModel::from_bytes(bytes, "m").unwrap_err()
    };
    for bad in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
        refused!(factor(bad), GgufError::Scale { .. });
    }
    // γ beside the blocks must be what the blocks have.
    let good = written(&made(llama()), &GgufOptions::default()).unwrap();
    let name = b"onebit.linear_scales";
    let at = good.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 16;
    let changed = |value: f32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        GgufModel::from_bytes(bytes, "m")
    };
    refused!(changed(f32::NAN).unwrap_err(), GgufError::Scale { .. });
    let read = changed(0.5)
        .unwrap()
        .tensor("model.layers.0.self_attn.q_proj.weight")
        .unwrap_err();
    assert!(read.to_string().contains("onebit.linear_scales"), "{read}");
    // An embedding of blocks with an infinite step.
    let q8 = GgufOptions {
        head: Some(TensorType::Q8_0),
        ..GgufOptions::default()
    };
    let mut bytes = written(&made(bitnet()), &q8).unwrap();
    let place = super::read(&bytes)
        .container()
        .tensor("token_embd.weight")
        .unwrap()
        .place
        .clone();
    bytes[place.start + 34..place.start + 36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let error = super::read(&bytes).tensor("model.embed_tokens.weight").unwrap_err();
    assert!(error.to_string().contains("value 32 is"), "{error}");
}

#[test]
fn a_block_with_the_scale_0_has_no_weights_whatever_its_codes() {
    let made = made(bitnet());
    for (kind, block) in [(TensorType::Tq1_0, 54), (TensorType::Tq2_0, 66)] {
        let options = GgufOptions {
            linears: Some(kind),
            ..GgufOptions::default()
        };
        let mut bytes = written(&made, &options).unwrap();
        let place = read(&bytes)
            .container()
            .tensor("blk.0.attn_q.weight")
            .unwrap()
            .place
            .clone();
        bytes[place][3 * block - 2..3 * block].fill(0);
        let name = "model.layers.0.self_attn.q_proj.weight";
        let (
            TensorSource::Trits { values, scale },
            TensorSource::Trits {
                values: found,
                scale: same,
            },
        ) = (made.tensors[name].clone(), read(&bytes).tensor(name).unwrap())
        else {
            panic!("not ternary")
        };
        let mut expected = values;
        assert!(expected[512..768].iter().any(|&trit| trit != 0));
        expected[512..768].fill(0);
        assert!(found == expected && same == scale, "{}", kind.name());
    }
}
