//! What a sound container says and no model is: keys and tensors.

use super::*;

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
    refused!(number("tokenizer.chat_template", 1), GgufError::WrongType { .. });
    let tokens = [&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &text(b"a")].concat();
    refused!(
        with("tokenizer.ggml.tokens", ARRAY, &tokens),
        GgufError::Value { expected, .. } if expected.contains("40 tokens")
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
