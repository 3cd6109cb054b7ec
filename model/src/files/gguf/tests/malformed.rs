//! Each class of damaged or hostile file, and the error that is its own.

use super::*;
use crate::files::gguf::{Gguf, GgufError, TensorType};

/// A GGUF file put together by hand.
#[derive(Clone, Default)]
struct Hand {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

fn text(value: &[u8]) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value].concat()
}

impl Hand {
    fn key(mut self, name: &str, kind: u32, value: &[u8]) -> Self {
        self.keys
            .push([&text(name.as_bytes())[..], &kind.to_le_bytes(), value].concat());
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut info = text(name.as_bytes());
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.tensors.push(info);
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = vec![0; bytes];
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    fn refused(&self) -> GgufError {
        Gguf::from_bytes(self.bytes()).unwrap_err()
    }
}

/// `assert_matches!`, with the error shown.
macro_rules! refused {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}: {error}");
    }};
}

const F32: u32 = 0;
const ARRAY: u32 = 9;

#[test]
fn the_header() {
    refused!(Gguf::from_bytes(vec![]).unwrap_err(), GgufError::Truncated { .. });
    refused!(Gguf::from_bytes(b"GGML".to_vec()).unwrap_err(), GgufError::Magic { found } if found == b"GGML");
    let mut bytes = Hand::default().bytes();
    bytes[4] = 1;
    refused!(
        Gguf::from_bytes(bytes.clone()).unwrap_err(),
        GgufError::Version { found: 1 }
    );
    // Of a big-endian machine.
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    refused!(
        Gguf::from_bytes(bytes).unwrap_err(),
        GgufError::Version { found: 0x0300_0000 }
    );
    // Counts that the file cannot hold: a header bomb.
    for (at, expected) in [(8, "tensors"), (16, "keys")] {
        for count in [1u64 << 20, u64::MAX] {
            let mut bytes = Hand::default().key("k", F32, &[0]).data(4096).bytes();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            refused!(Gguf::from_bytes(bytes).unwrap_err(), GgufError::Count { what, .. } if *what == expected);
        }
    }
}

#[test]
fn keys_and_values() {
    let hand = Hand::default;
    refused!(
        hand().key("k", 13, &[]).refused(),
        GgufError::ValueType { found: 13, .. }
    );
    refused!(hand().key("k", 7, &[2]).refused(), GgufError::Bool { found: 2, .. });
    refused!(hand().key("k", 8, &text(b"\xff")).refused(), GgufError::Utf8 { .. });
    refused!(
        hand().key("k", 8, &u64::MAX.to_le_bytes()).refused(),
        GgufError::Truncated { .. }
    );
    let twice = hand().key("k", 0, &[1]).key("k", 0, &[1]);
    refused!(twice.refused(), GgufError::DuplicateKey { key } if key == "k");

    let array = |element: u32, count: u64, rest: &[u8]| {
        let value = [&element.to_le_bytes()[..], &count.to_le_bytes(), rest].concat();
        hand().key("k", ARRAY, &value).refused()
    };
    refused!(
        array(4, u64::MAX / 2, &[]),
        GgufError::Count {
            what: "array elements",
            ..
        }
    );
    refused!(array(4, 1 << 62, &[]), GgufError::Count { .. });
    refused!(array(7, 2, &[1, 3]), GgufError::Bool { found: 3, .. });
    refused!(array(8, 1, &text(b"\xc3")), GgufError::Utf8 { .. });
    refused!(array(99, 1, &[0]), GgufError::ValueType { found: 99, .. });
    // A hundred thousand arrays, each in the one before it.
    let nested = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()]
        .concat()
        .repeat(100_000);
    refused!(hand().key("k", ARRAY, &nested).refused(), GgufError::NestedArray { .. });

    for bad in [0u32, 3, 4, 48, 1 << 17] {
        let error = hand().key("general.alignment", 4, &bad.to_le_bytes()).refused();
        refused!(error, GgufError::Alignment { found } if *found == u64::from(bad));
    }
    refused!(
        hand().key("general.alignment", 8, &text(b"32")).refused(),
        GgufError::WrongType { .. }
    );
}

