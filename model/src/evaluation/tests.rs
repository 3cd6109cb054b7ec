//! The score against its definitions, and what is refused.

use crate::config::presets;
use crate::network::Network;
use onebit_engine::Device;

use super::*;
use crate::runtime::{Serial, Session, SessionOptions};

fn tiny() -> PackedModel {
    let mut config = presets::by_name("quickstart").unwrap().config;
    config.vocab_size = 64;
    config.max_position_embeddings = 32;
    let network = Network::new(config, Device::cpu().unwrap(), 3).unwrap();
    network.pack().unwrap()
}

#[test]
fn every_token_is_scored_once_whatever_the_stride() {
    let (model, isa) = (tiny(), Isa::best());
    let ids: Vec<u32> = (0..101).map(|i| (i * 37 + i / 7) % 64).collect();
    // One token of context at a time: the definition.
    let one = score(&model, isa, &ids, (1, 1), KvType::F32, &|_| ()).unwrap();
    assert_eq!(one.tokens, 100);
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1.5, "an untrained model is near ln 64 a token: {a} {b}");
    for (context, stride) in [(32, 32), (32, 16), (32, 7), (32, 1), (5, 3)] {
        let s = score(&model, isa, &ids, (context, stride), KvType::F32, &|_| ()).unwrap();
        assert_eq!(s.tokens, 100);
        near(s.loss(), 64f64.ln());
        near(s.loss(), one.loss());
    }
}

#[test]
fn a_stride_of_one_is_the_sliding_window() {
    let (model, isa) = (tiny(), Isa::best());
    let ids: Vec<u32> = (0..20).map(|i| (i * 11) % 64).collect();
    let mut nats = 0.0;
    for target in 1..ids.len() {
        let first = target.saturating_sub(8);
        let mut session = Session::new(&model, Serial, isa, SessionOptions::new(8)).unwrap();
        let logits = session.prefill(&ids[first..target]).unwrap();
        nats += surprise(logits, ids[target]);
    }
    let sliding = score(&model, isa, &ids, (8, 1), KvType::F32, &|_| ()).unwrap();
    assert!((sliding.nats - nats).abs() < 1e-9, "{} {nats}", sliding.nats);
}

#[test]
fn senseless_requests_are_refused() {
    let (model, isa) = (tiny(), Isa::best());
    assert!(score(&model, isa, &[1], (8, 4), KvType::F32, &|_| ()).is_err());
    assert!(score(&model, isa, &[1, 2], (33, 4), KvType::F32, &|_| ()).is_err());
    assert!(score(&model, isa, &[1, 2], (8, 9), KvType::F32, &|_| ()).is_err());
    assert!(score(&model, isa, &[1, 64], (8, 8), KvType::F32, &|_| ()).is_err());
}
