//! Training that begins from a model in a file, under another map than the file's.

use onebit_engine::ops::quantize::{EffectiveWeight, Precision, absmean, ternary_trits};

use super::*;
use crate::config::TensorKind;
use crate::files::{self, HfDirectory, ModelSource, open_source};

/// Every form of a tensor in the same directory: linears in all modes, tables in f32.
fn source_config() -> ModelConfig {
    let mut config = wide();
    for (modes, all) in config
        .layer_modes
        .iter_mut()
        .zip([LinearMode::Ternary, LinearMode::Int8])
    {
        modes.q = all;
        modes.k = LinearMode::Ternary;
        modes.o = LinearMode::F16;
        modes.down = LinearMode::Binary;
    }
    config
}

/// Its directory of floats, and the same packed.
fn written(directory: &std::path::Path) -> (Network, [std::path::PathBuf; 2]) {
    let network = network(source_config());
    let (floats, packed) = (directory.join("floats"), directory.join("m.1bit"));
    let tensors = network.named_tensors().unwrap();
    files::save_master(&floats, network.config(), &tensors, Default::default()).unwrap();
    let source = open_source(&floats).unwrap();
    let (options, parts) = (Default::default(), Default::default());
    files::save_one_file(&packed, &*source, &options, &parts, &|_, _| ()).unwrap();
    (network, [floats, packed])
}

#[test]
fn floats_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (network, [floats, _]) = written(dir.path());
    let source = HfDirectory::open(&floats).unwrap();
    let mut map = source_config();
    map.layer_modes = tables::random_modes(source_config(), 3).layer_modes;
    (map.embedding_mode, map.head_mode) = (LinearMode::Int4, LinearMode::Int4);
    let begun = Network::from_source(map.clone(), network.device(), &source).unwrap();
    assert_eq!(*begun.config(), map);
    for (a, b) in begun.parameters().iter().zip(network.parameters()) {
        assert_eq!(a.f32().unwrap(), b.f32().unwrap());
    }
    let again = network.with_map(map).unwrap();
    assert_eq!(gradients(&again, 1.0).0, gradients(&begun, 1.0).0);
}

/// What is packed begins as what it stands for; of a tensor that stays ternary trits and γ stay too.
#[test]
fn packed_tensors_begin_as_what_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let (network, [_, packed]) = written(dir.path());
    let source = open_source(&packed).unwrap();
    let begun = Network::from_source(source_config(), network.device(), &*source).unwrap();
    for ((spec, a), b) in begun.specs().iter().zip(begun.parameters()).zip(network.parameters()) {
        let hard = |t: &Tensor, precision| EffectiveWeight::new(t, precision, 1.0).unwrap().dense;
        match spec.kind {
            TensorKind::Linear(LinearMode::Ternary) => {
                assert_eq!(
                    ternary_trits(a).unwrap().0,
                    ternary_trits(b).unwrap().0,
                    "{}",
                    spec.name
                );
                let (now, then) = (absmean(a).unwrap(), absmean(b).unwrap());
                // γ is a mean of f32 sums.
                assert!((now / then - 1.0).abs() < 1e-5, "{}: {now}, not {then}", spec.name);
            }
            TensorKind::Linear(LinearMode::Binary) => {
                assert_eq!(a.f32().unwrap(), hard(b, Precision::Binary).f32().unwrap());
            }
            TensorKind::Linear(LinearMode::Int8) => {
                assert_eq!(a.f32().unwrap(), hard(b, Precision::Int8).f32().unwrap());
            }
            _ => assert_eq!(a.f32().unwrap(), b.f32().unwrap(), "{}", spec.name),
        }
    }
    assert!((gradients(&begun, 1.0).0 - gradients(&network, 1.0).0).abs() < 1e-4);
    // Under another map γ is that of the trits as they are.
    let mut map = source_config();
    map.set_all_modes(LinearMode::F16);
    let begun = Network::from_source(map, network.device(), &*source).unwrap();
    let at = network
        .specs()
        .iter()
        .position(|s| s.name.ends_with("0.self_attn.q_proj.weight"));
    let (a, b) = (&begun.parameters()[at.unwrap()], &network.parameters()[at.unwrap()]);
    let (trits, gamma) = ternary_trits(b).unwrap();
    let wanted: Vec<f32> = trits.iter().map(|&t| f32::from(t) * gamma).collect();
    assert_eq!(a.f32().unwrap(), wanted);
}

#[test]
fn another_model_is_refused_by_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (network, [floats, _]) = written(dir.path());
    let source = HfDirectory::open(&floats).unwrap();
    let refused = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = source.config().clone();
        change(&mut config);
        let error = Network::from_source(config.clone(), network.device(), &source).unwrap_err();
        let same = network.with_map(config).unwrap_err();
        assert_eq!(error.to_string(), same.to_string());
        error.to_string()
    };
    for (field, message) in [
        ("vocab_size", refused(&|c| c.vocab_size = 51)),
        ("tie_word_embeddings", refused(&|c| c.tie_word_embeddings = false)),
        (
            "final_logit_softcapping",
            refused(&|c| c.final_logit_softcapping = Some(3.0)),
        ),
        ("qk_norm", refused(&|c| c.qk_norm = true)),
    ] {
        assert!(message.contains(field), "{message}");
    }
    let mut none = source.config().clone();
    none.layer_modes.pop();
    assert!(network.with_map(none).is_err());
}
