//! A real trained BitNet b1.58 model (3.28 M parameters, TinyStories) in another project's file format, mapped onto our
//! block: the loss and the story show that the runtime computes the network that was trained.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{config, model_dir};
use onebit_kernels_cpu::Isa;
use onebit_model::config::{FeedForward, LayerModes, LinearKind, LinearMode, ModelConfig};
use onebit_model::runtime::{
    FloatStorage, FloatValues, KvType, PackedModel, Pool, RuntimeError, Serial, Session, SessionOptions, TensorSource,
    Top,
};

/// Bytes taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn f32(&mut self) -> f32 {
        f32::from_bits(self.i32() as u32)
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }

    /// A scale and `n` two-bit codes, the first weight in the high bits, two's complement.
    fn trits(&mut self, n: usize) -> (Vec<i8>, f32) {
        let scale = self.f32();
        let bytes = self.take(n / 4);
        let trits = bytes
            .iter()
            .flat_map(|b| [6, 4, 2, 0].map(|shift| ((b >> shift) << 6) as i8 >> 6));
        (trits.collect(), scale)
    }
}

/// Rows of interleaved rotary pairs in half-split order: new row `i` of a head was row `2i`, new row `i + half` row `2i + 1`.
fn half_split(trits: &[i8], head_dim: usize, cols: usize) -> Vec<i8> {
    let rows: Vec<&[i8]> = trits.chunks(cols).collect();
    let half = head_dim / 2;
    let old = |row: usize| {
        let (head, i) = (row / head_dim, row % head_dim);
        head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 }
    };
    (0..rows.len()).flat_map(|row| rows[old(row)].iter().copied()).collect()
}

fn read_model(bytes: &[u8], storage: FloatStorage) -> PackedModel {
    let mut header = Reader(bytes);
    assert_eq!(header.i32(), 0x616b_3432);
    assert_eq!(header.i32(), 1);
    let [dim, hidden, layers, heads, kv_heads, vocab, seq] = [(); 7].map(|()| header.i32() as usize);
    let mut config = ModelConfig {
        vocab_size: vocab,
        hidden_size: dim,
        intermediate_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: dim / heads,
        max_position_embeddings: seq,
        feed_forward: FeedForward::SwiGlu,
        layer_modes: vec![LayerModes::uniform(LinearMode::Ternary); layers],
        ..config()
    };
    // Its linears have a vanishing eps, and their inputs can be far smaller than 1e-5.
    config.rms_norm_eps = 1e-16;
    let mut reader = Reader(&bytes[256..]);
    let mut floats = HashMap::from([
        ("model.norm.weight".to_string(), reader.floats(dim)),
        ("model.embed_tokens.weight".to_string(), reader.floats(vocab * dim)),
    ]);
    let mut linears = HashMap::new();
    // The file has w1, w2, w3: gate, down, up.
    use LinearKind::{Down, Gate, K, O, Q, Up, V};
    for kind in [Q, K, V, O, Gate, Down, Up] {
        let (rows, cols) = config.linear_size(kind);
        for layer in 0..layers {
            let (mut trits, scale) = reader.trits(rows * cols);
            if matches!(kind, Q | K) {
                trits = half_split(&trits, config.head_dim, cols);
            }
            linears.insert(format!("model.layers.{layer}.{}.weight", kind.module()), (trits, scale));
        }
    }
    assert!(reader.0.is_empty(), "the whole file is read");
    // Its linears normalise their input to x / ‖x‖ / √n, which is RMSNorm with the weight 1/n.
    for spec in config.tensors() {
        if spec.name.contains("norm") && spec.name != "model.norm.weight" {
            floats.insert(spec.name.clone(), vec![1.0 / spec.len() as f32; spec.len()]);
        }
    }
    PackedModel::from_parts(config, storage, |name| {
        Ok::<_, RuntimeError>(match linears.remove(name) {
            Some((values, scale)) => TensorSource::Trits { values, scale },
            None => TensorSource::Float(FloatValues::F32(
                floats.remove(name).expect("a tensor of the file").into(),
            )),
        })
    })
    .unwrap()
}

/// The vocabulary: a score and the bytes of each token.
struct Vocabulary(Vec<(f32, Vec<u8>)>);

