use super::super::presets::{all, resolve};
use super::*;

#[test]
fn every_preset_is_valid_and_survives_its_file() {
    for preset in all() {
        preset
            .config
            .validate()
            .unwrap_or_else(|e| panic!("{}: {e}", preset.name));
        assert_eq!(
            ModelConfig::from_json(&preset.config.to_json()).unwrap(),
            preset.config,
            "{}",
            preset.name
        );
        let training = &preset.training;
        assert!(
            training.seq_len <= preset.config.max_position_embeddings,
            "{}",
            preset.name
        );
        assert!(
            training.quant_warmup_steps + training.quant_anneal_steps < training.max_steps,
            "{}",
            preset.name
        );
        assert!(
            training.lr_min < training.lr && training.eval_every > 0,
            "{}",
            preset.name
        );
    }
}

#[test]
fn names_say_the_size() {
    let millions = |name: &str| presets_config(name).parameter_count() / 1_000_000;
    assert!((20..32).contains(&millions("25m")), "{}", millions("25m"));
    assert!((100..150).contains(&millions("125m")), "{}", millions("125m"));
    assert!((300..400).contains(&millions("350m")), "{}", millions("350m"));
    assert!((600..800).contains(&millions("0.7b")), "{}", millions("0.7b"));
    assert!((1200..1450).contains(&millions("1b3")), "{}", millions("1b3"));
    assert!((7000..8500).contains(&millions("8b")), "{}", millions("8b"));
}

#[test]
fn a_name_a_file_a_directory_and_the_old_sample_resolve() {
    assert_eq!(resolve("quickstart").unwrap().preset, Some("quickstart"));
    for old in [
        "config_wikitext2_production.json",
        "configs/config_wikitext2_production.json",
    ] {
        assert_eq!(resolve(old).unwrap().preset, Some("wikitext2-production"), "{old}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config_wikitext2_production.json");
    std::fs::write(&file, small().to_json()).unwrap();
    let from_file = resolve(file.to_str().unwrap()).unwrap();
    assert_eq!((from_file.preset, from_file.config), (None, small()));
    std::fs::write(dir.path().join("config.json"), small().to_json()).unwrap();
    assert_eq!(resolve(dir.path().to_str().unwrap()).unwrap().config, small());
}

#[test]
fn the_samples_for_the_stack_resolve() {
    for (old, new, blocks, millions) in [
        ("config_0_3B_stack", "0.3b-stack", 16, 211),
        ("config_0_7B_stack.json", "0.7b-stack", 24, 606),
        ("configs/config_1_3B_stack.json", "1.3b-stack", 24, 1047),
        ("config_8B_gcp", "8b-gcp", 32, 6432),
    ] {
        let found = resolve(old).unwrap();
        assert_eq!(found.preset, Some(new), "{old}");
        let config = found.config;
        let full = LayerModes::uniform(LinearMode::F16);
        let ternary = LayerModes::uniform(LinearMode::Ternary);
        let expected: Vec<_> = (0..blocks)
            .map(|i| if i == 0 || i == blocks - 1 { full } else { ternary })
            .collect();
        assert_eq!(config.layer_modes, expected, "{old}");
        assert_eq!((config.parameter_count() + 500_000) / 1_000_000, millions, "{old}");
    }
    assert!(resolve("config_0_3B").unwrap_err().to_string().contains("`0.3b-stack`"));
}

#[test]
fn a_wrong_name_lists_the_presets_and_the_nearest() {
    let message = resolve("wikitext-cpu").unwrap_err().to_string();
    assert!(
        message.contains("did you mean `wikitext2-cpu`") && message.contains("quickstart, "),
        "{message}"
    );
    let message = resolve("/nowhere/at/all.json").unwrap_err().to_string();
    assert!(
        message.contains("neither a file nor a preset") && message.contains("2b4t"),
        "{message}"
    );
}

#[test]
fn a_file_that_is_no_text_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.json");
    std::fs::write(&file, [0xff, 0xfe, b'{']).unwrap();
    assert!(matches!(resolve(file.to_str().unwrap()), Err(ConfigError::Io { .. })));
}