#[test]
fn tensors() {
    let one = |dims: &[u64], kind, offset| Hand::default().tensor("t", dims, kind, offset);
    refused!(one(&[], F32, 0).refused(), GgufError::Dimensions { found: 0, .. });
    refused!(one(&[1; 5], F32, 0).refused(), GgufError::Dimensions { found: 5, .. });
    for dims in [
        &[0][..],
        &[4, 0],
        &[u64::MAX],
        &[1 << 33, 1 << 33],
        &[1 << 32, 1 << 31],
        &[u64::MAX, u64::MAX, 2],
    ] {
        refused!(one(dims, F32, 0).data(64).refused(), GgufError::Size { .. });
    }
    refused!(one(&[32], 12, 0).refused(), GgufError::TensorType { found: 12, .. });
    refused!(one(&[32], u32::MAX, 0).refused(), GgufError::TensorType { .. });
    let message = one(&[32], 12, 0).refused().to_string();
    assert!(message.contains("Q4_K") && message.contains("TQ1_0"), "{message}");
    let message = one(&[32], u32::MAX, 0).refused().to_string();
    assert!(message.contains("negative"), "{message}");
    refused!(
        one(&[255], 35, 0).refused(),
        GgufError::Block {
            block: 256,
            cols: 255,
            ..
        }
    );
    // The product is a whole number of blocks and the row is not.
    refused!(one(&[128, 2], 35, 0).refused(), GgufError::Block { cols: 128, .. });
    refused!(
        one(&[4], F32, 0).data(15).refused(),
        GgufError::Outside { bytes: 16, .. }
    );
    refused!(
        one(&[4], F32, u64::MAX - 31).data(64).refused(),
        GgufError::Outside { .. }
    );
    refused!(one(&[4], F32, 1 << 40).data(64).refused(), GgufError::Outside { .. });
    refused!(
        one(&[4], F32, 8).data(64).refused(),
        GgufError::Misaligned { offset: 8, .. }
    );
    refused!(
        one(&[4], F32, 32).data(64).refused(),
        GgufError::Hole { offset: 32, end: 0, .. }
    );
    refused!(one(&[4], F32, 0).data(33).refused(), GgufError::Trailing { bytes: 17 });
    refused!(Hand::default().data(1).refused(), GgufError::Trailing { bytes: 1 });

    let two = |offset| one(&[16], F32, 0).tensor("u", &[4], F32, offset).data(160);
    refused!(
        two(32).refused(),
        GgufError::Overlap {
            offset: 32,
            end: 64,
            ..
        }
    );
    refused!(two(0).refused(), GgufError::Overlap { .. });
    refused!(
        two(96).refused(),
        GgufError::Hole {
            offset: 96,
            end: 64,
            ..
        }
    );
    let twice = one(&[8], F32, 0).tensor("t", &[8], F32, 32).data(64);
    refused!(twice.refused(), GgufError::DuplicateTensor { name } if name == "t");
    // Any order of the infos will do, and the zeros after the last tensor may be there or not.
    for bytes in [32 + 16, 64] {
        let swapped = one(&[4], F32, 32).tensor("u", &[8], F32, 0).data(bytes);
        assert_eq!(Gguf::from_bytes(swapped.bytes()).unwrap().tensors()[0].name, "u");
    }
}

