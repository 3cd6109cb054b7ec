use super::*;

#[test]
fn the_2b4t_shape_has_its_published_tensors() {
    let config = presets_config("2b4t");
    let sizes: Vec<_> = config.linears(29).map(|l| (l.kind.key(), l.rows, l.cols)).collect();
    let expected = [
        ("q", 2560, 2560),
        ("k", 640, 2560),
        ("v", 640, 2560),
        ("o", 2560, 2560),
        ("gate", 6912, 2560),
        ("up", 6912, 2560),
        ("down", 2560, 6912),
    ];
    assert_eq!(sizes, expected);
    assert_eq!(config.parameter_count(), 2_412_820_480);
    // Per block: 7 linears, 2 norms, 2 sub-norms; embedding and final norm; no head.
    assert_eq!(config.tensors().len(), 30 * 11 + 2);
}

#[test]
fn presets_have_no_more_parameters_than_they_say() {
    for (name, most) in [
        ("wikitext2-25m", 25_000_000),
        ("wikitext2-35m", 35_000_000),
        ("stories-3m", 3_100_000),
        ("stories-mcu", 500_000),
    ] {
        let count = presets_config(name).parameter_count();
        assert!((most * 9 / 10..=most).contains(&count), "{name}: {count}");
    }
}

#[test]
fn optional_tensors_follow_their_options() {
    let mut config = presets_config("wikitext2-production");
    config.tie_word_embeddings = false;
    let names: Vec<_> = config
        .tensors()
        .into_iter()
        .map(|spec| (spec.name, spec.shape))
        .collect();
    let has = |name: &str, shape: &[usize]| names.contains(&(name.into(), shape.into()));
    assert!(has("model.layers.0.self_attn.q_norm.weight", &[64]));
    assert!(has("model.layers.5.self_attn.k_norm.weight", &[64]));
    assert!(has("model.layers.0.self_attn.attn_sub_norm.weight", &[512]));
    assert!(has("model.layers.0.mlp.ffn_sub_norm.weight", &[2048]));
    assert!(has("lm_head.weight", &[50257, 512]));
    assert!(!names.iter().any(|(name, _)| name.contains("gate_proj")));
}

#[test]
fn impossible_shapes_are_refused_by_field() {
    type Change = fn(&mut ModelConfig);
    let cases: &[(&str, Change)] = &[
        ("vocab_size", |c| c.vocab_size = 0),
        ("vocab_size", |c| c.vocab_size = usize::MAX),
        ("hidden_size", |c| c.hidden_size = 0),
        ("hidden_size", |c| c.hidden_size = 1 << 40),
        ("intermediate_size", |c| c.intermediate_size = 0),
        ("num_hidden_layers", |c| c.num_hidden_layers = 0),
        ("num_hidden_layers", |c| c.num_hidden_layers = usize::MAX),
        ("num_attention_heads", |c| c.num_attention_heads = 0),
        ("num_attention_heads", |c| c.num_attention_heads = 1 << 16),
        ("num_key_value_heads", |c| c.num_key_value_heads = 0),
        ("num_key_value_heads", |c| c.num_key_value_heads = 3),
        ("num_key_value_heads", |c| c.num_key_value_heads = 8),
        ("head_dim", |c| c.head_dim = 0),
        ("head_dim", |c| c.head_dim = 33),
        ("max_position_embeddings", |c| c.max_position_embeddings = 0),
        ("rms_norm_eps", |c| c.rms_norm_eps = 0.0),
        ("rms_norm_eps", |c| c.rms_norm_eps = f32::NAN),
        ("rope_theta", |c| c.rope_theta = f64::INFINITY),
        ("rope_theta", |c| c.rope_theta = -1.0),
        ("initializer_range", |c| c.initializer_range = f32::INFINITY),
        ("bos_token_id", |c| c.bos_token_id = Some(512)),
        ("eos_token_id", |c| c.eos_token_ids = vec![0, 512]),
        ("eos_token_id", |c| c.eos_token_ids = vec![0; 65]),
        ("layer_bit_map.layer_modes", |c| {
            c.layer_modes.push(LayerModes::default())
        }),
        ("storage", |c| {
            c.set_all_modes(LinearMode::Int8);
            c.storage = WeightStorage::PackedDivide;
        }),
        ("parameter count", |c| {
            c.hidden_size = limits::HIDDEN_SIZE;
            c.intermediate_size = limits::INTERMEDIATE_SIZE;
            c.num_hidden_layers = limits::LAYERS;
            c.set_all_modes(LinearMode::Ternary);
        }),
    ];
    for (field, change) in cases {
        let mut config = small();
        change(&mut config);
        match config.validate() {
            Err(ConfigError::Invalid { field: found, .. }) => assert_eq!(&found, field),
            other => panic!("{field}: {other:?}"),
        }
        let message = config.validate().unwrap_err().to_string();
        assert!(
            message.contains("expected") && message.contains("found") && !message.contains('\n'),
            "{message}"
        );
    }
    small().validate().unwrap();
}
