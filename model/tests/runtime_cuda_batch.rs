//! Many sequences side by side on a GPU: the bits that each has alone, there and on the CPU.

mod common;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{bits, config, every_option, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cuda::Gpu;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::cuda::{CudaBatch, CudaModel, CudaRuntimeError, CudaSession};
use onebit_model::runtime::{
    Batch, FloatStorage, KvType, PackedModel, RuntimeError, Serial, Session, SessionOptions, Top, Turn, Wanted,
};

const SEQUENCES: usize = 6;
const CHUNK: usize = 90;

fn options(kv: KvType, context: usize) -> SessionOptions {
    SessionOptions {
        context,
        chunk: CHUNK.min(context * SEQUENCES),
        logit_rows: SEQUENCES,
        kv,
    }
}

/// What a text's every prefix has for logits, alone on the CPU.
fn alone(model: &PackedModel, kv: KvType, ids: &[u32]) -> Vec<Vec<u32>> {
    let options = SessionOptions {
        kv,
        ..SessionOptions::new(ids.len())
    };
    let mut session = Session::new(model, Serial, Isa::best(), options).unwrap();
    let mut all = Vec::new();
    session.prefill_all(ids, |_, logits| all.push(bits(logits))).unwrap();
    all
}

/// A sequence's text, what is known of its logits, and how much of it has been read.
struct Text {
    ids: Vec<u32>,
    expected: Vec<Vec<u32>>,
}

/// Reads texts in random turns, one after the other in each sequence, with cuts and copies between, and compares every row of logits that comes.
fn in_turns(gpu: &Gpu, model: &PackedModel, kv: KvType, context: usize, seed: u64, what: &str) {
    let vocab = model.config().vocab_size;
    let on_gpu = CudaModel::new(gpu, model).unwrap();
    let mut batch = CudaBatch::new(&on_gpu, options(kv, context), SEQUENCES).unwrap();
    let mut dice = Dice(seed, 0);
    let text = |dice: &mut Dice| {
        let ids = random_ids(vocab, 2 + dice.below(context - 1), dice.next());
        let expected = alone(model, kv, &ids);
        Text { ids, expected }
    };
    // Texts, and which of them a sequence reads.
    let mut texts: Vec<Text> = (0..SEQUENCES).map(|_| text(&mut dice)).collect();
    let mut reads: Vec<usize> = (0..SEQUENCES).collect();
    let (mut compared, mut kinds) = (0, HashMap::new());
    for round in 0..30 {
        // Somebody leaves and another comes, some tokens are forgotten, a beginning is copied.
        let (one, other) = (dice.below(SEQUENCES), dice.below(SEQUENCES));
        match dice.below(8) {
            0 => {
                texts.push(text(&mut dice));
                reads[one] = texts.len() - 1;
                batch.truncate(one, 0);
            }
            1 => batch.truncate(one, dice.below(context)),
            2 => {
                let positions = dice.below(batch.position(one) + 1);
                batch.copy(one, other, positions).unwrap();
                reads[other] = reads[one];
                assert_eq!(batch.position(other), positions, "{what}");
            }
            _ => {}
        }
        let mut turns = Vec::new();
        let mut room = batch.options().chunk;
        // Rounds of single tokens, of prompts, and of both.
        let most = [1, 2, 60, 14][round % 4];
        for (sequence, &reading) in reads.iter().enumerate() {
            let ids = &texts[reading].ids;
            let held = batch.position(sequence).min(ids.len());
            let count = [0, 1, 1 + dice.below(most), 1 + dice.below(most)][dice.below(4)];
            let count = count.min(ids.len() - held).min(room);
            room -= count;
            let top = Top { count: 1, except: &[] };
            if count > 0 {
                turns.push(Turn {
                    sequence,
                    ids: &ids[held..held + count],
                    logits: [Wanted::Nothing, Wanted::All, Wanted::Top(top), Wanted::All][dice.below(4)],
                });
            }
        }
        if turns.is_empty() {
            continue;
        }
        let ends: Vec<(usize, usize)> = (turns.iter())
            .map(|turn| (turn.sequence, batch.position(turn.sequence) + turn.ids.len()))
            .collect();
        let wanted = turns
            .iter()
            .zip(&ends)
            .filter(|(turn, _)| turn.logits != Wanted::Nothing);
        let mut told: Vec<((usize, usize), Vec<u32>)> = wanted.map(|(_, end)| (*end, Vec::new())).collect();
        batch
            .step(&turns, &mut told, |(_, told), logits| *told = bits(logits))
            .unwrap();
        for ((sequence, end), found) in &told {
            let expected = &texts[reads[*sequence]].expected[end - 1];
            assert!(found == expected, "{what}, round {round}: sequence {sequence} at {end}");
            compared += 1;
        }
        assert!(
            ends.iter().all(|&(sequence, end)| batch.position(sequence) == end),
            "{what}"
        );
        let tokens: usize = turns.iter().map(|turn| turn.ids.len()).sum();
        *kinds.entry((tokens > 16, tokens > turns.len())).or_insert(0) += 1;
    }
    assert!(compared > 2 * SEQUENCES, "{what}: {compared}");
    // Few tokens and many, single ones and spans.
    assert!(context < 30 || kinds.len() >= 3, "{what}: {kinds:?}");
}

/// The same heads as in `config`, of a size that a GPU takes.
fn for_gpu(config: ModelConfig, context: usize) -> ModelConfig {
    ModelConfig {
        head_dim: config.head_dim.next_multiple_of(16),
        max_position_embeddings: context,
        ..config
    }
}

#[test]
fn cuda_batches_have_the_bits_of_a_session_with_every_option() {
    let _turn = turn();
    let Some(gpu) = gpu("every option of a batch") else {
        return;
    };
    for (i, (name, config)) in every_option().into_iter().enumerate() {
        let model = random_model(&for_gpu(config, 100), 5, FloatStorage::F32);
        in_turns(&gpu, &model, KvType::ALL[i % 3], 100, i as u64, name);
    }
}

#[test]
fn cuda_batches_see_more_than_a_block_of_positions() {
    let _turn = turn();
    let Some(gpu) = gpu("long contexts of a batch") else {
        return;
    };
    let config = ModelConfig {
        num_hidden_layers: 1,
        layer_modes: config().layer_modes[..1].to_vec(),
        ..for_gpu(config(), 300)
    };
    let storages = [FloatStorage::F16, FloatStorage::Int8, FloatStorage::Int4];
    for (i, (storage, kv)) in storages.into_iter().zip(KvType::ALL).enumerate() {
        let model = random_model(&config, 6, storage);
        let what = format!("{storage:?} {kv:?}");
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        // Prompts of several chunks, then a token of each at a time across the border of a block of positions.
        let lengths = [250, 120, 126, 3, 255, 1];
        let texts: Vec<Vec<u32>> = (lengths.iter().enumerate())
            .map(|(j, length)| random_ids(61, length + 8, (10 * i + j) as u64))
            .collect();
        let expected: Vec<_> = texts.iter().map(|ids| alone(&model, kv, ids)).collect();
        let mut batch = CudaBatch::new(&on_gpu, options(kv, 300), SEQUENCES).unwrap();
        let mut on_cpu = Batch::new(&model, Serial, Isa::best(), options(kv, 300), SEQUENCES).unwrap();
        let mut done = false;
        while !done {
            let mut room = CHUNK - SEQUENCES;
            let turns: Vec<Turn<'_>> = (texts.iter().enumerate())
                .map(|(sequence, ids)| {
                    let (held, prompt) = (batch.position(sequence), lengths[sequence]);
                    let count = prompt.saturating_sub(held).min(room);
                    room -= count;
                    let count = count.max(1).min(ids.len() - held);
                    (sequence, &ids[held..held + count])
                })
                .filter(|(_, ids)| !ids.is_empty())
                .map(|(sequence, ids)| Turn {
                    sequence,
                    ids,
                    logits: Wanted::All,
                })
                .collect();
            done = turns.is_empty();
            if done {
                break;
            }
            let mut found = vec![Vec::new(); turns.len()];
            let mut there = found.clone();
            let take = |told: &mut Vec<u32>, logits: &mut [f32]| *told = bits(logits);
            batch.step(&turns, &mut found, take).unwrap();
            on_cpu.step(&turns, &mut there, take).unwrap();
            assert!(found == there, "{what}: the CPU's batch");
            for (turn, found) in turns.iter().zip(found) {
                let at = batch.position(turn.sequence);
                assert!(
                    found == expected[turn.sequence][at - 1],
                    "{what}: {} at {at}",
                    turn.sequence
                );
            }
        }
        assert!((0..SEQUENCES).all(|sequence| batch.position(sequence) == texts[sequence].len()));
        in_turns(&gpu, &model, kv, 300, 30 + i as u64, &what);
    }
}

#[test]
fn cuda_batches_of_many_sequences_and_of_one_have_the_bits_of_a_cuda_session() {
    let _turn = turn();
    let Some(gpu) = gpu("many sequences of a batch") else {
        return;
    };
    let mut head = for_gpu(config(), 40);
    // More rows of a packed head than a product of few tokens takes.
    head.head_mode = onebit_model::config::LinearMode::Ternary;
    head.tie_word_embeddings = false;
    for (config, kv) in [for_gpu(config(), 40), head]
        .into_iter()
        .zip([KvType::F16, KvType::Int8])
    {
        let model = random_model(&config, 9, FloatStorage::Int8);
        let on_gpu = CudaModel::new(&gpu, &model).unwrap();
        for sequences in [1, 37] {
            let options = SessionOptions {
                context: 40,
                chunk: sequences * 3,
                logit_rows: sequences,
                kv,
            };
            let mut batch = CudaBatch::new(&on_gpu, options, sequences).unwrap();
            let texts: Vec<Vec<u32>> = (0..sequences).map(|i| random_ids(61, 6, i as u64)).collect();
            let mut expected = Vec::new();
            let mut session = CudaSession::new(&on_gpu, 40, kv).unwrap();
            for ids in &texts {
                session.reset();
                let mut rows = vec![bits(session.prefill(&ids[..3]).unwrap())];
                rows.extend(ids[3..].iter().map(|&id| bits(session.decode(id).unwrap())));
                expected.push(rows);
            }
            for (step, range) in [0..3, 3..4, 4..5, 5..6].into_iter().enumerate() {
                let turns: Vec<Turn<'_>> = (texts.iter().enumerate())
                    .map(|(sequence, ids)| Turn {
                        sequence,
                        ids: &ids[range.clone()],
                        logits: Wanted::All,
                    })
                    .collect();
                let mut found = vec![Vec::new(); sequences];
                batch
                    .step(&turns, &mut found, |told, logits| *told = bits(logits))
                    .unwrap();
                for (sequence, found) in found.iter().enumerate() {
                    assert!(
                        *found == expected[sequence][step],
                        "{sequences} {kv:?}: {sequence} at step {step}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_in_a_cuda_batch_is_refused_and_changes_nothing() {
    let _turn = turn();
    let Some(gpu) = gpu("a batch that refuses") else { return };
    let model = random_model(&for_gpu(config(), 40), 7, FloatStorage::F32);
    let on_gpu = CudaModel::new(&gpu, &model).unwrap();
    let mut batch = CudaBatch::new(
        &on_gpu,
        SessionOptions {
            chunk: 48,
            ..options(KvType::F32, 40)
        },
        2,
    )
    .unwrap();
    let turn = |sequence, ids| Turn {
        sequence,
        ids,
        logits: Wanted::All,
    };
    let mut refusal = |turns: &[Turn<'_>], items: usize| {
        let nobody = |(): &mut (), _: &mut [f32]| panic!("no logits of a step that was refused");
        match batch.step(turns, &mut vec![(); items], nobody) {
            Err(CudaRuntimeError::Runtime(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let long = [1; 41];
    assert_eq!(refusal(&[], 0), RuntimeError::EmptyInput);
    assert_eq!(refusal(&[turn(0, &[])], 1), RuntimeError::EmptyInput);
    assert_eq!(
        refusal(&[turn(1, &[1]), turn(0, &[1])], 2),
        RuntimeError::Turns { sequence: 0 }
    );
    assert!(matches!(
        refusal(&[turn(2, &[1])], 1),
        RuntimeError::Option { name: "sequence", .. }
    ));
    assert!(matches!(
        refusal(&[turn(0, &long)], 1),
        RuntimeError::ContextFull { .. }
    ));
    assert!(matches!(
        refusal(&[turn(0, &[61])], 1),
        RuntimeError::UnknownToken { id: 61, .. }
    ));
    assert!(matches!(
        refusal(&[turn(0, &[1])], 2),
        RuntimeError::Option { name: "items", .. }
    ));
    let many = [turn(0, &long[..40]), turn(1, &long[..40])];
    assert!(matches!(refusal(&many, 2), RuntimeError::Option { name: "chunk", .. }));
    assert_eq!((batch.position(0), batch.position(1), batch.position(2)), (0, 0, 0));
    assert!(batch.copy(0, 2, 0).is_err() && batch.copy(0, 1, 1).is_err());

    let opened = |options: SessionOptions, sequences| match CudaBatch::new(&on_gpu, options, sequences) {
        Err(CudaRuntimeError::Runtime(RuntimeError::Option { name, .. })) => name,
        Err(error) => panic!("{error}"),
        Ok(_) => "opened",
    };
    let fits = options(KvType::F32, 40);
    assert_eq!(opened(fits, 6), "opened");
    assert_eq!(opened(fits, 0), "sequences");
    assert_eq!(opened(SessionOptions { context: 41, ..fits }, 6), "context");
    assert_eq!(opened(SessionOptions { chunk: 241, ..fits }, 6), "chunk");
    assert_eq!(opened(SessionOptions { logit_rows: 91, ..fits }, 6), "logit_rows");
    let wide = ModelConfig {
        head_dim: 144,
        ..for_gpu(config(), 40)
    };
    let wide = random_model(&wide, 7, FloatStorage::F32);
    let error = CudaBatch::new(&CudaModel::new(&gpu, &wide).unwrap(), fits, 6)
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "attention of many sequences: no kernel of the GPU takes heads of 144 values (up to 128)"
    );
    assert!(CudaModel::batch_memory(&wide, &fits, 6).is_err());
}

#[test]
fn what_a_cuda_batch_needs_is_known_before() {
    let _turn = turn();
    let Some(gpu) = gpu("memory of a batch") else { return };
    let config = ModelConfig {
        vocab_size: 3000,
        ..for_gpu(config(), 300)
    };
    for (storage, kv) in [FloatStorage::F16, FloatStorage::Int4, FloatStorage::Int8]
        .into_iter()
        .zip(KvType::ALL)
    {
        let model = random_model(&config, 9, storage);
        let options = options(kv, 300);
        let needed = CudaModel::batch_memory(&model, &options, SEQUENCES).unwrap().total() as f64;
        // Modules are loaded once.
        drop(CudaBatch::new(&CudaModel::new(&gpu, &model).unwrap(), options, SEQUENCES).unwrap());
        let before = gpu.free_memory().unwrap();
        let batch = CudaBatch::new(&CudaModel::new(&gpu, &model).unwrap(), options, SEQUENCES).unwrap();
        let taken = (before - gpu.free_memory().unwrap()) as f64;
        drop(batch);
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

/// Random numbers: a seed, and how many there have been.
struct Dice(u64, u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.1 += 1;
        Key::new(self.0, 78, 0).below(self.1, u32::MAX).into()
    }

    fn below(&mut self, most: usize) -> usize {
        self.next() as usize % most
    }
}

fn is_emulated(gpu: &Gpu) -> bool {
    gpu.properties().name.contains("emulated")
}

/// One test at a time: what is free on a GPU depends on all that run.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gpu(name: &str) -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            println!("SKIPPED (no GPU): {name}; {error}");
            None
        }
    }
}
