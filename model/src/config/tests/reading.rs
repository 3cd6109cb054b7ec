use super::*;

const BITNET: &str = r#"{ "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
  "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
  "vocab_size": 256, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2 EXTRA }"#;

const OLD: &str = r#"{ "vocab_size": 50257, "hidden_size": 512, "num_heads": 8, "num_layers": 6,
  "intermediate_size": 2048, "max_seq_len": 256, "layer_norm_eps": 1e-5, "use_ternary": true, "use_relu2": true,
  "use_swiglu": false, "use_subln": true, "use_rope": true, "use_qk_norm": true, "use_residual_scaling": true,
  "use_dynamic_threshold": true, "ste_scale_factor": 2.0, "latent_clamp_max": 1.5, "latent_clip_max_training": 1.2,
  "anneal_fraction": 0.3, "arenas_initial": null, "arenas_anneal_steps": 10000,
  "layer_bit_map": { "embedding": "f16", "lm_head": "f16",
    "layer_modes": ["ternary", "ternary", "ternary", "ternary", "ternary", "ternary"] } EXTRA }"#;

fn with(text: &str, extra: &str) -> String {
    text.replace("EXTRA", extra)
}

fn bitnet(extra: &str) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(&with(BITNET, extra))
}

fn message(extra: &str) -> String {
    let message = bitnet(extra).unwrap_err().to_string();
    assert!(
        !message.contains('\n') && message.starts_with("model config: "),
        "{message}"
    );
    message
}

#[test]
fn without_quantization_every_linear_is_float() {
    let config = bitnet("").unwrap();
    assert_eq!(config.layer_modes, vec![LayerModes::uniform(LinearMode::F16); 2]);
    assert_eq!((config.head_dim, config.sub_norms, config.qk_norm), (16, true, false));
    assert_eq!((config.rope_theta, config.storage), (500_000.0, WeightStorage::Master));
}

#[test]
fn the_two_scale_conventions_are_told_apart() {
    let of = |more: &str| {
        bitnet(&format!(
            ", \"quantization_config\": {{\"quant_method\": \"bitnet\"{more}}}"
        ))
    };
    let storage = |more: &str| of(more).unwrap().storage;
    assert_eq!(storage(""), WeightStorage::PackedDivide);
    assert_eq!(
        storage(", \"linear_class\": \"bitlinear\""),
        WeightStorage::PackedDivide
    );
    assert_eq!(
        storage(", \"linear_class\": \"autobitlinear\""),
        WeightStorage::PackedMultiply
    );
    let online = ", \"linear_class\": \"autobitlinear\", \"quantization_mode\": \"online\"";
    assert_eq!(storage(online), WeightStorage::Master);
    assert!(
        of(online)
            .unwrap()
            .layer_modes
            .iter()
            .all(|m| *m == LayerModes::uniform(LinearMode::Ternary))
    );
    for bad in [
        ", \"quantization_mode\": \"online\"",
        ", \"linear_class\": \"bitlinear2\"",
        ", \"quantization_mode\": \"later\"",
        ", \"use_rms_norm\": true",
        ", \"modules_to_not_convert\": \"lm_head\"",
        ", \"bits\": 2",
    ] {
        assert!(of(bad).is_err(), "{bad}");
    }
    assert!(bitnet(", \"quantization_config\": {\"quant_method\": \"gptq\"}").is_err());
    assert!(bitnet(", \"quantization_config\": {}").is_err());
}

#[test]
fn modules_to_not_convert_matches_whole_components() {
    let of = |list: &str| {
        let extra =
            format!(", \"quantization_config\": {{\"quant_method\": \"bitnet\", \"modules_to_not_convert\": {list}}}");
        bitnet(&extra).unwrap()
    };
    let all = LayerModes::uniform(LinearMode::Ternary);
    assert_eq!(of("[\"lm_head\"]").layer_modes, vec![all; 2]);
    assert_eq!(of("null").layer_modes, vec![all; 2]);
    assert_eq!(
        of("[\"model.layer\", \"proj\", \"layers.10\"]").layer_modes,
        vec![all; 2]
    );
    let first = of("[\"lm_head\", \"model.layers.0\"]").layer_modes;
    assert_eq!(first, vec![LayerModes::uniform(LinearMode::F16), all]);
    let down = of("[\"mlp.down_proj\"]").layer_modes;
    assert_eq!(
        down,
        vec![
            LayerModes {
                down: LinearMode::F16,
                ..all
            };
            2
        ]
    );
}