impl Hand {
    /// The same file put together by hand, the tensor `other` of another type and all zeros.
    fn of(file: &Gguf, other: Option<(&str, TensorType)>) -> Self {
        use crate::files::gguf::Value;
        let mut hand = Self::default();
        for (key, value) in file.metadata() {
            hand = match value {
                Value::Unsigned(n) => hand.key(key, 4, &(*n as u32).to_le_bytes()),
                Value::F32(x) => hand.key(key, 6, &x.to_le_bytes()),
                Value::Bool(x) => hand.key(key, 7, &[u8::from(*x)]),
                Value::Text(x) => hand.key(key, 8, &text(x.as_bytes())),
                other => panic!("{other:?}"),
            };
        }
        for info in file.tensors() {
            let mut dims = vec![info.cols as u64];
            if info.dims > 1 {
                dims.push(info.rows as u64);
            }
            let other = other.filter(|(name, _)| *name == info.name).map(|(_, kind)| kind);
            let offset = hand.data.len();
            hand = hand.tensor(&info.name, &dims, other.unwrap_or(info.kind).id(), offset as u64);
            match other {
                None => hand.data.extend(file.data(info)),
                Some(kind) => hand.data.resize(offset + kind.bytes(info.len()).unwrap(), 0),
            }
            hand.data.resize(hand.data.len().next_multiple_of(32), 0);
        }
        hand
    }
}

fn good() -> GgufModel {
    read(&written(&made(bitnet()), &GgufOptions::default()).unwrap())
}

/// The file of a model after a change.
fn changed(change: impl Fn(&mut Hand)) -> Result<GgufModel, GgufError> {
    let mut hand = Hand::of(good().container(), None);
    change(&mut hand);
    GgufModel::from_bytes(hand.bytes(), "hand")
}

fn is_key(key: &[u8], name: &str) -> bool {
    key[8..].starts_with(name.as_bytes()) && key[..8] == (name.len() as u64).to_le_bytes()
}

#[test]
fn the_hand_made_file_is_the_model() {
    assert_eq!(changed(|_| {}).unwrap().config(), good().config());
}

#[test]
fn keys_of_the_model() {
    for key in [
        "general.architecture",
        "bitnet.context_length",
        "bitnet.embedding_length",
        "bitnet.block_count",
        "bitnet.feed_forward_length",
        "bitnet.attention.head_count",
        "bitnet.attention.head_count_kv",
        "bitnet.attention.layer_norm_rms_epsilon",
        "bitnet.rope.freq_base",
    ] {
        let error = changed(|hand| hand.keys.retain(|k| !is_key(k, key))).unwrap_err();
        refused!(error, GgufError::MissingKey { key: found } if found == key);
        // A text where a number is to be, or the other way round.
        let error = changed(|hand| {
            hand.keys.retain(|k| !is_key(k, key));
            *hand = match key {
                "general.architecture" => hand.clone().key(key, 4, &[0; 4]),
                _ => hand.clone().key(key, 8, &text(b"1")),
            };
        });
        refused!(error.unwrap_err(), GgufError::WrongType { key: found, .. } if found == key);
    }
    let with = |key: &str, kind: u32, value: &[u8]| {
        changed(|hand| {
            hand.keys.retain(|k| !is_key(k, key));
            *hand = hand.clone().key(key, kind, value);
        })
        .unwrap_err()
    };
    let number = |key: &str, n: u32| with(key, 4, &n.to_le_bytes());
    refused!(
        with("general.architecture", 8, &text(b"mamba")),
        GgufError::Architecture { found, supported } if found == "mamba" && supported.contains("bitnet-b1.58")
    );
    refused!(number("bitnet.sliding_window", 128), GgufError::UnknownKey { supported, .. } if supported.contains("bitnet.rope.freq_base"));
    refused!(number("llama.block_count", 2), GgufError::UnknownKey { .. });
    refused!(number("onebit.secret", 2), GgufError::UnknownKey { supported, .. } if supported.contains("onebit.linear_scales"));
    refused!(number("tokenizer.ggml.secret", 2), GgufError::UnknownKey { .. });
    refused!(number("split.count", 2), GgufError::Value { .. });
    refused!(number("bitnet.vocab_size", 41), GgufError::Value { key, .. } if key == "bitnet.vocab_size");
    refused!(number("bitnet.block_count", 0), GgufError::Value { .. });
    refused!(number("bitnet.block_count", u32::MAX), GgufError::Value { .. });
    refused!(number("bitnet.block_count", 3), GgufError::MissingTensor { name, .. } if name == "blk.2.attn_q.weight");
    refused!(
        number("bitnet.block_count", 1),
        GgufError::UnknownTensor { more: 17, .. }
    );
    refused!(number("bitnet.attention.head_count", 3), GgufError::Value { .. });
    refused!(number("bitnet.attention.head_count_kv", 3), GgufError::Config(_));
    // Heads would be twice as wide as what the rotary embedding is said to turn.
    refused!(number("bitnet.embedding_length", 512), GgufError::Value { key, .. } if key == "bitnet.rope.dimension_count");
    refused!(number("bitnet.feed_forward_length", 768), GgufError::Shape { name, .. } if name == "blk.0.ffn_gate.weight");
    refused!(number("bitnet.rope.dimension_count", 32), GgufError::Value { .. });
    refused!(
        number("bitnet.attention.key_length", 32),
        GgufError::Value { key, .. } if key == "bitnet.rope.dimension_count"
    );
    refused!(number("bitnet.attention.value_length", 32), GgufError::Value { .. });
    refused!(number("bitnet.expert_count", 8), GgufError::Value { .. });
    refused!(
        with("bitnet.rope.scaling.type", 8, &text(b"yarn")),
        GgufError::Value { .. }
    );
    refused!(
        with("bitnet.rope.scaling.factor", 6, &8f32.to_le_bytes()),
        GgufError::Value { .. }
    );
    refused!(
        with("bitnet.rope.freq_base", 6, &f32::NAN.to_le_bytes()),
        GgufError::Value { .. }
    );
    refused!(
        with(
            "bitnet.attention.layer_norm_rms_epsilon",
            6,
            &f32::INFINITY.to_le_bytes()
        ),
        GgufError::Value { .. }
    );
    refused!(
        with("onebit.generation_config", 8, &text(b"{")),
        GgufError::Generation(_)
    );
}

