//! Embedding and head in modes of their own, and maps with every mode.

use onebit_engine::ops::quantize::{EffectiveWeight, Precision};

use super::*;
use crate::config::LinearKind;

/// Modes of all tensors, drawn by `seed`; embedding and head are tied where they agree.
pub(super) fn random_modes(mut config: ModelConfig, seed: u64) -> ModelConfig {
    let key = Key::new(seed, 3, 0);
    let mode = |i: u64| LinearMode::ALL[key.below(i, 5) as usize];
    (config.embedding_mode, config.head_mode) = (mode(0), mode(1));
    config.tie_word_embeddings = config.embedding_mode == config.head_mode;
    for (layer, modes) in config.layer_modes.iter_mut().enumerate() {
        for (i, kind) in LinearKind::ALL.into_iter().enumerate() {
            modes.set(kind, mode(2 + (7 * layer + i) as u64));
        }
    }
    config
}

fn logits(network: &Network, anneal: f32) -> Vec<f32> {
    let tape = Tape::new();
    let leaves = network.leaves(&tape);
    let y = network
        .forward(&leaves, &batch().0, 8, ForwardMode::evaluation(anneal))
        .unwrap();
    y.tensor().f32().unwrap().to_vec()
}

/// A network of tables in a mode is one of tables in full precision that hold their values, where nothing is done to the head's input.
#[test]
fn tables_are_the_values_that_their_mode_leaves() {
    let precisions = [
        (LinearMode::Int8, Precision::Int8),
        (LinearMode::Int4, Precision::Int4),
        (LinearMode::Ternary, Precision::Ternary),
        (LinearMode::Binary, Precision::Binary),
    ];
    for (mode, precision) in precisions {
        for (tied, head) in [(false, LinearMode::F16), (false, LinearMode::Int8), (true, mode)] {
            if tied && mode != LinearMode::Int8 {
                continue;
            }
            let mut config = wide();
            config.tie_word_embeddings = tied;
            (config.embedding_mode, config.head_mode) = (mode, head);
            let found = network(config.clone());
            (config.embedding_mode, config.head_mode) = (LinearMode::F16, LinearMode::F16);
            for anneal in [0.5, 1.0] {
                let mut plain = network(config.clone());
                let replace = |table: &mut Tensor, precision| {
                    *table = EffectiveWeight::new(table, precision, anneal).unwrap().dense;
                };
                let (embedding, last) = (plain.embedding, plain.head);
                replace(&mut plain.parameters_mut()[embedding], precision);
                if head == LinearMode::Int8 && !tied {
                    replace(&mut plain.parameters_mut()[last], Precision::Int8);
                }
                assert_eq!(
                    logits(&found, anneal),
                    logits(&plain, anneal),
                    "{mode:?}, {head:?} at {anneal}"
                );
            }
        }
    }
}

/// The packed runtime gives the loss that training saw, whatever the map.
#[test]
fn hard_training_loss_of_any_map_equals_the_packed_runtime() {
    for seed in 10..26 {
        let base = if seed % 2 == 0 { config() } else { wide() };
        let config = random_modes(base, seed);
        let map = format!(
            "{:?}, {:?}, {:?}",
            config.embedding_mode, config.head_mode, config.layer_modes
        );
        let mut network = network(config);
        train(&mut network, 20, 2e-3, |_| 1.0);
        let (trained, run) = (gradients(&network, 1.0).0, packed_loss(&network));
        assert!((trained - run).abs() < 1e-4, "{map}: {trained} {run}");
    }
}

/// Each mode of the head makes other logits than the next, and so does each mode of the embedding; at annealing value 0 none does anything.
#[test]
fn no_mode_is_another() {
    let with = |embedding, head| {
        let mut config = wide();
        config.tie_word_embeddings = false;
        (config.embedding_mode, config.head_mode) = (embedding, head);
        network(config)
    };
    let networks = LinearMode::ALL
        .map(|mode| with(mode, LinearMode::F16))
        .into_iter()
        .chain(LinearMode::ALL[1..].iter().map(|&mode| with(LinearMode::F16, mode)));
    let networks: Vec<_> = networks.collect();
    let full = logits(&networks[0], 0.0);
    let hard: Vec<_> = networks.iter().map(|network| logits(network, 1.0)).collect();
    for (i, network) in networks.iter().enumerate() {
        assert_eq!(logits(network, 0.0), full);
        assert!(hard[..i].iter().all(|before| *before != hard[i]), "{i}");
    }
}
