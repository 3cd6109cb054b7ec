//! From a file's keys to a configuration.

use super::GENERAL_ARCHITECTURE;
use super::container::Gguf;
use super::error::GgufError;
use super::graph::Graph;
use super::keys::{self, Keys};
use super::vocabulary;
use crate::config::{LinearMode, ModelConfig, WeightStorage};

/// The graph and the configuration that the keys tell. Every linear is ternary in it, and the head is tied where there is no tensor for
/// it; which linears are not ternary the tensors tell.
pub(super) fn read(gguf: &Gguf) -> Result<(Graph, ModelConfig), GgufError> {
    let keys = Keys { gguf };
    let Some(name) = keys.text(GENERAL_ARCHITECTURE)? else {
        return Err(GgufError::MissingKey {
            key: GENERAL_ARCHITECTURE.to_string(),
        });
    };
    let graph = Graph::by_name(name)?;
    keys.refuse_unknown(graph.name())?;
    let key = |suffix: &str| format!("{}.{suffix}", graph.name());
    let size = |suffix: &str| keys.size(&key(suffix));

    let Some(embedding) = gguf.tensor("token_embd.weight") else {
        return Err(GgufError::MissingTensor {
            name: "token_embd.weight".to_string(),
            graph: graph.name(),
        });
    };
    let vocab_size = embedding.rows;
    if let Some(found) = keys.unsigned(&key(keys::VOCAB_SIZE))?
        && found != vocab_size as u64
    {
        return Err(GgufError::Value {
            key: key(keys::VOCAB_SIZE),
            expected: format!("{vocab_size}, the rows of token_embd.weight"),
            found: found.to_string(),
        });
    }
    let num_hidden_layers = size(keys::BLOCK_COUNT)?;
    // Each block has tensors, so what is made for each of them is bounded by the file.
    if num_hidden_layers > gguf.tensors().len() {
        return Err(GgufError::Value {
            key: key(keys::BLOCK_COUNT),
            expected: format!("no more than the file's {} tensors", gguf.tensors().len()),
            found: num_hidden_layers.to_string(),
        });
    }
    let hidden_size = size(keys::EMBEDDING_LENGTH)?;
    let num_attention_heads = size(keys::HEAD_COUNT)?;
    let head_dim = head_dim(keys, &key, hidden_size, num_attention_heads)?;
    check_neutral(keys, &key, head_dim)?;
    let tokens = vocabulary::special_ids(keys)?;
    let mut config = ModelConfig {
        vocab_size,
        hidden_size,
        intermediate_size: size(keys::FEED_FORWARD_LENGTH)?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: size(keys::HEAD_COUNT_KV)?,
        head_dim,
        max_position_embeddings: size(keys::CONTEXT_LENGTH)?,
        rms_norm_eps: keys.required_f32(&key(keys::EPSILON))?,
        rope_theta: keys.required_f32(&key(keys::ROPE_BASE))?.into(),
        feed_forward: graph.feed_forward(),
        tie_word_embeddings: !(graph.allows_head() && gguf.tensor("output.weight").is_some()),
        sub_norms: graph.sub_norms(),
        qk_norm: false,
        residual_scaling: false,
        final_logit_softcapping: None,
        layer_modes: Vec::new(),
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
        bos_token_id: tokens.bos,
        eos_token_ids: tokens.eos,
        // Of use to nobody but who begins a training.
        initializer_range: 0.02,
        storage: WeightStorage::Master,
    };
    config.set_all_modes(LinearMode::Ternary);
    config.validate().map_err(GgufError::Config)?;
    graph.check(&config)?;
    Ok((graph, config))
}

/// Values of a head: as the keys say, otherwise the model's width shared among the heads.
fn head_dim(
    keys: Keys<'_>,
    key: &dyn Fn(&str) -> String,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, GgufError> {
    let refuse = |suffix: &str, expected: String, found: String| GgufError::Value {
        key: key(suffix),
        expected,
        found,
    };
    let length = match keys.unsigned(&key(keys::KEY_LENGTH))? {
        Some(_) => keys.size(&key(keys::KEY_LENGTH))?,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let expected = format!("a divisor of {hidden_size}, or {}", key(keys::KEY_LENGTH));
            return Err(refuse(keys::HEAD_COUNT, expected, heads.to_string()));
        }
    };
    let values = keys.unsigned(&key(keys::VALUE_LENGTH))?;
    if let Some(values) = values.filter(|&values| values != length as u64) {
        let expected = format!("{length}, as long as the keys");
        return Err(refuse(keys::VALUE_LENGTH, expected, values.to_string()));
    }
    Ok(length)
}

/// Keys that would change the network, at the value that does not.
fn check_neutral(keys: Keys<'_>, key: &dyn Fn(&str) -> String, head_dim: usize) -> Result<(), GgufError> {
    let refuse = |suffix: &str, expected: String, found: String| {
        Err(GgufError::Value {
            key: key(suffix),
            expected,
            found,
        })
    };
    if let Some(found) = keys.unsigned(&key(keys::ROPE_DIMENSION))?
        && found != head_dim as u64
    {
        return refuse(
            keys::ROPE_DIMENSION,
            format!("{head_dim}, all of a head"),
            found.to_string(),
        );
    }
    if let Some(found) = keys.text(&key(keys::ROPE_SCALING))?
        && !matches!(found, "none" | "linear")
    {
        return refuse(
            keys::ROPE_SCALING,
            "none, or linear with factor 1".to_string(),
            found.to_string(),
        );
    }
    if let Some(found) = keys.f32(&key(keys::ROPE_FACTOR))?
        && found != 1.0
    {
        return refuse(keys::ROPE_FACTOR, "1".to_string(), found.to_string());
    }
    if keys.bool(&key(keys::CAUSAL))? == Some(false) {
        return refuse(keys::CAUSAL, "true".to_string(), "false".to_string());
    }
    for experts in [keys::EXPERTS, keys::EXPERTS_USED] {
        if let Some(found) = keys.unsigned(&key(experts))?
            && found != 0
        {
            return refuse(
                experts,
                "0: mixtures of experts are not run".to_string(),
                found.to_string(),
            );
        }
    }
    Ok(())
}
