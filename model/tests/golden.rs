//! Logits of `transformers` on tiny random models: float, quantised on the way in, and both packed conventions.

mod common;

use common::model_dir;
use onebit_kernels_cpu::Isa;
use onebit_model::runtime::{FloatStorage, KvType, PackedModel, Serial, Session, SessionOptions};
use serde_json::Value;

/// Agreement asked of the logits, which lie within ±8.
const TOLERANCE: f32 = 1e-4;

fn golden() -> Option<(std::path::PathBuf, Value)> {
    let dir = model_dir("hf-bitnet-tiny")?;
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    Some((dir, serde_json::from_str(&text).unwrap()))
}

fn ids(value: &Value) -> Vec<u32> {
    value[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

fn logits(model: &PackedModel, ids: &[u32]) -> Vec<Vec<f32>> {
    let options = SessionOptions {
        context: 64,
        chunk: 5,
        logit_rows: 2,
        kv: KvType::F32,
    };
    let mut session = Session::new(model, Serial, Isa::best(), options).unwrap();
    let mut all = Vec::new();
    session.prefill_all(ids, |_, logits| all.push(logits.to_vec())).unwrap();
    all
}

/// Largest difference between our logits and the golden ones.
fn distance(ours: &[Vec<f32>], golden: &Value) -> f32 {
    let golden = golden[0].as_array().unwrap();
    assert_eq!(ours.len(), golden.len());
    let mut most = 0.0f32;
    for (ours, golden) in ours.iter().zip(golden) {
        let golden = golden.as_array().unwrap();
        assert_eq!(ours.len(), golden.len());
        for (a, b) in ours.iter().zip(golden) {
            let difference = (a - b.as_f64().unwrap() as f32).abs();
            assert!(difference.is_finite());
            most = most.max(difference);
        }
    }
    most
}

#[test]
fn logits_of_transformers() {
    let Some((dir, golden)) = golden() else { return };
    let ids = ids(&golden["ids"]);
    for (name, key) in [
        ("tiny-f32", "unquantized_f32"),
        ("tiny-bf16", "unquantized_f32"),
        ("tiny-online", "tiny-online"),
        ("tiny-packed-autobitlinear", "tiny-packed-autobitlinear"),
        ("tiny-packed-bitlinear", "tiny-packed-bitlinear"),
        ("tiny-llama-packed-bitlinear", "tiny-llama-packed-bitlinear"),
    ] {
        let model = PackedModel::open(&dir.join(name), FloatStorage::Stored).unwrap().0;
        let ours = logits(&model, &ids);
        let difference = distance(&ours, &golden[key]);
        println!(
            "{name}: largest difference {difference:.2e}, weights {:?}",
            model.bytes()
        );
        assert!(difference < TOLERANCE, "{name}: {difference}");
        // The comparison can fail: quantised and float logits are far apart.
        let other = if key == "unquantized_f32" {
            "tiny-online"
        } else {
            "unquantized_f32"
        };
        assert!(distance(&ours, &golden[other]) > 1.0, "{name}");
    }
}

#[test]
fn greedy_tokens_of_transformers() {
    let Some((dir, golden)) = golden() else { return };
    let wanted = ids(&golden["greedy_online"]);
    let model = PackedModel::open(&dir.join("tiny-online"), FloatStorage::Stored)
        .unwrap()
        .0;
    let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(64)).unwrap();
    let argmax = |logits: &[f32]| {
        (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap() as u32
    };
    let mut tokens = wanted[..4].to_vec();
    let mut next = argmax(session.prefill(&tokens).unwrap());
    while tokens.len() < wanted.len() {
        tokens.push(next);
        next = argmax(session.decode(next).unwrap());
    }
    assert_eq!(tokens, wanted);
}