#[test]
fn tensors_of_the_model() {
    // The name of a tensor is changed in place, so the offsets stay.
    let renamed = |from: &str, to: &str| {
        changed(|hand| {
            assert_eq!(from.len(), to.len());
            for info in &mut hand.tensors {
                if info[8..].starts_with(from.as_bytes()) {
                    info[8..8 + to.len()].copy_from_slice(to.as_bytes());
                }
            }
        })
        .unwrap_err()
    };
    refused!(
        renamed("token_embd.weight", "token_embx.weight"),
        GgufError::MissingTensor { .. }
    );
    refused!(renamed("blk.1.ffn_sub_norm", "blk.1.ffn_sub_nork"), GgufError::MissingTensor { name, .. } if name == "blk.1.ffn_sub_norm.weight");
    // Scales that belong to nothing: blk.7 does not exist.
    refused!(renamed("blk.1.attn_q.scale", "blk.7.attn_q.scale"), GgufError::UnknownTensor { name, more: 0, .. } if name == "blk.7.attn_q.scale");
    let head = changed(|hand| {
        *hand = hand
            .clone()
            .tensor("output.weight", &[256, 40], F32, hand.data.len() as u64);
        hand.data.resize(hand.data.len() + 256 * 40 * 4, 0);
    });
    refused!(head.unwrap_err(), GgufError::UnknownTensor { name, .. } if name == "output.weight");
    // A ternary embedding, and a norm of blocks.
    let typed = |name: &str, kind: TensorType| {
        let hand = Hand::of(good().container(), Some((name, kind)));
        GgufModel::from_bytes(hand.bytes(), "hand").unwrap_err()
    };
    refused!(
        typed("token_embd.weight", TensorType::Tq2_0),
        GgufError::TensorUse { found: "TQ2_0", .. }
    );
    refused!(
        typed("output_norm.weight", TensorType::Q8_0),
        GgufError::TensorUse { found: "Q8_0", .. }
    );
    refused!(
        typed("blk.0.attn_q.scale", TensorType::F16),
        GgufError::TensorUse { found: "F16", .. }
    );
}

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
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
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
