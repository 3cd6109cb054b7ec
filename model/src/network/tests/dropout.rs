//! What is dropped, and where.

use super::*;
use crate::network::dropout::{PROBABILITIES, attention_site};

/// The values of the residual stream behind each part, with dropout of `rates`, of two sequences of eight tokens: `[part][token][value]`.
fn streams(network: &Network, rates: DropoutRates, step: u64) -> Vec<Vec<Vec<f32>>> {
    // The first two words come again in both sequences.
    let text = [3, 4, 5, 3, 6, 7, 8, 4, 9, 3, 10, 4, 11, 12, 13, 14];
    streams_of(network, (text, 8), rates, step)
}

/// The same of sequences of `seq` tokens.
fn streams_of(
    network: &Network,
    (text, seq): ([u32; 16], usize),
    rates: DropoutRates,
    step: u64,
) -> Vec<Vec<Vec<f32>>> {
    let mode = ForwardMode {
        dropout: Some(Dropout { rates, seed: 9, step }),
        ..ForwardMode::evaluation(0.0)
    };
    let tape = Tape::new();
    let (leaves, mut parts) = (network.leaves(&tape), Vec::new());
    let text = ids(text);
    let mut observe = |_: &str, x: &Tensor| {
        let width = x.shape().last();
        parts.push(x.f32().unwrap().chunks(width).map(<[f32]>::to_vec).collect());
    };
    network
        .forward_observed(&leaves, &text, seq, mode, &mut observe)
        .unwrap();
    parts
}

#[test]
fn a_word_is_dropped_wherever_it_stands() {
    let network = network(config());
    let plain = streams(&network, DropoutRates::default(), 0);
    let rates = DropoutRates {
        word: 0.5,
        ..DropoutRates::default()
    };
    let mut fates = [0, 0];
    for step in 0..20 {
        let embedded = &streams(&network, rates, step)[0];
        let gone: Vec<bool> = embedded.iter().map(|x| x.iter().all(|v| *v == 0.0)).collect();
        for (token, x) in embedded.iter().enumerate() {
            let twice: Vec<f32> = plain[0][token].iter().map(|v| 2.0 * v).collect();
            assert!(gone[token] || *x == twice, "step {step}, token {token}");
        }
        assert_eq!([gone[0]; 2], [gone[3], gone[9]], "step {step}");
        assert_eq!([gone[1]; 2], [gone[7], gone[11]], "step {step}");
        fates[usize::from(gone[0])] += 1;
    }
    assert!(fates.iter().all(|n| *n > 3), "{fates:?}");
}

#[test]
fn depth_is_dropped_by_whole_sequences() {
    let network = network(config());
    let rates = DropoutRates {
        depth: 0.6,
        ..DropoutRates::default()
    };
    // Branches that were passed by: of the first block, of the second.
    let mut passed = [0, 0];
    for step in 0..40 {
        let parts = streams(&network, rates, step);
        for (branch, pair) in parts[..5].windows(2).enumerate() {
            let same: Vec<bool> = pair[0].iter().zip(&pair[1]).map(|(a, b)| a == b).collect();
            for sequence in same.chunks(8) {
                assert!(
                    sequence.iter().all(|s| *s == sequence[0]),
                    "step {step}, branch {branch}"
                );
                passed[branch / 2] += usize::from(sequence[0]);
            }
        }
    }
    // Of 160 each 0.3 and 0.6.
    assert!(
        (30..66).contains(&passed[0]) && (77..115).contains(&passed[1]),
        "{passed:?}"
    );
}

#[test]
fn attention_dropout_is_in_attention_and_differs_by_sequence_layer_and_micro_batch() {
    let network = network(config());
    let rates = DropoutRates {
        attention: 0.5,
        ..DropoutRates::default()
    };
    // The same text twice.
    let text = [3, 4, 5, 3, 6, 7, 8, 4, 3, 4, 5, 3, 6, 7, 8, 4];
    let run = |rates, step| streams_of(&network, (text, 8), rates, step);
    let (plain, dropped) = (run(DropoutRates::default(), 1), run(rates, 1));
    assert_eq!(plain[0], dropped[0], "the embedding has none");
    assert_ne!(plain[1], dropped[1]);
    assert_eq!(dropped, run(rates, 1));
    assert_ne!(dropped[1], run(rates, 2)[1]);
    let (first, second) = dropped[1].split_at(8);
    assert_ne!(first, second);
    assert_eq!(plain[1][..8], plain[1][8..]);
    // A token that is a sequence has one probability a head, and no attention if all are dropped.
    let rates = DropoutRates {
        attention: 0.85,
        ..rates
    };
    let (parts, heads) = (streams_of(&network, (text, 1), rates, 3), 4);
    let run = Dropout {
        rates,
        seed: 9,
        step: 3,
    };
    let passed = [0, 1].map(|block| {
        let (before, behind) = (&parts[2 * block], &parts[2 * block + 1]);
        let passed: Vec<bool> = before.iter().zip(behind).map(|(a, b)| a == b).collect();
        let key = run.key(PROBABILITIES + attention_site(block));
        let gone = |sequence: u64| (0..heads).all(|h| key.uniform((sequence * heads + h) * 4) < 0.85);
        assert_eq!(passed, (0..16).map(gone).collect::<Vec<_>>(), "block {block}");
        assert!(passed.contains(&true) && passed.contains(&false));
        passed
    });
    assert_ne!(passed[0], passed[1]);
}

#[test]
fn output_dropout_is_the_heads_alone() {
    let network = network(config());
    let rates = DropoutRates {
        output: 0.5,
        ..DropoutRates::default()
    };
    let (plain, dropped) = (
        streams(&network, DropoutRates::default(), 1),
        streams(&network, rates, 1),
    );
    assert_eq!(plain[..5], dropped[..5]);
    assert_ne!(plain[5], dropped[5]);
}

/// A first word that is dropped is a row of zeros through every block, whose norms would multiply its gradient by 1/√eps each.
#[test]
fn words_dropped_at_the_beginning_leave_gradients_finite() {
    let mut deep = ModelConfig {
        num_hidden_layers: 24,
        qk_norm: true,
        initializer_range: 0.2,
        ..config()
    };
    deep.set_all_modes(LinearMode::Ternary);
    let network = network(deep);
    let rates = DropoutRates {
        word: 0.6,
        input: 0.4,
        hidden: 0.2,
        ..DropoutRates::default()
    };
    let (text, targets) = batch();
    for step in 0..6 {
        let mode = ForwardMode {
            dropout: Some(Dropout { rates, seed: 9, step }),
            ..ForwardMode::evaluation(1.0)
        };
        let tape = Tape::new();
        let leaves = network.leaves(&tape);
        let (loss, _) = network
            .loss(&leaves, (&text, &targets), 8, mode, Default::default())
            .unwrap();
        let mut gradients = tape.backward(&loss).unwrap();
        for (leaf, spec) in leaves.iter().zip(network.specs()) {
            let gradient = gradients.take(leaf).unwrap();
            let finite = gradient.f32().unwrap().iter().all(|g| g.is_finite());
            assert!(finite, "step {step}: {}", spec.name);
        }
    }
}