#[test]
fn a_key_given_twice_counts_the_last_time() {
    let twice = ", \"quantization_config\": {\"quant_method\": \"gptq\"}, \"quantization_config\": {\"quant_method\": \"bitnet\"}";
    assert_eq!(bitnet(twice).unwrap().storage, WeightStorage::PackedDivide);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    assert!(message(", \"num_hiden_layers\": 2").contains("did you mean `num_hidden_layers`"));
    assert!(message(", \"onebit\": {\"qknorm\": true}").contains("`onebit.qknorm`; did you mean `qk_norm`"));
    assert!(message(", \"zzz\": 2").contains("unknown key `zzz`; remove it"));
    let long = format!(", \"{}\": 2", "num_heads".repeat(100_000));
    assert!(message(&long).contains("remove it"));
}

#[test]
fn both_rope_spellings_are_read_and_scaling_is_refused() {
    let without = with(BITNET, "EXTRA").replace("\"rope_theta\": 500000.0,", "");
    let new = with(
        &without,
        ", \"rope_parameters\": {\"rope_theta\": 7e4, \"rope_type\": \"default\"}",
    );
    assert_eq!(ModelConfig::from_json(&new).unwrap().rope_theta, 7e4);
    assert_eq!(bitnet(", \"rope_scaling\": null").unwrap().rope_theta, 5e5);
    assert!(bitnet(", \"rope_scaling\": {\"type\": \"default\"}").is_ok());
    let yarn = message(", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}");
    assert!(
        yarn.contains("yarn") && yarn.contains("rope_scaling.rope_type"),
        "{yarn}"
    );
    assert!(message(", \"rope_parameters\": {\"rope_theta\": 1e4}").contains("contradicts"));
}

