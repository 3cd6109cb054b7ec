//! The GPU runtime against the CPU's: the same bits.

mod common;

use common::{bits, config, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cuda::Gpu;
use onebit_model::config::{FeedForward, LinearKind, LinearMode, ModelConfig};
use onebit_model::runtime::cuda::{CudaModel, CudaSession};
use onebit_model::runtime::{FloatStorage, KvType, Lookahead, PackedModel, Sequence, Serial, Session, SessionOptions};

#[test]
fn logits_have_the_bits_of_the_cpu() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("logits") else { return };
    let kinds = [
        (FloatStorage::F32, KvType::F32),
        (FloatStorage::F16, KvType::F16),
        (FloatStorage::Bf16, KvType::Int8),
    ];
    for (config, (storage, kv)) in of_every_kind(40).iter().zip(kinds) {
        let model = random_model(config, 5, storage);
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        let options = SessionOptions {
            kv,
            logit_rows: 4,
            ..SessionOptions::new(40)
        };
        let mut cpu = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let mut cuda = CudaSession::new(&on_gpu, 40, kv).unwrap();

        let ids = random_ids(config.vocab_size, 21, 3);
        let want = bits(cpu.prefill(&ids).unwrap());
        assert_eq!(bits(cuda.prefill(&ids).unwrap()), want, "{kv:?} prefill");
        for id in random_ids(config.vocab_size, 3, 4) {
            let want = bits(cpu.decode(id).unwrap());
            assert_eq!(bits(cuda.decode(id).unwrap()), want, "{kv:?} decode");
        }
        // Some again, with all their logits.
        cpu.truncate(19);
        cuda.truncate(19);
        let mut rows = Vec::new();
        cpu.prefill_all(&ids[..5], |_, logits| rows.push(bits(logits))).unwrap();
        cuda.prefill_all(&ids[..5], |i, logits| assert_eq!(bits(logits), rows[i], "{kv:?} {i}"))
            .unwrap();
        // As many as fit, without the host.
        let (mut id, mut want) = (ids[7], Vec::new());
        for _ in 24..40 {
            id = likeliest(cpu.decode(id).unwrap());
            want.push(id);
        }
        assert_eq!(cuda.greedy(ids[7], 16).unwrap(), want, "{kv:?} greedy");
        assert!(cuda.decode(0).is_err() && cuda.position() == 40);
        cuda.reset();
        assert!(cuda.prefill(&[]).is_err());
        assert!(cuda.prefill(&[config.vocab_size as u32]).is_err());
        assert!(CudaSession::new(&on_gpu, 41, kv).is_err());
    }
}

#[test]
fn prompts_of_any_length_have_the_bits_of_the_cpu() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("prompts") else { return };
    for (config, kv) in of_every_kind(600).iter().zip(KvType::ALL) {
        let model = random_model(config, 11, FloatStorage::F16);
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        let options = SessionOptions {
            kv,
            ..SessionOptions::new(600)
        };
        let mut cpu = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let mut cuda = CudaSession::new(&on_gpu, 600, kv).unwrap();
        let chunk = cuda.chunk();
        assert_eq!(chunk, 512);
        let ids = random_ids(config.vocab_size, chunk + 1, 12);
        for length in [1, 16, 17, 33, chunk + 1] {
            cpu.reset();
            cuda.reset();
            let ids = &ids[..length];
            let want = bits(cpu.prefill(ids).unwrap());
            assert_eq!(bits(cuda.prefill(ids).unwrap()), want, "{kv:?}, {length} tokens");
            assert_eq!(cuda.position(), length);
        }
        // After a prefix that was held, and of every token.
        cpu.truncate(100);
        cuda.truncate(100);
        let want = bits(cpu.prefill(&ids[..50]).unwrap());
        assert_eq!(bits(cuda.prefill(&ids[..50]).unwrap()), want, "{kv:?} after 100");
        let mut rows = Vec::new();
        cpu.prefill_all(&ids[50..90], |_, logits| rows.push(bits(logits)))
            .unwrap();
        let mut read = 0;
        cuda.prefill_all(&ids[50..90], |i, logits| {
            assert_eq!(bits(logits), rows[i], "{kv:?} {i}");
            read += 1;
        })
        .unwrap();
        assert_eq!(read, 40);
        let want = bits(cpu.decode(3).unwrap());
        assert_eq!(bits(cuda.decode(3).unwrap()), want, "{kv:?} decode");
        // From where one recording is enough to where another is needed, by ones and by eights.
        for start in [120, 250] {
            cpu.reset();
            cuda.reset();
            cpu.prefill(&ids[..start]).unwrap();
            cuda.prefill(&ids[..start]).unwrap();
            let (mut id, mut want) = (5, Vec::new());
            for _ in 0..19 {
                id = likeliest(cpu.decode(id).unwrap());
                want.push(id);
            }
            assert_eq!(cuda.greedy(5, 19).unwrap(), want, "{kv:?} from {start}");
            let want = bits(cpu.decode(id).unwrap());
            assert_eq!(bits(cuda.decode(id).unwrap()), want, "{kv:?} behind {start}");
        }
    }
}

