//! The directories of others: their configurations as they publish them, cut down to a small model, with their names, types and conventions.

use std::fs;

use half::{bf16, f16};
use serde_json::{Value, json};

use super::whole::LoadedModel;
use super::*;
use crate::config::{FeedForward, LinearMode, TensorKind, WeightStorage};
use crate::runtime::{FloatStorage, PackedModel};

/// γ of every packed linear: exact, as is its reciprocal, in every float type.
const GAMMA: f32 = 0.0625;

fn encoded(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let each = values.iter();
    match dtype {
        Dtype::F16 => each.flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => each.flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => each.flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// How the weights lie.
struct Layout {
    /// Of everything that is not packed.
    floats: Dtype,
    /// The type, the shape and the value of `weight_scale`; `None`: float weights.
    scale: Option<(Dtype, &'static [usize], f32)>,
    /// What the file calls a tensor.
    name: fn(&str) -> String,
}

const AS_IS: fn(&str) -> String = str::to_string;

/// Writes a directory with this configuration and such weights, and reads it.
fn read(config: &Value, layout: &Layout) -> LoadedModel {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &config.to_string(), layout)
}

fn write(dir: &Path, config: &str, layout: &Layout) -> LoadedModel {
    fs::write(dir.join(CONFIG_FILE), config).unwrap();
    let parsed = read_config(dir).unwrap().config;
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, tensor) in weights_of(&parsed) {
        let spec = { parsed.tensors().into_iter() }.find(|spec| spec.name == name).unwrap();
        match (spec.kind, layout.scale) {
            (TensorKind::Linear(LinearMode::Ternary), Some((dtype, shape, value))) => {
                let trits = trits(&tensor.data);
                let (rows, cols) = (spec.shape[0], spec.shape[1]);
                tensors.push((format!("{name}_scale"), dtype, shape.to_vec(), encoded(dtype, &[value])));
                let packed = pack_rows(&trits, rows, cols).unwrap();
                tensors.push((name, Dtype::U8, vec![rows / 4, cols], packed));
            }
            _ => {
                let bytes = encoded(layout.floats, &tensor.data);
                tensors.push(((layout.name)(&name), layout.floats, spec.shape, bytes));
            }
        }
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, &dir.join(WEIGHTS_FILE)).unwrap();
    let model = load_model(dir).unwrap();
    for (name, linear) in &model.linears {
        match linear {
            LoadedLinear::Ternary(packed) => {
                assert_eq!(packed.trits, trits(&weights_of(&parsed)[name].data), "{name}");
                assert_eq!(packed.scale, GAMMA, "{name}");
            }
            LoadedLinear::Master(tensor) => assert_eq!(tensor.stored, layout.floats, "{name}"),
        }
    }
    // It is a model that runs.
    PackedModel::open(dir, FloatStorage::Stored).unwrap();
    model
}

fn trits(values: &[f32]) -> Vec<i8> {
    values
        .iter()
        .map(|v| (v * 30.0).round().clamp(-1.0, 1.0) as i8)
        .collect()
}

fn llama(more: Value) -> Value {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": false,
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2, "transformers_version": "4.44.0"
    });
    let Value::Object(more) = more else { panic!("an object") };
    config.as_object_mut().unwrap().extend(more);
    config
}

const DIVIDES: Option<(Dtype, &[usize], f32)> = Some((Dtype::BF16, &[1], 1.0 / GAMMA));

#[test]
fn llama3_8b_1_58_names_its_quantisation_twice() {
    let layout = Layout {
        floats: Dtype::BF16,
        scale: DIVIDES,
        name: AS_IS,
    };
    let config = llama(json!({
        "is_bitnet_config": true, "rope_interleaved": false, "pretraining_tp": 1, "rope_scaling": null,
    }));
    let quantised = r#""quantization_config": {"modules_to_not_convert": null, "quant_method": "bitnet"}"#;
    let text = config.to_string();
    let text = format!("{},{quantised},{quantised}}}", text.strip_suffix('}').unwrap());
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), &text, &layout);
    assert_eq!(model.config.storage, WeightStorage::PackedDivide);
    assert_eq!(model.config.feed_forward, FeedForward::SwiGlu);
    assert!(!model.config.sub_norms && model.tensors.contains_key("lm_head.weight"));
    assert_eq!(model.linears.len(), 14);
}

