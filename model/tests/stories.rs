//! A real trained BitNet b1.58 model (3.28 M parameters, TinyStories) in another project's file format, mapped onto our
//! block: the loss and the story show that the runtime computes the network that was trained.

mod common;

use std::sync::Arc;

use common::model_dir;
use onebit_kernels_cpu::Isa;
use onebit_model::files::gguf::{GgufModel, GgufOptions, Graph, LINEAR_TYPES, save_gguf};
use onebit_model::files::{
    DirectoryOptions, Extras, HfDirectory, OneFile, OneFileOptions, Parts, StoriesModel, save_directory, save_one_file,
};
use onebit_model::runtime::{FloatStorage, KvType, PackedModel, Pool, Serial, Session, SessionOptions, Top};
use onebit_model::tokenizer::Tokenizer;

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
    let model = PackedModel::from_source(&StoriesModel::open(&dir.join("bit_model.bin")).unwrap(), storage).unwrap();
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

/// The trits of a byte in the other order: what a reader that takes the low bits first would see.
#[test]
fn the_order_of_the_bits_matters() {
    let Some(dir) = model_dir("bitnet-stories-3m") else {
        return;
    };
    let mut bytes = std::fs::read(dir.join("bit_model.bin")).unwrap();
    let vocabulary = Vocabulary::read(&std::fs::read(dir.join("tokenizer.bin")).unwrap());
    let word = |i: usize| u32::from_le_bytes(*bytes[4 * i..].first_chunk().unwrap()) as usize;
    let (dim, hidden, layers, heads, kv_heads, vocab) = (word(2), word(3), word(4), word(5), word(6), word(7));
    let keys = dim / heads * kv_heads;
    let mut at = 256 + 4 * (dim + vocab * dim);
    for trits in [
        dim * dim,
        keys * dim,
        keys * dim,
        dim * dim,
        hidden * dim,
        hidden * dim,
        hidden * dim,
    ] {
        for _ in 0..layers {
            for byte in &mut bytes[at + 4..at + 4 + trits / 4] {
                *byte = [0, 2, 4, 6]
                    .iter()
                    .fold(0, |all, shift| all << 2 | (*byte >> shift) & 3);
            }
            at += 4 + trits / 4;
        }
    }
    assert_eq!(at, bytes.len());
    let turned = tempfile::tempdir().unwrap();
    let path = turned.path().join("bit_model.bin");
    std::fs::write(&path, bytes).unwrap();
    let model = PackedModel::from_source(&StoriesModel::open(&path).unwrap(), FloatStorage::Stored).unwrap();
    let (_, loss) = score(&model, &text(&vocabulary), KvType::F32);
    println!("{loss:.4} nats a token with the low bits first");
    assert!(loss > 3.0, "{loss}");
}

/// Imported as a directory, exported as one file from there, and the other way round: the same logits to the last bit.
#[test]
fn a_trained_model_in_other_files_is_the_same_model() {
    let Some(dir) = model_dir("bitnet-stories-3m") else {
        return;
    };
    let (model, vocabulary) = load().unwrap();
    let ids = text(&vocabulary);
    let (expected, _) = score(&model, &ids, KvType::F32);
    let out = tempfile::tempdir().unwrap();
    let (one, directory, again) = (
        out.path().join("m.1bit"),
        out.path().join("hf"),
        out.path().join("again"),
    );
    let source = StoriesModel::open(&dir.join("bit_model.bin")).unwrap();
    let (quiet, options) = (|_, _| (), DirectoryOptions::default());
    save_directory(&directory, &source, &options, Extras::default(), &quiet).unwrap();
    let read = HfDirectory::open(&directory).unwrap();
    save_one_file(&one, &read, &OneFileOptions::default(), &Parts::default(), &quiet).unwrap();
    let file = OneFile::open(&one).unwrap();
    file.verify().unwrap();
    save_directory(&again, &file, &options, Extras::default(), &quiet).unwrap();
    let models = [
        PackedModel::from_source(&read, FloatStorage::Stored).unwrap(),
        file.model().unwrap(),
        PackedModel::open(&again, FloatStorage::Stored).unwrap().0,
    ];
    for model in models {
        assert!(score(&model, &ids, KvType::F32).0 == expected);
    }
    for name in ["config.json", "model.safetensors"] {
        let read = |dir: &std::path::Path| std::fs::read(dir.join(name)).unwrap();
        assert!(read(&directory) == read(&again), "{name}");
    }
}

/// Through a GGUF file of each type, the rounded scales of one told apart: the same logits to the last bit.
#[test]
fn a_trained_model_in_gguf_files_is_the_same_model() {
    let Some(dir) = model_dir("bitnet-stories-3m") else {
        return;
    };
    let (model, vocabulary) = load().unwrap();
    let ids = text(&vocabulary);
    let (expected, _) = score(&model, &ids, KvType::F32);
    let source = StoriesModel::open(&dir.join("bit_model.bin")).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let out = tempfile::tempdir().unwrap();
    for linears in LINEAR_TYPES {
        let path = out.path().join(linears.name());
        let options = GgufOptions {
            linears: Some(linears),
            tokenizer: Some(&tokenizer),
            ..GgufOptions::default()
        };
        save_gguf(&path, &source, &options, &|_, _| ()).unwrap();
        let file = GgufModel::open(&path).unwrap();
        assert_eq!(file.graph(), Graph::Bitnet);
        let again = PackedModel::from_source(&file, FloatStorage::Stored).unwrap();
        assert!(
            again.blocks() == model.blocks(),
            "{}: other integers or scales",
            linears.name()
        );
        assert!(score(&again, &ids, KvType::F32).0 == expected, "{}", linears.name());
        let story = "Once upon a time, there was a little girl. é 雪";
        let tokens = file.tokenizer().unwrap().unwrap();
        assert_eq!(tokens.encode(story).unwrap(), tokenizer.encode(story).unwrap());
    }
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