/// A model of which each matrix is in a mode and a type that a dice says, and the tables too.
fn mixture(dice: &mut Dice, context: usize, vocab_size: usize) -> (ModelConfig, PackedModel) {
    let mut config = of_every_kind(context)[dice.below(3)].clone();
    config.vocab_size = vocab_size;
    config.tie_word_embeddings = dice.below(2) == 0;
    config.qk_norm = dice.below(2) == 0;
    config.sub_norms = dice.below(3) > 0;
    // Widths of whole blocks, and of none.
    config.hidden_size = [64, 128, 136][dice.below(3)];
    config.intermediate_size = [160, 257, 640][dice.below(3)];
    for modes in &mut config.layer_modes {
        for kind in LinearKind::ALL {
            modes.set(kind, LinearMode::ALL[dice.below(LinearMode::ALL.len())]);
        }
    }
    let tables = [(); 2].map(|()| LinearMode::ALL[dice.below(LinearMode::ALL.len())]);
    config.embedding_mode = tables[0];
    config.head_mode = tables[usize::from(!config.tie_word_embeddings)];
    let (_, storage) = FloatStorage::ALL[1 + dice.below(5)];
    let model = random_model(&config, dice.next(), storage);
    let model = if dice.below(2) == 0 { model.smallest() } else { model };
    (config, model)
}

#[test]
fn mixtures_of_every_width_have_the_bits_of_the_cpu() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("mixtures") else { return };
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    println!("mixtures: seed {seed}");
    let mut dice = Dice(seed, 0);
    for round in 0..if is_emulated(&gpu) { 10 } else { 60 } {
        let (config, model) = mixture(&mut dice, 100, 61);
        let what = format!(
            "seed {seed}, round {round}: {:?}, embedding {}, head {}, {:?}",
            config.layer_modes,
            model.embedding().values.type_name(),
            model.head().values.type_name(),
            config.feed_forward
        );
        let kv = KvType::ALL[round % 3];
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        let options = SessionOptions {
            kv,
            ..SessionOptions::new(100)
        };
        let mut cpu = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let mut cuda = CudaSession::new(&on_gpu, 100, kv).unwrap();
        // A chunk, what a step takes, a single token, and all logits of some.
        for length in [33, 7, 1] {
            let ids = random_ids(config.vocab_size, length, dice.next());
            let want = bits(cpu.prefill(&ids).unwrap());
            assert_eq!(bits(cuda.prefill(&ids).unwrap()), want, "{what}, {length} tokens");
        }
        let ids = random_ids(config.vocab_size, 20, dice.next());
        let mut rows = Vec::new();
        cpu.prefill_all(&ids, |_, logits| rows.push(bits(logits))).unwrap();
        cuda.prefill_all(&ids, |i, logits| assert_eq!(bits(logits), rows[i], "{what}, {i}"))
            .unwrap();
        // Recordings of one token and of eight.
        let (mut id, mut want) = (ids[3], Vec::new());
        for _ in 0..9 {
            id = likeliest(cpu.decode(id).unwrap());
            want.push(id);
        }
        assert_eq!(cuda.greedy(ids[3], 9).unwrap(), want, "{what}, greedy");
        for id in random_ids(config.vocab_size, 2, dice.next()) {
            let want = bits(cpu.decode(id).unwrap());
            assert_eq!(bits(cuda.decode(id).unwrap()), want, "{what}, decode");
        }
    }
}

