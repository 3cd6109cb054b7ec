//! Random models over every option, and where the test data lies.
#![allow(dead_code, missing_docs)]

use std::path::PathBuf;

use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_model::config::{FeedForward, LayerModes, LinearMode, ModelConfig, WeightStorage};
#[cfg(feature = "std")]
use onebit_model::runtime::Shares;
use onebit_model::runtime::{
    Executor, FloatStorage, FloatValues, KvType, PackedModel, RuntimeError, Session, SessionOptions, TensorSource,
};

/// A small valid model: 2 layers, 4 heads over 2 key heads, sub-norms, tied head.
pub fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 64,
        intermediate_size: 160,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        feed_forward: FeedForward::Relu2Gated,
        tie_word_embeddings: true,
        sub_norms: true,
        qk_norm: false,
        residual_scaling: false,
        final_logit_softcapping: None,
        layer_modes: vec![LayerModes::uniform(LinearMode::Ternary); 2],
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        initializer_range: 0.02,
        storage: WeightStorage::Master,
    }
}

/// Models that between them have every option, by name.
pub fn every_option() -> Vec<(&'static str, ModelConfig)> {
    let mut mixed = ModelConfig {
        residual_scaling: true,
        ..config()
    };
    mixed.layer_modes = vec![
        LayerModes {
            q: LinearMode::Ternary,
            k: LinearMode::F16,
            v: LinearMode::Int8,
            o: LinearMode::Binary,
            gate: LinearMode::Int4,
            up: LinearMode::Ternary,
            down: LinearMode::Int8,
        },
        LayerModes::uniform(LinearMode::Binary),
    ];
    let mut float = config();
    float.set_all_modes(LinearMode::F16);
    vec![
        ("default", config()),
        (
            "qk-norm",
            ModelConfig {
                qk_norm: true,
                ..config()
            },
        ),
        (
            "residual scaling, no sub-norms",
            ModelConfig {
                residual_scaling: true,
                sub_norms: false,
                ..config()
            },
        ),
        (
            "swiglu, untied",
            ModelConfig {
                feed_forward: FeedForward::SwiGlu,
                tie_word_embeddings: false,
                ..config()
            },
        ),
        (
            "plain relu2",
            ModelConfig {
                feed_forward: FeedForward::Relu2,
                qk_norm: true,
                ..config()
            },
        ),
        (
            "one key head",
            ModelConfig {
                num_key_value_heads: 1,
                ..config()
            },
        ),
        (
            "explicit head_dim",
            ModelConfig {
                head_dim: 24,
                ..config()
            },
        ),
        (
            "odd sizes",
            ModelConfig {
                hidden_size: 40,
                intermediate_size: 73,
                num_attention_heads: 3,
                num_key_value_heads: 3,
                head_dim: 6,
                vocab_size: 37,
                ..config()
            },
        ),
        ("mixed modes", mixed),
        ("all f16", float),
        (
            "wider than a block",
            ModelConfig {
                hidden_size: 264,
                intermediate_size: 520,
                head_dim: 66,
                tie_word_embeddings: false,
                ..config()
            },
        ),
        (
            "int4 everywhere, a ternary head",
            ModelConfig {
                tie_word_embeddings: false,
                layer_modes: vec![LayerModes::uniform(LinearMode::Int4); 2],
                embedding_mode: LinearMode::Int4,
                head_mode: LinearMode::Ternary,
                hidden_size: 72,
                head_dim: 18,
                ..config()
            },
        ),
        (
            "binary tables that are one",
            ModelConfig {
                layer_modes: vec![
                    LayerModes::uniform(LinearMode::Int8),
                    LayerModes::uniform(LinearMode::Binary),
                ],
                embedding_mode: LinearMode::Binary,
                head_mode: LinearMode::Binary,
                ..config()
            },
        ),
        (
            "a ternary embedding, an int8 head",
            ModelConfig {
                tie_word_embeddings: false,
                embedding_mode: LinearMode::Ternary,
                head_mode: LinearMode::Int8,
                feed_forward: FeedForward::SwiGlu,
                ..config()
            },
        ),
        (
            "capped logits",
            ModelConfig {
                final_logit_softcapping: Some(0.7),
                ..config()
            },
        ),
    ]
}