#[test]
fn falcon3_has_a_head_dim_of_its_own_and_excludes_its_head() {
    for scale in [
        DIVIDES,
        Some((Dtype::F16, &[1], 1.0 / GAMMA)),
        Some((Dtype::F32, &[], 1.0 / GAMMA)),
    ] {
        let layout = Layout {
            floats: Dtype::BF16,
            scale,
            name: AS_IS,
        };
        let model = read(
            &llama(json!({
                "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 1_000_042,
                "quantization_config": {
                    "modules_to_not_convert": ["lm_head"], "quant_method": "bitnet", "linear_class": "bitlinear"
                },
            })),
            &layout,
        );
        assert_eq!((model.config.head_dim, model.config.query_size()), (16, 64));
        assert_eq!(
            (model.config.rope_theta, model.config.rms_norm_eps),
            (1_000_042.0, 1e-6)
        );
        assert!(model.config.uses_mode(LinearMode::Ternary) && !model.config.uses_mode(LinearMode::F16));
    }
}

#[test]
fn falcon_e_ties_its_head() {
    let layout = Layout {
        floats: Dtype::BF16,
        scale: DIVIDES,
        name: AS_IS,
    };
    let model = read(
        &llama(json!({
            "tie_word_embeddings": true, "head_dim": 8,
            "quantization_config": { "modules_to_not_convert": ["lm_head"], "quant_method": "bitnet" },
        })),
        &layout,
    );
    assert!(model.config.tie_word_embeddings && !model.tensors.contains_key("lm_head.weight"));
    assert_eq!(model.config.storage, WeightStorage::PackedDivide);
}

#[test]
fn the_bitnet_reproduction_has_float_weights_and_its_own_names_of_the_sub_norms() {
    let layout = Layout {
        floats: Dtype::F16,
        scale: None,
        name: |name| {
            let name = name.replace("attn_sub_norm", "inner_attn_ln");
            name.replace("ffn_sub_norm", "ffn_layernorm")
        },
    };
    let model = read(
        &llama(json!({
            "architectures": ["BitnetForCausalLM"], "weight_bits": 1, "input_bits": 8, "tie_word_embeddings": true,
            "torch_dtype": "float16", "rope_theta": 10_000.0, "pad_token_id": 32,
        })),
        &layout,
    );
    assert_eq!(model.config.storage, WeightStorage::Master);
    assert!(model.config.sub_norms && model.config.uses_mode(LinearMode::Ternary));
    assert!(model.tensors.contains_key("model.layers.1.mlp.ffn_sub_norm.weight"));
}

#[test]
fn bitnet_2b4t_multiplies_by_a_scale_of_any_float_type() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
        let layout = Layout {
            floats: Dtype::BF16,
            scale: Some((dtype, &[1], GAMMA)),
            name: AS_IS,
        };
        let model = read(
            &llama(json!({
                "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
                "tie_word_embeddings": true, "mlp_bias": null,
                "auto_map": { "AutoConfig": "configuration_bitnet.BitNetConfig" },
                "quantization_config": {
                    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"
                },
            })),
            &layout,
        );
        assert_eq!(model.config.storage, WeightStorage::PackedMultiply);
        assert!(model.config.sub_norms && model.config.feed_forward == FeedForward::Relu2Gated);
        assert!(model.tensors.values().all(|tensor| tensor.stored == Dtype::BF16));
    }
}

#[test]
fn the_spellings_of_two_generations_of_transformers_are_one() {
    let layout = Layout {
        floats: Dtype::F32,
        scale: None,
        name: AS_IS,
    };
    let spelt = |more: Value| {
        let mut config = llama(more);
        let map = config.as_object_mut().unwrap();
        map.retain(|_, value| *value != "absent");
        read(&config, &layout).config
    };
    let old = spelt(json!({}));
    assert_eq!(old.rope_theta, 500_000.0);
    for rope in [
        json!({ "rope_theta": "absent", "rope_parameters": { "rope_theta": 500_000.0, "rope_type": "default" } }),
        json!({ "rope_scaling": null }),
        json!({ "rope_scaling": { "type": "default" } }),
        json!({ "torch_dtype": "absent", "dtype": "float32" }),
        json!({ "torch_dtype": "float32", "dtype": "float32" }),
        json!({ "num_key_value_heads": 2, "head_dim": null }),
    ] {
        assert_eq!(spelt(rope.clone()), old, "{rope}");
    }
}