#[test]
fn a_large_head_gives_the_tokens_of_the_cpu() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("a large head") else { return };
    // Just as large as a head has to be for a sketch.
    let config = ModelConfig {
        vocab_size: 32_768,
        hidden_size: 1024,
        num_hidden_layers: 1,
        layer_modes: config().layer_modes[..1].to_vec(),
        ..model_config()
    };
    let model = random_model(&config, 11, FloatStorage::F16);
    let on_gpu = CudaModel::new(&gpu, &model).unwrap();
    let head = config.vocab_size * config.hidden_size;
    let read = on_gpu.bytes_per_token();
    assert!(
        (head..2 * head).contains(&read),
        "{read} bytes a token, a head of {head} values"
    );
    let mut cpu = Session::new(&model, Serial, Isa::best(), SessionOptions::new(40)).unwrap();
    let mut cuda = CudaSession::new(&on_gpu, 40, KvType::F32).unwrap();
    let (mut id, mut want) = (77, Vec::new());
    for _ in 0..17 {
        id = likeliest(cpu.decode(id).unwrap());
        want.push(id);
    }
    // Twice eight by the sketch, and one with all logits.
    assert_eq!(cuda.greedy(77, 17).unwrap(), want);
    assert_eq!(bits(cuda.decode(id).unwrap()), bits(cpu.decode(id).unwrap()));
}

/// Of equal logits the first.
fn likeliest(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

/// Models with a context of so many tokens: with each activation, and each option of a block in one of them.
fn of_every_kind(context: usize) -> [ModelConfig; 3] {
    let base = ModelConfig {
        max_position_embeddings: context,
        head_dim: 16,
        ..config()
    };
    let plain = ModelConfig {
        feed_forward: FeedForward::Relu2,
        qk_norm: true,
        final_logit_softcapping: Some(0.2),
        ..base.clone()
    };
    let silu = ModelConfig {
        feed_forward: FeedForward::SwiGlu,
        residual_scaling: true,
        final_logit_softcapping: Some(30.0),
        ..base.clone()
    };
    [base, plain, silu]
}

/// Random numbers: a seed, and how many there have been.
struct Dice(u64, u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.1 += 1;
        Key::new(self.0, 9, 0).below(self.1, u32::MAX).into()
    }

    fn below(&mut self, most: usize) -> usize {
        self.next() as usize % most
    }
}

fn is_emulated(gpu: &Gpu) -> bool {
    gpu.properties().name.contains("emulated")
}

/// One test at a time: what is free on a GPU depends on all that run.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn gpu(name: &str) -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            println!("SKIPPED (no GPU): {name}; {error}");
            None
        }
    }
}

fn model_config() -> ModelConfig {
    ModelConfig {
        max_position_embeddings: 200,
        head_dim: 16,
        ..config()
    }
}

/// The bytes of a snapshot.
fn snapshot<S: Sequence>(session: &S, positions: usize) -> Vec<u8>
where
    S::Error: std::fmt::Debug,
{
    let mut bytes = Vec::new();
    session
        .snapshot(positions, |piece| bytes.extend_from_slice(piece))
        .unwrap();
    bytes
}

