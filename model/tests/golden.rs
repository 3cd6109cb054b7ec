//! Logits of `transformers` on tiny random models: float, quantised on the way in, and both packed conventions.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::model_dir;
use onebit_kernels_cpu::Isa;
use onebit_model::config::{FeedForward, LinearMode, ModelConfig};
use onebit_model::files::{FileError, HfDirectory, ModelSource, pack_rows, unpack_rows};
use onebit_model::runtime::{
    FloatStorage, FloatValues, KvType, LoadError, PackedModel, Serial, Session, SessionOptions, TensorSource,
};
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

/// A directory and the name of its golden logits.
const SETS: [(&str, &str); 6] = [
    ("tiny-f32", "unquantized_f32"),
    ("tiny-bf16", "unquantized_f32"),
    ("tiny-online", "tiny-online"),
    ("tiny-packed-autobitlinear", "tiny-packed-autobitlinear"),
    ("tiny-packed-bitlinear", "tiny-packed-bitlinear"),
    ("tiny-llama-packed-bitlinear", "tiny-llama-packed-bitlinear"),
];

/// A model in memory, to be changed.
#[derive(Clone)]
struct Loaded {
    config: ModelConfig,
    tensors: BTreeMap<String, TensorSource>,
}

fn load(dir: &Path) -> Result<Loaded, FileError> {
    let source = HfDirectory::open(dir)?;
    let config = source.config().clone();
    let names = config.tensors().into_iter().map(|spec| spec.name);
    let tensors = names.map(|name| Ok((name.clone(), source.tensor(&name)?)));
    Ok(Loaded {
        tensors: tensors.collect::<Result<_, FileError>>()?,
        config,
    })
}

fn packed(mut loaded: Loaded) -> PackedModel {
    PackedModel::from_parts(loaded.config, FloatStorage::Stored, |name| {
        Ok::<_, LoadError>(loaded.tensors.remove(name).unwrap())
    })
    .unwrap()
}

#[test]
fn logits_of_transformers() {
    let Some((dir, golden)) = golden() else { return };
    let ids = ids(&golden["ids"]);
    for (name, key) in SETS {
        let model = packed(load(&dir.join(name)).unwrap());
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

/// There are no logits of this directory itself; its weights are those that were packed into the other Llama directory.
#[test]
fn float_llama_weights_quantised_here_are_the_packed_ones() {
    let Some((dir, golden)) = golden() else { return };
    let mut loaded = load(&dir.join("tiny-llama-f32")).unwrap();
    let ids = ids(&golden["ids"]);
    let wanted = &golden["tiny-llama-packed-bitlinear"];
    assert!(distance(&logits(&packed(loaded.clone()), &ids), wanted) > 0.1);
    loaded.config.set_all_modes(LinearMode::Ternary);
    let difference = distance(&logits(&packed(loaded), &ids), wanted);
    println!("tiny-llama-f32, quantised: largest difference {difference:.2e}");
    assert!(difference < TOLERANCE, "{difference}");
}

/// Nothing in the golden file is left uncompared.
#[test]
fn every_set_of_the_golden_file_is_compared() {
    let Some((dir, golden)) = golden() else { return };
    // The ids and the versions, the greedy continuation and the packing example below.
    let mut known = vec!["ids", "torch", "transformers", "greedy_online", "pack_example"];
    known.extend(SETS.iter().map(|(_, key)| key));
    for key in golden.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{key} is compared nowhere");
    }
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let compared = SETS.iter().any(|(set, _)| *set == name) || name == "tiny-llama-f32";
        assert!(compared || !entry.path().is_dir(), "{name} is compared nowhere");
    }
}

fn greedy(model: &PackedModel, wanted: &[u32]) -> Vec<u32> {
    let mut session = Session::new(model, Serial, Isa::best(), SessionOptions::new(64)).unwrap();
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
    tokens
}

#[test]
fn greedy_tokens_of_transformers() {
    let Some((dir, golden)) = golden() else { return };
    let wanted = ids(&golden["greedy_online"]);
    let model = packed(load(&dir.join("tiny-online")).unwrap());
    assert_eq!(greedy(&model, &wanted), wanted);
}

/// Every matrix of trits, with its rows and its scale.
fn trits(loaded: &mut Loaded) -> impl Iterator<Item = (&str, usize, &mut Vec<i8>, &mut f32)> {
    let rows: BTreeMap<String, usize> = loaded
        .config
        .tensors()
        .into_iter()
        .map(|s| (s.name, s.shape[0]))
        .collect();
    loaded
        .tensors
        .iter_mut()
        .filter_map(move |(name, tensor)| match tensor {
            TensorSource::Trits { values, scale } => Some((name.as_str(), rows[name], values, scale)),
            _ => None,
        })
}

/// Puts row `from(i)` at row `i`.
fn permute_rows(values: &mut Vec<i8>, rows: usize, from: impl Fn(usize) -> usize) {
    let cols = values.len() / rows;
    let row = |i: usize| &values[from(i) * cols..][..cols];
    *values = (0..rows).flat_map(|i| row(i).to_vec()).collect();
}