/// Values of a tensor of `n`, the same on every call: norms near 1, everything else normal.
pub fn values(seed: u64, name: &str, n: usize) -> Vec<f32> {
    let place = name
        .bytes()
        .fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let key = Key::new(place, 7, 0);
    let is_norm = name.contains("norm");
    (0..n as u64)
        .map(|i| {
            if is_norm {
                1.0 + 0.2 * key.normal(i)
            } else {
                key.normal(i) * if name.contains("embed") { 1.0 } else { 0.2 }
            }
        })
        .collect()
}

/// A model of random master weights.
pub fn random_model(config: &ModelConfig, seed: u64, storage: FloatStorage) -> PackedModel {
    let specs = config.tensors();
    PackedModel::from_parts(config.clone(), storage, |name| {
        let spec = specs
            .iter()
            .find(|spec| spec.name == name)
            .expect("a tensor of the config");
        Ok::<_, RuntimeError>(TensorSource::Float(FloatValues::F32(
            values(seed, name, spec.len()).into(),
        )))
    })
    .expect("a valid model")
}

/// `n` random token ids.
pub fn random_ids(vocab: usize, n: usize, seed: u64) -> Vec<u32> {
    let key = Key::new(seed, 8, 0);
    (0..n as u64).map(|i| key.below(i, vocab as u32)).collect()
}

/// The folder `models/{name}` of the test data, or a loud note that the test is skipped.
pub fn model_dir(name: &str) -> Option<PathBuf> {
    let root = std::env::var("ONEBIT_TESTDATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into());
    let dir = PathBuf::from(root).join("models").join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED (no test data): {} (set ONEBIT_TESTDATA)", dir.display());
    None
}

/// The bits, for comparisons that must be exact.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// A context of 32 in f32.
pub fn options(chunk: usize, logit_rows: usize) -> SessionOptions {
    SessionOptions {
        context: 32,
        chunk,
        logit_rows,
        kv: KvType::F32,
    }
}

/// Logits at every position, in bits, through `prefill_all`.
pub fn all_logits<E: Executor>(
    model: &PackedModel,
    exec: E,
    isa: Isa,
    options: SessionOptions,
    ids: &[u32],
) -> Vec<Vec<u32>> {
    let mut session = Session::new(model, exec, isa, options).unwrap();
    let mut all = Vec::new();
    session
        .prefill_all(ids, |i, logits| {
            assert_eq!(i, all.len());
            all.push(bits(logits));
        })
        .unwrap();
    assert_eq!(session.position(), ids.len());
    all
}

/// Cuts everything into as many pieces as it can, whatever the work, so that small models meet every cut too.
#[cfg(feature = "std")]
pub struct Cut(pub usize, pub onebit_model::runtime::Pool);

#[cfg(feature = "std")]
impl Executor for Cut {
    fn threads(&self) -> usize {
        self.1.threads()
    }
    fn pieces(&self, _work: usize) -> usize {
        self.0
    }
    fn shares(&self, work: usize) -> Shares {
        // Tapered or not, by what would be as good as a coin.
        Shares {
            pieces: self.0,
            tapered: work.is_multiple_of(3),
        }
    }
    fn enter<R: Send>(&self, _work: usize, f: impl FnOnce() -> R + Send) -> R {
        self.1.enter(usize::MAX, f)
    }
    fn share_zipped<T: Send, U: Send, S: Send>(
        &self,
        shares: Shares,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut [U], &mut S) + Sync,
    ) {
        self.1.share_zipped(shares, a, b, scratch, f);
    }
}