impl Vocabulary {
    fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        let _longest = reader.i32();
        let mut tokens = Vec::new();
        while !reader.0.is_empty() {
            let score = reader.f32();
            let len = reader.i32() as usize;
            tokens.push((score, reader.take(len).to_vec()));
        }
        Self(tokens)
    }

    fn id(&self, bytes: &[u8]) -> Option<usize> {
        self.0.iter().position(|(_, token)| token == bytes)
    }

    /// SentencePiece BPE: a space in front, characters, then the best-scored merge until there is none.
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<usize> = format!(" {text}")
            .chars()
            .map(|c| self.id(c.to_string().as_bytes()).expect("a character"))
            .collect();
        loop {
            let mut best: Option<(f32, usize, usize)> = None;
            for i in 0..ids.len() - 1 {
                let joined = [&*self.0[ids[i]].1, &*self.0[ids[i + 1]].1].concat();
                if let Some(id) = self.id(&joined)
                    && best.is_none_or(|(score, ..)| self.0[id].0 > score)
                {
                    best = Some((self.0[id].0, i, id));
                }
            }
            let Some((_, i, id)) = best else { break };
            ids.splice(i..i + 2, [id]);
        }
        ids.into_iter().map(|id| id as u32).collect()
    }
}

const TEXT: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. \
                    One day, she saw a big, red ball. She wanted to play with it, but it was too high.";
const STORY: &str = " Once upon a time, there was a little girl named Lily. She loved to play outside and explore \
                     the world around her. One day, she saw a big, red ball. She was so happy and wanted to play with it.";
const BOS: u32 = 1;

fn load() -> Option<(PackedModel, Vocabulary)> {
    load_as(FloatStorage::Stored)
}

fn load_as(storage: FloatStorage) -> Option<(PackedModel, Vocabulary)> {
    let dir = model_dir("bitnet-stories-3m")?;
    let model = read_model(&std::fs::read(dir.join("bit_model.bin")).unwrap(), storage);
    let vocabulary = Vocabulary::read(&std::fs::read(dir.join("tokenizer.bin")).unwrap());
    assert_eq!(vocabulary.0.len(), model.config().vocab_size);
    Some((model, vocabulary))
}

/// Logits after each token of the text but the last, and the loss in nats a token.
fn score(model: &PackedModel, ids: &[u32], kv: KvType) -> (Vec<Vec<f32>>, f64) {
    let options = SessionOptions {
        context: 256,
        chunk: 16,
        logit_rows: 4,
        kv,
    };
    let mut session = Session::new(model, Serial, Isa::best(), options).unwrap();
    let (mut all, mut sum) = (Vec::new(), 0.0);
    session
        .prefill_all(&ids[..ids.len() - 1], |i, logits| {
            let most = logits.iter().copied().fold(f32::MIN, f32::max);
            let total: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
            sum += total.ln() + f64::from(most - logits[ids[i + 1] as usize]);
            all.push(logits.to_vec());
        })
        .unwrap();
    (all, sum / (ids.len() - 1) as f64)
}

/// The text's tokens after the one that begins it.
fn text(vocabulary: &Vocabulary) -> Vec<u32> {
    let mut ids = vec![BOS];
    ids.extend(vocabulary.encode(TEXT));
    ids
}

#[test]
fn loss_of_a_trained_model() {
    let Some((model, vocabulary)) = load() else { return };
    let ids = text(&vocabulary);
    let (_, loss) = score(&model, &ids, KvType::F32);
    println!(
        "{loss:.4} nats a token over {} tokens; {:?}",
        ids.len() - 1,
        model.bytes()
    );
    assert!((loss - 0.395).abs() < 0.005, "{loss}");
}

fn likeliest(logits: &[f32]) -> u32 {
    (0..logits.len())
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
        .unwrap() as u32
}