/// The mistakes that a loader or a runtime could make and still give plausible text. Each is put into the model, and the comparison
/// above has to see it.
#[test]
fn the_comparison_sees_every_fault() {
    type Fault = (&'static str, fn(&mut Loaded));
    let faults: [Fault; 12] = [
        ("the scale divides", |m| {
            trits(m).for_each(|(_, _, _, scale)| *scale = 1.0 / *scale)
        }),
        ("one scale 1% too large", |m| *trits(m).next().unwrap().3 *= 1.01),
        ("SiLU for squared ReLU", |m| m.config.feed_forward = FeedForward::SwiGlu),
        ("another rotary base", |m| m.config.rope_theta = 10_000.0),
        ("no sub-norms", |m| m.config.sub_norms = false),
        ("one sub-norm left at 1", |m| {
            let ones = vec![1.0; m.config.intermediate_size];
            let norm = m.tensors.get_mut("model.layers.1.mlp.ffn_sub_norm.weight").unwrap();
            *norm = TensorSource::Float(FloatValues::F32(ones.into()));
        }),
        // Pairs (2i, 2i + 1) of a head turn together instead of (i, i + d/2): the same as the right rotation of rows in this order.
        ("interleaved rotation", |m| {
            let half = m.config.head_dim / 2;
            let from = |i: usize| i / (2 * half) * (2 * half) + i % half * 2 + i / half % 2;
            for (name, rows, trits, _) in trits(m) {
                if name.contains("q_proj") || name.contains("k_proj") {
                    permute_rows(trits, rows, from);
                }
            }
        }),
        ("another epsilon", |m| m.config.rms_norm_eps = 1e-6),
        // Bits 2j of byte row r are row 4r + j instead of r + j·rows/4.
        ("packed rows adjacent", |m| {
            trits(m).for_each(|(_, rows, trits, _)| permute_rows(trits, rows, |i| i % 4 * (rows / 4) + i / 4));
        }),
        // The first row in the highest bits instead of the lowest.
        ("packed rows in reverse", |m| {
            trits(m).for_each(|(_, rows, trits, _)| {
                permute_rows(trits, rows, |i| (3 - i / (rows / 4)) * (rows / 4) + i % (rows / 4))
            });
        }),
        ("codes negated", |m| {
            trits(m).for_each(|(_, _, trits, _)| trits.iter_mut().for_each(|t| *t = -*t))
        }),
        ("gate and up exchanged", |m| {
            let name = |kind| format!("model.layers.0.mlp.{kind}_proj.weight");
            let (gate, up) = (
                m.tensors.remove(&name("gate")).unwrap(),
                m.tensors.remove(&name("up")).unwrap(),
            );
            m.tensors.extend([(name("gate"), up), (name("up"), gate)]);
        }),
    ];
    let Some((dir, golden)) = golden() else { return };
    let (sequence, wanted) = (ids(&golden["ids"]), ids(&golden["greedy_online"]));
    let sound = load(&dir.join("tiny-packed-autobitlinear")).unwrap();
    for (fault, put) in faults {
        let mut loaded = sound.clone();
        put(&mut loaded);
        let model = packed(loaded);
        let difference = distance(&logits(&model, &sequence), &golden["tiny-packed-autobitlinear"]);
        let same = greedy(&model, &wanted)
            .iter()
            .zip(&wanted)
            .take_while(|(a, b)| a == b)
            .count();
        println!(
            "{fault}: largest difference {difference:.2e}, {same} of {} greedy tokens",
            wanted.len()
        );
        assert!(difference > TOLERANCE, "{fault}: {difference}");
        // A fault of the structure is seen in the tokens too; a small one only in the logits.
        if !["one scale 1% too large", "one sub-norm left at 1", "another epsilon"].contains(&fault) {
            assert!(
                difference > 0.1 && same < wanted.len(),
                "{fault}: {difference}, {same} tokens"
            );
        }
    }
}

/// A directory whose `config.json` names the other class: the same bytes, the scale read the other way round.
#[test]
fn the_wrong_linear_class_is_seen() {
    let Some((dir, golden)) = golden() else { return };
    let ids = ids(&golden["ids"]);
    for (name, from, to) in [
        ("tiny-packed-autobitlinear", "\"autobitlinear\"", "\"bitlinear\""),
        ("tiny-packed-bitlinear", "\"bitlinear\"", "\"autobitlinear\""),
    ] {
        let copy = tempfile::tempdir().unwrap();
        let config = std::fs::read_to_string(dir.join(name).join("config.json")).unwrap();
        assert!(config.contains(from));
        std::fs::write(copy.path().join("config.json"), config.replace(from, to)).unwrap();
        std::fs::copy(
            dir.join(name).join("model.safetensors"),
            copy.path().join("model.safetensors"),
        )
        .unwrap();
        let difference = distance(&logits(&packed(load(copy.path()).unwrap()), &ids), &golden[name]);
        assert!(difference > 0.1, "{name}: {difference}");
    }
}

/// The packing of the golden file as written here, and that the two orders that a reader could confuse with it give other bytes.
#[test]
fn the_packing_example_tells_the_orders_apart() {
    let Some((_, golden)) = golden() else { return };
    let flat = |key: &str| -> Vec<f64> {
        let rows = golden["pack_example"][key].as_array().unwrap();
        rows.iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|v| v.as_f64().unwrap())
            .collect()
    };
    let trits: Vec<i8> = flat("w").into_iter().map(|v| v as i8).collect();
    let packed: Vec<u8> = flat("packed").into_iter().map(|v| v as u8).collect();
    let (rows, cols) = (8, trits.len() / 8);
    assert_eq!(pack_rows(&trits, rows, cols).unwrap(), packed);
    assert_eq!(unpack_rows(&packed).unwrap(), trits);
    for from in [|i: usize| i % 4 * 2 + i / 4, |i: usize| (3 - i / 2) * 2 + i % 2] {
        let mut other = trits.clone();
        permute_rows(&mut other, rows, from);
        assert_ne!(pack_rows(&other, rows, cols).unwrap(), packed);
    }
}