#[test]
fn snapshots_go_from_one_device_to_the_other() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("snapshots") else { return };
    let config = model_config();
    let model = random_model(&config, 6, FloatStorage::F16);
    let on_gpu = CudaModel::new(&gpu, &model).unwrap();
    let ids = random_ids(config.vocab_size, 150, 7);
    for kv in KvType::ALL {
        let options = SessionOptions {
            kv,
            ..SessionOptions::new(200)
        };
        let cpu = || Session::new(&model, Serial, Isa::best(), options).unwrap();
        let cuda = || CudaSession::new(&on_gpu, 200, kv).unwrap();
        let (mut a, mut b) = (cpu(), cuda());
        a.prefill(&ids).unwrap();
        b.prefill(&ids).unwrap();
        // Whole panels have no places that nobody wrote.
        for positions in [0, 64, 128] {
            assert_eq!(snapshot(&a, positions), snapshot(&b, positions), "{kv:?} {positions}");
        }
        let want = bits(a.decode(5).unwrap());
        for stored in [snapshot(&a, 150), snapshot(&b, 150)] {
            let (mut a, mut b) = (cpu(), cuda());
            a.restore(150, 150, &stored).unwrap();
            b.restore(150, 150, &stored).unwrap();
            assert_eq!(bits(a.decode(5).unwrap()), want, "{kv:?}");
            assert_eq!(bits(b.decode(5).unwrap()), want, "{kv:?}");
            // A part of it.
            b.restore(70, 150, &stored).unwrap();
            assert_eq!(bits(b.prefill(&ids[70..]).unwrap()).len(), config.vocab_size);
            assert_eq!(bits(b.decode(5).unwrap()), want, "{kv:?}");
        }
        assert!(b.snapshot(152, |_| ()).is_err());
        assert!(b.restore(201, 201, &[]).is_err() && b.restore(4, 4, &[0; 3]).is_err());
        assert_eq!(b.position(), 0);
    }
}

#[test]
fn reading_ahead_changes_no_logit() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("reading ahead") else { return };
    let config = model_config();
    let model = random_model(&config, 8, FloatStorage::F32);
    let on_gpu = CudaModel::new(&gpu, &model).unwrap();
    let mut plain = CudaSession::new(&on_gpu, 200, KvType::F32).unwrap();
    let mut ahead = Lookahead::new(CudaSession::new(&on_gpu, 200, KvType::F32).unwrap(), 8);
    let ids: Vec<u32> = (0..60)
        .map(|i| [3, 9, 4, 1, 7, 7, 2][i % 7] + u32::from(i == 33))
        .collect();
    assert_eq!(
        bits(ahead.read(&ids[..9], None).unwrap()),
        bits(plain.prefill(&ids[..9]).unwrap())
    );
    for &id in &ids[9..] {
        assert_eq!(bits(ahead.next(id, None).unwrap()), bits(plain.decode(id).unwrap()));
    }
    assert!(ahead.counts().accepted > 20, "{:?}", ahead.counts());
}

#[test]
fn what_is_needed_is_known_before() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(gpu) = gpu("memory") else { return };
    let config = ModelConfig {
        vocab_size: 3000,
        ..model_config()
    };
    let mut dice = Dice(9, 0);
    let mut models = vec![
        (random_model(&config, 9, FloatStorage::F16), KvType::F32),
        (random_model(&config, 9, FloatStorage::Int8), KvType::Int8),
        (random_model(&config, 9, FloatStorage::Int4), KvType::F16),
    ];
    models.extend((0..6).map(|_| (mixture(&mut dice, 200, 3000).1, KvType::F16)));
    for (model, kv) in models {
        let needed = CudaModel::memory(&model, 200, kv).unwrap().total() as f64;
        // Modules are loaded once.
        drop(CudaSession::new(&CudaModel::new(&gpu, &model).unwrap(), 200, kv).unwrap());
        let before = gpu.free_memory().unwrap();
        let session = CudaSession::new(&CudaModel::new(&gpu, &model).unwrap(), 200, kv).unwrap();
        let taken = (before - gpu.free_memory().unwrap()) as f64;
        drop(session);
        println!("{needed} bytes expected, {taken} taken");
        // A GPU gives memory in pages of 2 MiB.
        let pages = if is_emulated(&gpu) {
            0.0
        } else {
            64.0 * (2 << 20) as f64
        };
        assert!(taken <= 1.05 * needed + pages && taken + pages >= 0.9 * needed);
    }
}
