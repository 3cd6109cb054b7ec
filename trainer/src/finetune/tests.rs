use std::sync::atomic::Ordering;

use onebit_engine::rng::Key;
use onebit_engine::{Device, Isa};
use onebit_model::config::{LinearMode, ModelConfig, presets};
use onebit_model::evaluation::score;
use onebit_model::runtime::KvType;

use super::*;
use crate::TrainError;

const VOCAB: usize = 61;
const SEQ: usize = 16;

fn config(linears: LinearMode, [embedding, head]: [LinearMode; 2]) -> ModelConfig {
    let mut config = presets::by_name("quickstart").unwrap().config;
    (config.vocab_size, config.hidden_size, config.intermediate_size) = (VOCAB, 48, 96);
    (config.num_attention_heads, config.num_key_value_heads, config.head_dim) = (4, 2, 12);
    (config.num_hidden_layers, config.max_position_embeddings) = (2, 32);
    config.tie_word_embeddings = false;
    config.set_all_modes(linears);
    (config.embedding_mode, config.head_mode) = (embedding, head);
    config
}

/// Each token follows from the one before, mostly.
fn text(n: usize) -> Vec<u32> {
    let key = Key::new(n as u64, 0, 0);
    let mut ids = vec![1u32];
    for i in 1..n {
        let last = ids[i - 1];
        ids.push(if key.below(i as u64, 10) < 9 {
            (last * 5 + 3) % VOCAB as u32
        } else {
            key.below(i as u64 + (1 << 40), VOCAB as u32)
        });
    }
    ids
}

fn how(steps: u64, lr: f32) -> FineTune {
    FineTune {
        steps,
        lr,
        seed: 5,
        teacher: None,
        batch_size: 8,
        seq_len: SEQ,
        gpu: None,
        tokenizer: b"{}".to_vec(),
        generation: GenerationConfig::default(),
    }
}

/// Nats a token of a text that was not trained on, by the packed model.
fn loss(network: &Network) -> f64 {
    let packed = crate::packed(network).unwrap();
    let scored = score(&packed, Isa::best(), &text(600), (SEQ, SEQ), KvType::F32, &|_| ());
    scored.unwrap().loss()
}

fn tune(network: Network, how: &FineTune, directory: &Path) -> Network {
    let go = AtomicBool::new(false);
    let tuned = finetune(network, Text::Ids(&text(4000)), how, directory, &go, &mut |_| ());
    tuned.unwrap().unwrap()
}

/// A network in full precision that has learned the text.
fn learned(directory: &Path) -> Network {
    let full = config(LinearMode::F16, [LinearMode::F16; 2]);
    let network = Network::new(full, Device::cpu().unwrap(), 3).unwrap();
    let learned = tune(network, &how(150, 1e-2), &directory.join("full"));
    let uniform = (VOCAB as f64).ln();
    assert!(loss(&learned) < 0.6 * uniform, "{} of {uniform}", loss(&learned));
    learned
}

#[test]
fn a_harsh_map_is_made_up_for_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let full = learned(dir.path());
    for (name, linears, tables) in [
        ("ternary", LinearMode::Ternary, [LinearMode::Ternary; 2]),
        ("binary", LinearMode::Binary, [LinearMode::Binary, LinearMode::Ternary]),
    ] {
        let begun = full.with_map(config(linears, tables)).unwrap();
        let before = loss(&begun);
        let after = loss(&tune(begun, &how(30, 3e-3), &dir.path().join(name)));
        println!(
            "{name}: {:.4} in full, {before:.4} packed, {after:.4} after 30 steps",
            loss(&full)
        );
        assert!(after < before - 0.1, "{name}: {before} -> {after}");
        let uniform = (VOCAB as f64).ln();
        assert!(after < uniform, "{name}: {after} of {uniform}");
    }
}

#[test]
fn equal_seeds_give_equal_weights_and_an_interrupted_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let begun = || {
        let config = config(LinearMode::Ternary, [LinearMode::Int4; 2]);
        Network::new(config, Device::cpu().unwrap(), 4).unwrap()
    };
    let how = how(12, 3e-3);
    let at = |name: &str| dir.path().join(name);
    let values = |network: &Network| -> Vec<Vec<f32>> {
        let values = network.parameters().iter().map(|t| t.f32().unwrap().to_vec());
        values.collect()
    };
    let whole = values(&tune(begun(), &how, &at("a")));
    assert_eq!(whole, values(&tune(begun(), &how, &at("b"))));
    // One that is done stays as it is.
    assert_eq!(whole, values(&tune(begun(), &how, &at("a"))));
    let other = FineTune { seed: 6, ..how.clone() };
    assert_ne!(whole, values(&tune(begun(), &other, &at("c"))));
    let (stop, ids) = (AtomicBool::new(false), text(4000));
    let mut stop_at_5 = |event: Event<'_>| {
        if let Event::Step(metrics) = event
            && metrics.step == 5
        {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let stopped = finetune(begun(), Text::Ids(&ids), &how, &at("d"), &stop, &mut stop_at_5);
    assert!(stopped.unwrap().is_none());
    assert_eq!(whole, values(&tune(begun(), &how, &at("d"))));
    // From a token file the same ids are the same run.
    let path = at("text.tokens");
    let mut writer = crate::data::TokenWriter::create(&path, VOCAB, [7; 32], true).unwrap();
    writer.push(&ids).unwrap();
    writer.end_document();
    writer.finish(1, 1).unwrap();
    let go = AtomicBool::new(false);
    let tuned = finetune(begun(), Text::File(&path), &how, &at("e"), &go, &mut |_| ());
    assert_eq!(whole, values(&tuned.unwrap().unwrap()));
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(LinearMode::Ternary, [LinearMode::F16; 2]);
    let network = Network::new(config, Device::cpu().unwrap(), 4).unwrap();
    let go = AtomicBool::new(false);
    let refused = |ids: &[u32], how: &FineTune| {
        let to = dir.path().join("run");
        finetune(network.clone(), Text::Ids(ids), how, &to, &go, &mut |_| ()).unwrap_err()
    };
    let how = how(3, 1e-3);
    assert!(matches!(refused(&[1; SEQ], &how), TrainError::Data(_)));
    let outside = [vec![1; 100], vec![VOCAB as u32]].concat();
    assert!(matches!(refused(&outside, &how), TrainError::Data(_)));
    let none = FineTune { steps: 0, ..how };
    let error = refused(&[1; 100], &none).to_string();
    assert!(error.contains("max-steps"), "{error}");
}