#[test]
fn options_that_change_the_network_are_refused() {
    for (extra, word) in [
        (", \"attention_dropout\": 0.1", "attention_dropout"),
        (", \"attention_bias\": true", "attention_bias"),
        (", \"sliding_window\": 4096", "sliding_window"),
        (", \"rope_interleaved\": true", "rope_interleaved"),
        (", \"hidden_act\": \"gelu\"", "gelu"),
        (", \"model_type\": \"qwen3\"", "qwen3"),
        (", \"onebit\": {\"feed_forward\": \"swiglu\"}", "contradicts"),
        (", \"onebit\": {\"feed_forward\": \"relu\"}", "relu2_gated"),
        (
            ", \"onebit\": {\"layer_bit_map\": {\"embedding\": \"int3\", \"layer_modes\": [\"f16\", \"f16\"]}}",
            "embedding",
        ),
        (
            ", \"tie_word_embeddings\": true, \"onebit\": {\"layer_bit_map\": {\"embedding\": \"int8\", \"lm_head\": \"f16\", \"layer_modes\": [\"f16\", \"f16\"]}}",
            "tied",
        ),
        (
            ", \"onebit\": {\"layer_bit_map\": {\"layer_modes\": [\"f16\"]}}",
            "2 layers",
        ),
        (
            ", \"onebit\": {\"layer_bit_map\": {\"layer_modes\": [\"f16\", \"int3\"]}}",
            "layer_modes[1]",
        ),
        (
            ", \"onebit\": {\"layer_bit_map\": {\"layer_modes\": [\"f16\", {\"q\": \"f16\"}]}}",
            "layer_modes[1].k",
        ),
        (", \"num_heads\": 8", "contradicts"),
        (", \"vocab_size\": \"256\"", "whole number"),
        (", \"vocab_size\": -1", "whole number"),
        (", \"vocab_size\": 1e3", "whole number"),
        (", \"num_hidden_layers\": 18446744073709551615", "num_hidden_layers"),
        (", \"num_hidden_layers\": 0", "num_hidden_layers"),
        (", \"hidden_size\": 65", "num_attention_heads"),
        (", \"num_key_value_heads\": 3", "num_key_value_heads"),
        (", \"head_dim\": 15", "even"),
        (", \"eos_token_id\": [1, 256]", "eos_token_id"),
        (", \"rms_norm_eps\": 0", "rms_norm_eps"),
    ] {
        let message = message(extra);
        assert!(message.contains(word), "{extra}: {message}");
    }
    let missing = ModelConfig::from_json("{\"hidden_size\": 64}").unwrap_err().to_string();
    assert!(missing.contains("num_attention_heads"), "{missing}");
    for text in ["", "[]", "{", "null", "{\"hidden_size\": 1e999}"] {
        assert!(
            matches!(ModelConfig::from_json(text), Err(ConfigError::Syntax { .. })),
            "{text}"
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(ModelConfig::from_json(&deep), Err(ConfigError::Syntax { .. })));
}

#[test]
fn a_soft_cap_of_the_logits_is_read_written_and_checked() {
    let cap = |value: &str| bitnet(&format!(", \"final_logit_softcapping\": {value}"));
    assert_eq!(bitnet("").unwrap().final_logit_softcapping, None);
    assert_eq!(cap("null").unwrap().final_logit_softcapping, None);
    let config = cap("30.0").unwrap();
    assert_eq!(config.final_logit_softcapping, Some(30.0));
    assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
    assert!(config.to_json().contains("\"final_logit_softcapping\": 30.0"));
    assert!(!bitnet("").unwrap().to_json().contains("final_logit_softcapping"));
    assert_eq!(config.beyond_transformers(), ["final_logit_softcapping"]);
    for bad in ["0", "-30.0", "1e-4", "1e7", "1e39"] {
        let message = message(&format!(", \"final_logit_softcapping\": {bad}"));
        assert!(
            message.contains("`final_logit_softcapping`: expected a positive number"),
            "{message}"
        );
    }
    assert!(message(", \"final_logit_softcapping\": \"30\"").contains("expected a number"));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let config = ModelConfig {
            final_logit_softcapping: Some(bad),
            ..config.clone()
        };
        assert!(config.validate().is_err(), "{bad}");
    }
}

#[test]
fn the_layer_bit_map_must_agree_with_the_packing() {
    let packed = ", \"quantization_config\": {\"quant_method\": \"bitnet\"}";
    let map = ", \"onebit\": {\"layer_bit_map\": {\"layer_modes\": [\"int8\", \"ternary\"]}}";
    assert!(message(&format!("{packed}{map}")).contains("contradicts"));
    let config = bitnet(map).unwrap();
    assert_eq!(config.layer_modes[0], LayerModes::uniform(LinearMode::Int8));
}

#[test]
fn a_layer_bit_map_names_embedding_and_head() {
    let map = |words: &str| {
        let map = format!(
            ", \"tie_word_embeddings\": false, \"onebit\": {{\"layer_bit_map\": {{{words} \"layer_modes\": [\"int8\", \"ternary\"]}}}}"
        );
        let config = bitnet(&map).unwrap();
        (config.embedding_mode, config.head_mode)
    };
    assert_eq!(map(""), (LinearMode::F16, LinearMode::F16));
    assert_eq!(map("\"embedding\": \"int4\","), (LinearMode::Int4, LinearMode::F16));
    assert_eq!(
        map("\"embedding\": \"binary\", \"lm_head\": \"ternary\","),
        (LinearMode::Binary, LinearMode::Ternary)
    );
    let tied = ", \"tie_word_embeddings\": true, \"onebit\": {\"layer_bit_map\": {\"embedding\": \"int8\", \"layer_modes\": [\"f16\", \"f16\"]}}";
    assert_eq!(bitnet(tied).unwrap().head_mode, LinearMode::Int8);
}

