//! The promises of ARCHITECTURE.md §2.2 for every type of the key-value cache, over contexts of several blocks of positions.

mod common;

use common::{Cut, all_logits, bits, config, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::{FloatStorage, KvType, Pool, Serial, Session, SessionOptions};

/// Two blocks of positions and a piece of a third.
const LEN: usize = 285;

fn options(kv: KvType, chunk: usize) -> SessionOptions {
    SessionOptions {
        context: 300,
        chunk,
        logit_rows: chunk.min(32),
        kv,
    }
}

/// Grouped heads, heads of their own, and a head of odd size for all.
fn models() -> Vec<ModelConfig> {
    let base = ModelConfig {
        max_position_embeddings: 300,
        ..config()
    };
    let own = ModelConfig {
        num_key_value_heads: 4,
        qk_norm: true,
        ..base.clone()
    };
    let one = ModelConfig {
        num_attention_heads: 5,
        num_key_value_heads: 1,
        head_dim: 22,
        ..base.clone()
    };
    vec![base, own, one]
}

#[test]
fn chunks_threads_and_a_resumed_cache_change_no_bit() {
    for (config, kv) in models().iter().flat_map(|config| KvType::ALL.map(|kv| (config, kv))) {
        let model = random_model(config, 21, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, LEN, 22);
        let mut session = Session::new(&model, Serial, Isa::best(), options(kv, 100)).unwrap();
        let decoded: Vec<_> = ids.iter().map(|&id| bits(session.decode(id).unwrap())).collect();
        for split in [1, 127, 128, 200] {
            session.truncate(split);
            let last = bits(session.prefill(&ids[split..]).unwrap());
            assert!(last == decoded[LEN - 1], "{kv:?}, resumed at {split}");
        }
        for chunk in [2, 9, 10, 129, LEN] {
            let all = all_logits(&model, Serial, Isa::best(), options(kv, chunk), &ids);
            assert!(all == decoded, "{kv:?}, chunks of {chunk}");
        }
        for threads in [2, 3] {
            for chunk in [1, 7, 70, LEN] {
                let exec = Cut(3 * threads - 2, Pool::new(threads).unwrap());
                let all = all_logits(&model, exec, Isa::best(), options(kv, chunk), &ids);
                assert!(all == decoded, "{kv:?}, {threads} threads, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn a_snapshot_goes_on_as_the_session_would_from_any_of_its_tokens() {
    for (config, kv) in models().iter().flat_map(|config| KvType::ALL.map(|kv| (config, kv))) {
        let model = random_model(config, 21, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, LEN, 22);
        let mut session = Session::new(&model, Serial, Isa::best(), options(kv, 100)).unwrap();
        let expected = bits(session.prefill(&ids).unwrap());
        for stored in [1, 64, 65, 200, LEN] {
            let mut bytes = Vec::new();
            session
                .snapshot(stored, |piece| bytes.extend_from_slice(piece))
                .unwrap();
            assert_eq!(Some(bytes.len()), session.snapshot_bytes(stored), "{kv:?} {stored}");
            for taken in [0, 1, 63, 64, 65, 199, LEN - 1]
                .into_iter()
                .filter(|taken| *taken <= stored)
            {
                let mut other = Session::new(&model, Serial, Isa::best(), options(kv, 100)).unwrap();
                // What was held before is gone, wherever it lay.
                other.prefill(&random_ids(config.vocab_size, 80, 5)).unwrap();
                other.restore(taken, stored, &bytes).unwrap();
                assert_eq!(other.position(), taken);
                let last = bits(other.prefill(&ids[taken..]).unwrap());
                assert!(last == expected, "{kv:?}, {taken} of {stored}");
            }
        }
    }
}

#[test]
fn a_snapshot_of_another_length_is_refused() {
    let config = models().remove(0);
    let model = random_model(&config, 21, FloatStorage::Stored);
    let mut session = Session::new(&model, Serial, Isa::best(), options(KvType::F32, 100)).unwrap();
    session.prefill(&random_ids(config.vocab_size, 70, 3)).unwrap();
    assert!(session.snapshot(71, |_| {}).is_err());
    let mut bytes = Vec::new();
    session.snapshot(70, |piece| bytes.extend_from_slice(piece)).unwrap();
    for (taken, stored, bytes) in [
        (70, 70, &bytes[1..]),
        (10, 200, &bytes[..]),
        (71, 70, &bytes[..]),
        (1, usize::MAX, &bytes[..]),
        (301, 301, &bytes[..]),
        (0, 0, &bytes[..]),
    ] {
        assert!(session.restore(taken, stored, bytes).is_err(), "{taken} of {stored}");
        assert_eq!(session.position(), 70, "unchanged");
    }
    session.restore(0, 0, &[]).unwrap();
    assert_eq!(session.position(), 0);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (config, kv) in models().iter().flat_map(|config| KvType::ALL.map(|kv| (config, kv))) {
        let model = random_model(config, 23, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, 150, 24);
        let scalar = all_logits(&model, Serial, Isa::SCALAR, options(kv, 64), &ids);
        for isa in Isa::available() {
            for chunk in [1, 64] {
                let all = all_logits(&model, Serial, isa, options(kv, chunk), &ids);
                assert!(all == scalar, "{kv:?}, {}, chunks of {chunk}", isa.name());
            }
        }
    }
}

#[test]
fn types_differ_and_are_close() {
    let config = &models()[0];
    let model = random_model(config, 25, FloatStorage::Stored);
    let ids = random_ids(config.vocab_size, LEN, 26);
    let last = |kv| {
        let mut session = Session::new(&model, Serial, Isa::best(), options(kv, 64)).unwrap();
        session.prefill(&ids).unwrap().to_vec()
    };
    let exact = last(KvType::F32);
    let size = exact.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    let mut before = 0.0;
    for kv in [KvType::F16, KvType::Int8] {
        let pairs = exact.iter().zip(last(kv));
        let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max) / size;
        println!("{}: {difference:.2e} of the largest logit", kv.name());
        assert!(difference > before && difference < 0.2, "{kv:?}: {difference}");
        before = difference;
    }
}

#[test]
fn a_smaller_type_takes_less_memory() {
    let config = &models()[0];
    let bytes = |kv| options(kv, 64).memory_bytes(config, &Serial).unwrap();
    let [f32, f16, int8] = KvType::ALL.map(bytes);
    // 320 positions (whole panels) of keys and values, in two layers of two heads of 16.
    let values = 2 * 320 * 2 * 2 * 16;
    assert_eq!(f32 - f16, 2 * values);
    assert_eq!(f16 - int8, values - values / 16 * 4);
}
