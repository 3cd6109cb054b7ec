//! Many sequences in one pass have the bits that each has alone.
#![cfg(feature = "std")]

mod common;

use common::{Cut, bits, every_option, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::attention::cached::KvType;
use onebit_kernels_cpu::int8_gemm;
use onebit_kernels_cpu::rng::Key;
use onebit_model::runtime::{
    Batch, Executor, FloatStorage, PackedModel, Pool, RuntimeError, Serial, Session, SessionOptions, Top, Turn, Wanted,
};

const SEQUENCES: usize = 5;
const CONTEXT: usize = 32;

fn options(kv: KvType) -> SessionOptions {
    SessionOptions {
        context: CONTEXT,
        chunk: 48,
        logit_rows: SEQUENCES,
        kv,
    }
}

/// What a text's every prefix has for logits, alone.
fn alone(model: &PackedModel, isa: Isa, kv: KvType, ids: &[u32]) -> Vec<Vec<u32>> {
    let mut session = Session::new(
        model,
        Serial,
        isa,
        SessionOptions {
            kv,
            ..SessionOptions::new(CONTEXT)
        },
    )
    .unwrap();
    let mut all = Vec::new();
    session.prefill_all(ids, |_, logits| all.push(bits(logits))).unwrap();
    all
}

const TOP: Top<'static> = Top { count: 3, except: &[2] };

/// That the largest logits are there with their bits, and of others nothing or their bits.
fn assert_top(found: &[f32], expected: &[u32], top: Top<'_>, what: &str) {
    let expected: Vec<f32> = expected.iter().map(|bits| f32::from_bits(*bits)).collect();
    let mut counted: Vec<f32> = (0u32..)
        .zip(&expected)
        .filter(|(id, _)| !top.except.contains(id))
        .map(|(_, logit)| *logit)
        .collect();
    counted.sort_by(|a, b| b.total_cmp(a));
    let least = counted[top.count - 1];
    for (got, want) in found.iter().zip(&expected) {
        let there = got.to_bits() == want.to_bits();
        assert!(
            there || (*got == f32::NEG_INFINITY && *want < least),
            "{what}: {got} for {want}"
        );
    }
}

/// Reads the texts in random turns and compares every row of logits that comes.
fn in_turns<E: Executor>(model: &PackedModel, exec: E, isa: Isa, kv: KvType, seed: u64, what: &str) {
    let vocab = model.config().vocab_size;
    let texts: Vec<Vec<u32>> = (0..SEQUENCES as u64)
        .map(|i| random_ids(vocab, CONTEXT - i as usize, seed + i))
        .collect();
    let expected: Vec<_> = texts.iter().map(|ids| alone(model, isa, kv, ids)).collect();
    let mut batch = Batch::new(model, exec, isa, options(kv), SEQUENCES).unwrap();
    batch.add_shortlist().unwrap();
    let key = Key::new(seed, 77, 0);
    let mut draw = 0;
    let mut below = |n: u32| {
        draw += 1;
        key.below(draw, n) as usize
    };
    let mut compared = 0;
    while (0..SEQUENCES).any(|i| batch.position(i) < texts[i].len()) {
        let mut turns = Vec::new();
        let mut room = 48;
        for (sequence, text) in texts.iter().enumerate() {
            let (held, left) = (batch.position(sequence), text.len() - batch.position(sequence));
            // Many at once, one, or none.
            let count = [0, 1, 1, below(14)][below(4)].min(left).min(room);
            room -= count;
            if count > 0 {
                let logits = match below(5) {
                    0 => Wanted::Nothing,
                    1 | 2 => Wanted::All,
                    _ => Wanted::Top(TOP),
                };
                let ids = &text[held..held + count];
                turns.push(Turn { sequence, ids, logits });
            }
        }
        if turns.is_empty() {
            continue;
        }
        let ends: Vec<(usize, usize)> = (turns.iter())
            .map(|turn| (turn.sequence, batch.position(turn.sequence) + turn.ids.len()))
            .collect();
        let mut told: Vec<(usize, Vec<f32>)> = (turns.iter().enumerate())
            .filter(|(_, turn)| turn.logits != Wanted::Nothing)
            .map(|(i, _)| (i, Vec::new()))
            .collect();
        batch
            .step(&turns, &mut told, |(_, told), logits| *told = logits.to_vec())
            .unwrap();
        for (turn, found) in told {
            let (sequence, end) = ends[turn];
            let expected = &expected[sequence][end - 1];
            let what = format!("{what}: sequence {sequence} at {end}");
            match turns[turn].logits {
                Wanted::Top(top) => assert_top(&found, expected, top, &what),
                _ => assert!(bits(&found) == *expected, "{what}"),
            }
            compared += 1;
        }
        assert!(ends.iter().all(|&(sequence, end)| batch.position(sequence) == end));
    }
    assert!(compared > 2 * SEQUENCES, "{compared}");
}

#[test]
fn every_option_of_the_network_has_the_bits_of_a_session() {
    for (name, config) in every_option() {
        let model = random_model(&config, 5, FloatStorage::F32);
        for isa in Isa::available() {
            in_turns(&model, Serial, isa, KvType::F32, 1, &format!("{name} {}", isa.name()));
        }
    }
}

#[test]
fn threads_cuts_and_types_of_cache_do_not_matter() {
    let config = common::config();
    for storage in [FloatStorage::F16, FloatStorage::Int8, FloatStorage::Int4] {
        let model = random_model(&config, 6, storage);
        for kv in [KvType::F32, KvType::F16, KvType::Int8] {
            let what = format!("{storage:?} {kv:?}");
            in_turns(&model, Pool::new(2).unwrap(), Isa::best(), kv, 2, &what);
            for pieces in [1, 3, 64] {
                in_turns(&model, Cut(pieces, Pool::new(3).unwrap()), Isa::best(), kv, 3, &what);
            }
        }
    }
}

#[test]
fn of_a_large_vocabulary_few_logits_are_computed() {
    let mut config = common::config();
    config.vocab_size = 1000;
    for storage in [FloatStorage::F16, FloatStorage::Int8] {
        let model = random_model(&config, 8, storage);
        let mut batch = Batch::new(
            &model,
            Pool::new(2).unwrap(),
            Isa::best(),
            options(KvType::F32),
            SEQUENCES,
        )
        .unwrap();
        batch.add_shortlist().unwrap();
        let texts: Vec<Vec<u32>> = (0..SEQUENCES as u64).map(|i| random_ids(1000, 7, i)).collect();
        let turns: Vec<Turn<'_>> = texts
            .iter()
            .enumerate()
            .map(|(sequence, ids)| Turn {
                sequence,
                ids,
                logits: match sequence {
                    2 => Wanted::All,
                    _ => Wanted::Top(TOP),
                },
            })
            .collect();
        let mut told = vec![Vec::new(); SEQUENCES];
        batch
            .step(&turns, &mut told, |told, logits| *told = logits.to_vec())
            .unwrap();
        for (sequence, found) in told.iter().enumerate() {
            let expected = alone(&model, Isa::best(), KvType::F32, &texts[sequence]).pop().unwrap();
            let there = found.iter().filter(|logit| logit.is_finite()).count();
            if sequence == 2 {
                assert!(bits(found) == expected);
                continue;
            }
            assert_top(found, &expected, TOP, &format!("{storage:?} sequence {sequence}"));
            let most = if int8_gemm::has_tiles(Isa::best()) { 125 } else { 1000 };
            assert!(there <= most, "{there} logits");
        }
    }
}

#[test]
fn the_smallest_chunks_have_room_for_what_they_need() {
    let mut config = common::config();
    config.vocab_size = 1000;
    let model = random_model(&config, 8, FloatStorage::Int8);
    let text = random_ids(1000, 9, 4);
    let expected = alone(&model, Isa::best(), KvType::F32, &text);
    for chunk in [1, 2, 3, 4] {
        let options = SessionOptions {
            chunk,
            logit_rows: 1,
            ..options(KvType::F32)
        };
        let mut batch = Batch::new(&model, Pool::new(2).unwrap(), Isa::best(), options, 2).unwrap();
        batch.add_shortlist().unwrap();
        let mut told = [Vec::new()];
        for ids in text.chunks(chunk) {
            let turn = Turn {
                sequence: 1,
                ids,
                logits: Wanted::Top(TOP),
            };
            batch
                .step(&[turn], &mut told, |told, logits| *told = logits.to_vec())
                .unwrap();
        }
        assert_top(&told[0], &expected[8], TOP, &format!("chunks of {chunk}"));
    }
}

#[test]
fn a_copy_goes_on_as_the_text_that_it_is_a_copy_of() {
    let model = random_model(&common::config(), 7, FloatStorage::F32);
    let vocab = model.config().vocab_size;
    for kv in [KvType::F32, KvType::F16, KvType::Int8] {
        let text = random_ids(vocab, 20, 9);
        let expected = alone(&model, Isa::best(), kv, &text);
        let mut batch = Batch::new(&model, Serial, Isa::best(), options(kv), 3).unwrap();
        for (from, to) in [(1, 0), (1, 2), (2, 2)] {
            batch.truncate(1, 0);
            batch.truncate(to, 0);
            let read = Turn {
                sequence: from,
                ids: &text[..17],
                logits: Wanted::Nothing,
            };
            if batch.position(from) == 0 {
                let nobody: &mut [()] = &mut [];
                batch
                    .step(&[read], nobody, |_, _| panic!("no logits were asked for"))
                    .unwrap();
            }
            batch.copy(from, to, 13).unwrap();
            assert_eq!(batch.position(to), 13);
            let mut found = [Vec::new()];
            let rest = Turn {
                sequence: to,
                ids: &text[13..],
                logits: Wanted::All,
            };
            batch
                .step(&[rest], &mut found, |found, logits| *found = bits(logits))
                .unwrap();
            assert!(found[0] == expected[19], "{kv:?} {from} to {to}");
        }
        // What was copied from is as it was.
        let before = batch.position(1);
        assert!(matches!(
            batch.copy(0, 1, 21),
            Err(RuntimeError::Snapshot { expected: 21, .. })
        ));
        assert!(matches!(
            batch.copy(0, 3, 1),
            Err(RuntimeError::Option { name: "sequence", .. })
        ));
        assert_eq!(batch.position(1), before);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let model = random_model(&common::config(), 7, FloatStorage::F32);
    let vocab = model.config().vocab_size as u32;
    let mut batch = Batch::new(&model, Serial, Isa::best(), options(KvType::F32), 2).unwrap();
    let long = vec![1; CONTEXT + 1];
    let turn = |sequence, ids| Turn {
        sequence,
        ids,
        logits: Wanted::All,
    };
    let nobody = |_: &mut (), _: &mut [f32]| panic!("no logits of a step that was refused");
    assert_eq!(batch.step(&[], &mut [], nobody), Err(RuntimeError::EmptyInput));
    assert_eq!(
        batch.step(&[turn(0, &[])], &mut [()], nobody),
        Err(RuntimeError::EmptyInput)
    );
    for turns in [[turn(1, &[1]), turn(0, &[1])], [turn(1, &[1]), turn(1, &[1])]] {
        assert!(matches!(
            batch.step(&turns, &mut [(); 2], nobody),
            Err(RuntimeError::Turns { .. })
        ));
    }
    let of = |batch: &mut Batch<&PackedModel>, turns: &[Turn<'_>]| {
        batch.step(turns, &mut vec![(); turns.len()], nobody).unwrap_err()
    };
    for items in [0, 2] {
        let wrong = batch.step(&[turn(0, &[1])], &mut vec![(); items], nobody).unwrap_err();
        assert!(matches!(wrong, RuntimeError::Option { name: "items", .. }));
    }
    assert!(matches!(
        of(&mut batch, &[turn(2, &[1])]),
        RuntimeError::Option {
            name: "sequence",
            found: 2,
            ..
        }
    ));
    assert!(matches!(
        of(&mut batch, &[turn(0, &long)]),
        RuntimeError::ContextFull { position: 0, .. }
    ));
    let ids = [0, vocab];
    assert!(matches!(
        of(&mut batch, &[turn(0, &[1]), turn(1, &ids)]),
        RuntimeError::UnknownToken { index: 1, .. }
    ));
    let many = [turn(0, &long[..CONTEXT]), turn(1, &long[..CONTEXT])];
    assert!(matches!(
        of(&mut batch, &many),
        RuntimeError::Option {
            name: "chunk",
            found: 64,
            limit: 48
        }
    ));
    assert_eq!((batch.position(0), batch.position(1)), (0, 0));
    assert!(Batch::new(&model, Serial, Isa::best(), options(KvType::F32), 0).is_err());
}