#[test]
fn the_replaced_systems_production_file_is_the_preset() {
    let parsed = json::parse(&with(OLD, "")).unwrap();
    assert_eq!(parsed.config, presets_config("wikitext2-production"));
    // use_dynamic_threshold, ste_scale_factor, latent_clamp_max, latent_clip_max_training, anneal_fraction,
    // arenas_anneal_steps; arenas_initial is null.
    assert_eq!(parsed.notes.len(), 6, "{:?}", parsed.notes);
}

#[test]
fn the_replaced_systems_other_settings_mean_what_they_meant() {
    let minimal = r#"{ "vocab_size": 100, "hidden_size": 64, "num_heads": 4, "num_layers": 2, "intermediate_size": 128,
        "max_seq_len": 32, "use_swiglu": true EXTRA }"#;
    let parsed = json::parse(&with(minimal, "")).unwrap();
    let config = &parsed.config;
    assert_eq!(config.layer_modes, vec![LayerModes::uniform(LinearMode::Binary); 2]);
    assert_eq!((config.feed_forward, config.sub_norms), (FeedForward::SwiGlu, false));
    assert!(config.qk_norm && config.residual_scaling && config.tie_word_embeddings);
    assert_eq!((config.rope_theta, config.rms_norm_eps), (1e4, 1e-5));
    assert!(
        parsed.notes.iter().any(|note| note.contains("binary")),
        "{:?}",
        parsed.notes
    );

    let refused = |extra: &str| json::parse(&with(minimal, extra)).unwrap_err().to_string();
    assert!(refused(", \"use_rope\": false").contains("use_rope"));
    assert!(refused(", \"use_swiglu\": false").contains("plain SiLU"));
    let eight = ", \"layer_bit_map\": {\"embedding\": \"ternary\", \"layer_modes\": [\"eightbit\", \"ternary\"]}";
    let parsed = json::parse(&with(minimal, eight)).unwrap();
    assert_eq!(parsed.config.layer_modes[0], LayerModes::uniform(LinearMode::Int8));
    assert!(
        parsed.notes.iter().any(|note| note.contains("embedding")),
        "{:?}",
        parsed.notes
    );
    // The sample with 17 modes for 16 layers.
    assert!(refused(", \"layer_bit_map\": {\"layer_modes\": [\"f16\", \"ternary\", \"f16\"]}").contains("2 layers"));
}

#[test]
fn published_configs_are_read() {
    let falcon = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 4096, "hidden_act": "silu", "rms_norm_eps": 1e-06,
        "rope_theta": 1000042, "vocab_size": 131072, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "bitnet"}}"#;
    let config = ModelConfig::from_json(falcon).unwrap();
    assert_eq!((config.sub_norms, config.storage), (false, WeightStorage::PackedDivide));
    assert_eq!(
        (config.rope_theta, config.feed_forward),
        (1_000_042.0, FeedForward::SwiGlu)
    );

    let llama3 = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": 128009, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "is_bitnet_config": true,
        "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "pretraining_tp": 1, "quantization_config": {"quant_method": "bitnet"},
        "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 500000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.44.0", "use_cache": false,
        "quantization_config": {"modules_to_not_convert": null, "quant_method": "bitnet"}, "vocab_size": 128256}"#;
    assert_eq!(ModelConfig::from_json(llama3).unwrap().eos_token_ids, [128_009]);

    let one_bit_llm = r#"{"architectures": ["BitnetForCausalLM"], "model_type": "llama", "weight_bits": 1,
        "input_bits": 8, "hidden_act": "silu", "hidden_size": 3200, "intermediate_size": 8640,
        "num_hidden_layers": 26, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32002,
        "pad_token_id": 32000, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "max_position_embeddings": 2048,
        "tie_word_embeddings": true, "torch_dtype": "float16"}"#;
    let config = ModelConfig::from_json(one_bit_llm).unwrap();
    assert_eq!((config.sub_norms, config.storage), (true, WeightStorage::Master));
    assert_eq!(config.layer_modes[25], LayerModes::uniform(LinearMode::Ternary));
}