/// What half precision and bytes cost a trained model on a text and on its own story: loss in nats a token, and how often the likeliest
/// token is another one. The activations of the linears are rounded to bytes, so that the smallest change of an input moves some of them
/// by a whole step, in either direction: the difference has a floor that does not depend on the type.
#[test]
fn smaller_caches_of_a_trained_model() {
    let Some((model, vocabulary)) = load() else { return };
    let mut ids = text(&vocabulary);
    let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(256)).unwrap();
    let mut next = likeliest(session.prefill(&ids).unwrap());
    while ids.len() < 256 {
        ids.push(next);
        next = likeliest(session.decode(next).unwrap());
    }
    let (exact, loss) = score(&model, &ids, KvType::F32);
    for (kv, most_loss, most_logit) in [(KvType::F16, 1e-3, 0.6), (KvType::Int8, 1e-2, 1.0)] {
        let (logits, other) = score(&model, &ids, kv);
        let pairs = exact.iter().zip(&logits);
        let changed = pairs.clone().filter(|(a, b)| likeliest(a) != likeliest(b)).count();
        let difference = pairs
            .flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).abs()))
            .fold(0.0f32, f32::max);
        println!(
            "{}: {:+.2e} nats a token, largest difference of a logit {difference:.2e}, {changed} of {} likeliest tokens changed",
            kv.name(),
            other - loss,
            logits.len()
        );
        assert!((other - loss).abs() <= most_loss, "{kv:?}: {other} for {loss}");
        assert!(difference > 0.0 && difference <= most_logit, "{kv:?}: {difference}");
        assert!(20 * changed <= logits.len(), "{kv:?}: {changed}");
    }
}

/// What a smaller embedding and head cost a trained model: the loss in nats a token, on a text and on the model's own story.
#[test]
fn smaller_heads_of_a_trained_model() {
    let Some((model, vocabulary)) = load() else { return };
    let mut ids = text(&vocabulary);
    let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(256)).unwrap();
    let mut next = likeliest(session.prefill(&ids).unwrap());
    while ids.len() < 256 {
        ids.push(next);
        next = likeliest(session.decode(next).unwrap());
    }
    let (exact, loss) = score(&model, &ids, KvType::F32);
    for (storage, most) in [
        (FloatStorage::F16, 1e-3),
        (FloatStorage::Bf16, 5e-3),
        (FloatStorage::Int8, 1e-3),
        (FloatStorage::Int4, 2e-2),
    ] {
        let Some((model, _)) = load_as(storage) else { return };
        let (logits, other) = score(&model, &ids, KvType::F32);
        let pairs = exact.iter().zip(&logits);
        let changed = pairs.filter(|(a, b)| likeliest(a) != likeliest(b)).count();
        println!(
            "{storage:?}: {:+.2e} nats a token, {changed} of {} likeliest tokens changed, {:?}",
            other - loss,
            logits.len(),
            model.bytes()
        );
        assert!((other - loss).abs() <= most, "{storage:?}: {other} for {loss}");
    }
}

#[test]
fn story_of_a_trained_model() {
    let Some((model, vocabulary)) = load() else { return };
    let model = Arc::new(model);
    let mut session = Session::new(model, Pool::new(2).unwrap(), Isa::best(), SessionOptions::new(256)).unwrap();
    let (mut next, mut story) = (BOS, Vec::new());
    while story.len() < STORY.len() {
        let logits = session.decode(next).unwrap();
        next = likeliest(logits);
        story.extend(&vocabulary.0[next as usize].1);
    }
    let story = String::from_utf8_lossy(&story);
    assert!(story.starts_with(STORY), "{story}");
}

/// A trained head is no matrix of chance: the sketch must find its winners too.
#[test]
fn the_largest_logits_of_a_trained_model() {
    let Some((whole, _)) = load() else { return };
    let mut sketched = whole.clone();
    sketched.sketch_head(&Serial, Isa::best());
    assert!(sketched.sketch().is_some());
    let open = |model| Session::new(model, Serial, Isa::best(), SessionOptions::new(256)).unwrap();
    let (mut whole, mut sketched) = (open(&whole), open(&sketched));
    let mut next = BOS;
    for i in 0..256 {
        let all = whole.decode(next).unwrap().to_vec();
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        order.sort_by(|&a, &b| all[b as usize].total_cmp(&all[a as usize]));
        let top = Top {
            count: 1 + i % 4,
            except: &[],
        };
        let some = sketched.prefill_top(&[next], Some(top)).unwrap();
        for &id in &order[..top.count] {
            assert_eq!(some[id as usize].to_bits(), all[id as usize].to_bits(), "token {i}");
        }
        let larger = |&id: &u32| some[id as usize] > all[order[0] as usize];
        assert!(!order.iter().any(larger), "token {i}");
        // Now and then another than the likeliest, so that the text does not go round in circles.
        next = order[usize::from(i % 5 == 4)];
    }
    let counts = sketched.sketch_counts();
    println!("{counts:?} of {} rows", whole.model().config().vocab_size);
    assert!(counts.whole < counts.searched / 2);
}
