//! The promises of ARCHITECTURE.md §2.2 on random models over every option: prefill, decode, a resumed cache and
//! every number of threads give the same bits. The paths of a CPU are compared in `runtime_paths.rs`.

mod common;

use common::{Cut, all_logits, bits, config, every_option, options, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_model::config::{FeedForward, ModelConfig};
use onebit_model::runtime::{
    Executor, FloatStorage, KvType, LONGEST_DRAFT, Lookahead, Pool, RuntimeError, Serial, Session, SessionOptions,
};

const LEN: usize = 21;

#[test]
fn prefill_and_decode_agree_bit_for_bit() {
    for (name, config) in every_option() {
        let model = random_model(&config, 1, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, LEN, 2);
        let mut session = Session::new(&model, Serial, Isa::best(), options(1, 1)).unwrap();
        let decoded: Vec<_> = ids.iter().map(|&id| bits(session.decode(id).unwrap())).collect();
        assert!(
            decoded.iter().flatten().all(|&b| f32::from_bits(b).is_finite()),
            "{name}"
        );
        assert_ne!(decoded[0], decoded[LEN - 1], "{name}: the logits depend on the input");
        for (chunk, rows) in [(1, 1), (2, 2), (5, 3), (LEN, 4), (32, 32)] {
            let all = all_logits(&model, Serial, Isa::best(), options(chunk, rows), &ids);
            assert_eq!(all, decoded, "{name}, chunks of {chunk}");
        }
        // A cache filled by prefill and continued by decode, and the other way round.
        for split in [1, 7, LEN - 1] {
            let mut session = Session::new(&model, Serial, Isa::best(), options(8, 1)).unwrap();
            assert_eq!(
                bits(session.prefill(&ids[..split]).unwrap()),
                decoded[split - 1],
                "{name}, {split}"
            );
            for i in split..LEN {
                assert_eq!(bits(session.decode(ids[i]).unwrap()), decoded[i], "{name}, token {i}");
            }
            session.truncate(split);
            assert_eq!(session.position(), split);
            assert_eq!(
                bits(session.prefill(&ids[split..]).unwrap()),
                decoded[LEN - 1],
                "{name}, redone from {split}"
            );
            session.reset();
            assert_eq!(
                bits(session.prefill(&ids).unwrap()),
                decoded[LEN - 1],
                "{name}, after a reset"
            );
        }
    }
}

#[test]
fn reading_ahead_changes_no_logit() {
    let config = config();
    let model = random_model(&config, 8, FloatStorage::Stored);
    // A phrase said again and again, with a slip now and then, so that drafts come true, in part, and not at all.
    let phrase = random_ids(config.vocab_size, 7, 9);
    let mut ids: Vec<u32> = phrase.iter().copied().cycle().take(60).collect();
    for slip in [23, 31, 33, 48] {
        ids[slip] = (ids[slip] + 1) % config.vocab_size as u32;
    }
    let options = |rows| SessionOptions {
        context: 64,
        chunk: 16,
        logit_rows: rows,
        kv: KvType::F32,
    };
    let mut plain = Session::new(&model, Serial, Isa::best(), options(1)).unwrap();
    let expected: Vec<_> = ids.iter().map(|&id| bits(plain.decode(id).unwrap())).collect();
    for longest in [0, 1, 3, LONGEST_DRAFT] {
        let session = Session::new(&model, Serial, Isa::best(), options(longest + 1)).unwrap();
        let mut ahead = Lookahead::new(session, longest);
        for round in 0..2 {
            assert_eq!(bits(ahead.read(&ids[..5], None).unwrap()), expected[4], "round {round}");
            for i in 5..ids.len() {
                assert_eq!(
                    bits(ahead.next(ids[i], None).unwrap()),
                    expected[i],
                    "drafts of {longest}, token {i}"
                );
                assert_eq!(ahead.held(), &ids[..=i]);
            }
        }
        let counts = ahead.counts();
        assert_eq!(counts.drafted > 0, longest > 0);
        assert_eq!(counts.accepted > 20, longest > 0, "{counts:?}");
        assert!(counts.accepted < counts.drafted || longest == 0, "{counts:?}");
        // The context is full after four more, and a token that does not exist changes nothing.
        assert!(matches!(
            ahead.next(config.vocab_size as u32, None),
            Err(RuntimeError::UnknownToken { .. })
        ));
        for &id in &phrase[..4] {
            ahead.next(id, None).unwrap();
        }
        assert!(matches!(
            ahead.next(phrase[0], None),
            Err(RuntimeError::ContextFull { .. })
        ));
    }
}

#[test]
fn threads_and_cuts_change_no_bit() {
    for (name, config) in every_option() {
        let model = random_model(&config, 5, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, LEN, 6);
        let serial = all_logits(&model, Serial, Isa::best(), options(9, 4), &ids);
        for threads in [1, 2, 3, 5] {
            let exec = || Cut(3 * threads - 2, Pool::new(threads).unwrap());
            for chunk in [1, 3, 9] {
                let cut = all_logits(&model, exec(), Isa::best(), options(chunk, chunk.min(4)), &ids);
                assert!(cut == serial, "{name}, {threads} threads, chunks of {chunk}");
            }
        }
    }
}

#[test]
fn the_pool_cuts_a_larger_model_and_changes_no_bit() {
    let config = ModelConfig {
        vocab_size: 3001,
        hidden_size: 512,
        intermediate_size: 1400,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 64,
        ..config()
    };
    for storage in [FloatStorage::Bf16, FloatStorage::Int4] {
        cut_and_compare(&config, storage);
    }
}

fn cut_and_compare(config: &ModelConfig, storage: FloatStorage) {
    let model = random_model(config, 7, storage);
    assert!(
        Pool::new(2).unwrap().pieces(model.bytes_per_token()) > 1,
        "large enough to be cut"
    );
    let ids = random_ids(config.vocab_size, LEN, 8);
    let serial = all_logits(&model, Serial, Isa::best(), options(16, 8), &ids);
    for threads in [1, 2, 3, 5] {
        let pool = || Pool::new(threads).unwrap();
        assert!(
            all_logits(&model, pool(), Isa::best(), options(16, 8), &ids) == serial,
            "{storage:?}, prefill, {threads} threads"
        );
        assert!(
            all_logits(&model, pool(), Isa::best(), options(1, 1), &ids) == serial,
            "{storage:?}, decode, {threads} threads"
        );
    }
}

/// Chunks so long that the tokens are cut and not the rows.
#[test]
fn cutting_the_tokens_changes_no_bit() {
    for (name, mut config) in every_option() {
        config.max_position_embeddings = 512;
        let model = random_model(&config, 12, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, 301, 13);
        let options = |chunk| SessionOptions {
            chunk,
            ..SessionOptions::new(301)
        };
        let last = |exec: Cut, chunk| {
            let mut session = Session::new(&model, exec, Isa::best(), options(chunk)).unwrap();
            bits(session.prefill(&ids).unwrap())
        };
        let expected = last(Cut(1, Pool::new(1).unwrap()), 16);
        for pieces in [1, 2, 3] {
            let found = last(Cut(pieces, Pool::new(2).unwrap()), 301);
            assert_eq!(found, expected, "{name}, {pieces} pieces");
        }
    }
}

#[test]
fn columns_of_down_proj_change_no_bit() {
    // Rows of the columns: one line and less, a line and more, several for each thread.
    for (hidden, heads, feed_forward) in [
        (64, 4, FeedForward::Relu2Gated),
        (320, 4, FeedForward::Relu2),
        (1152, 8, FeedForward::Relu2Gated),
        (64, 4, FeedForward::SwiGlu),
    ] {
        let config = ModelConfig {
            hidden_size: hidden,
            intermediate_size: 333,
            num_attention_heads: heads,
            num_key_value_heads: 2,
            head_dim: 16,
            feed_forward,
            ..config()
        };
        let rows = random_model(&config, 21, FloatStorage::Stored);
        let columns = rows.clone().with_columns();
        assert_eq!(rows.bytes().columns, 0);
        let lines = 2 * 333 * hidden.div_ceil(256);
        let expected = if feed_forward == FeedForward::SwiGlu {
            0
        } else {
            64 * lines
        };
        assert_eq!(columns.bytes().columns, expected);
        let ids = random_ids(config.vocab_size, LEN, 22);
        let want = all_logits(&rows, Serial, Isa::SCALAR, options(LEN, 2), &ids);
        for isa in Isa::available() {
            // One token at a time, which reads the columns, and several, which do not.
            for chunk in [1, 8] {
                let serial = all_logits(&columns, Serial, isa, options(chunk, 1), &ids);
                assert!(serial == want, "{hidden}, chunks of {chunk}, {}", isa.name());
                for pieces in [2, 4] {
                    let cut = Cut(pieces, Pool::new(2).unwrap());
                    let same = all_logits(&columns, cut, isa, options(chunk, 1), &ids) == want;
                    assert!(same, "{hidden}, chunks of {chunk}, {pieces} pieces, {}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    for (name, config) in every_option() {
        let model = random_model(&config, 9, FloatStorage::Stored);
        let ids = random_ids(config.vocab_size, LEN, 10);
        let before = all_logits(&model, Serial, Isa::best(), options(32, 32), &ids);
        for at in [5, LEN - 1] {
            let mut changed = ids.clone();
            changed[at] = (ids[at] + 1) % config.vocab_size as u32;
            let after = all_logits(&model, Serial, Isa::best(), options(32, 32), &changed);
            assert_eq!(after[..at], before[..at], "{name}");
            assert_ne!(after[at], before[at], "{name}");
        }
    }
}

#[test]
fn each_option_changes_the_output() {
    let base = config();
    let ids = random_ids(base.vocab_size, LEN, 11);
    let logits = |config: &ModelConfig| {
        let model = random_model(config, 12, FloatStorage::Stored);
        all_logits(&model, Serial, Isa::best(), options(8, 8), &ids)[LEN - 1].clone()
    };
    let before = logits(&base);
    for other in [
        ModelConfig {
            qk_norm: true,
            ..config()
        },
        ModelConfig {
            sub_norms: false,
            ..config()
        },
        ModelConfig {
            residual_scaling: true,
            ..config()
        },
        ModelConfig {
            feed_forward: FeedForward::SwiGlu,
            ..config()
        },
        ModelConfig {
            feed_forward: FeedForward::Relu2,
            ..config()
        },
        ModelConfig {
            tie_word_embeddings: false,
            ..config()
        },
        ModelConfig {
            final_logit_softcapping: Some(0.7),
            ..config()
        },
        ModelConfig {
            rope_theta: 500.0,
            ..config()
        },
        ModelConfig {
            rms_norm_eps: 0.5,
            ..config()
        },
    ] {
        assert_ne!(logits(&other), before, "{other:?}");
    }
}

#[test]
fn errors_leave_the_session_as_it_was() {
    let config = config();
    let model = random_model(&config, 13, FloatStorage::Stored);
    let ids = random_ids(config.vocab_size, 32, 14);
    let mut session = Session::new(&model, Serial, Isa::best(), options(8, 1)).unwrap();
    assert_eq!(session.prefill(&[]), Err(RuntimeError::EmptyInput));
    session.prefill(&ids[..20]).unwrap();
    let full = RuntimeError::ContextFull {
        position: 20,
        more: 13,
        limit: 32,
    };
    assert_eq!(
        session.prefill(&random_ids(config.vocab_size, 13, 1)),
        Err(full.clone())
    );
    assert_eq!(
        session.prefill_all(&random_ids(config.vocab_size, 13, 1), |_, _| unreachable!()),
        Err(full)
    );
    let unknown = RuntimeError::UnknownToken {
        id: 61,
        index: 1,
        vocab_size: 61,
    };
    assert_eq!(session.prefill(&[3, 61]), Err(unknown));
    assert_eq!(session.position(), 20);
    let last = bits(session.prefill(&ids[20..]).unwrap());
    assert_eq!(
        session.decode(1),
        Err(RuntimeError::ContextFull {
            position: 32,
            more: 1,
            limit: 32
        })
    );
    let all = all_logits(&model, Serial, Isa::best(), options(32, 1), &ids);
    assert_eq!(all[31], last, "refused input left no trace");
}

#[test]
fn options_outside_their_range_are_refused() {
    let model = random_model(&config(), 15, FloatStorage::Stored);
    for (context, chunk, logit_rows, name) in [
        (0, 1, 1, "context"),
        (129, 1, 1, "context"),
        (8, 9, 1, "chunk"),
        (8, 0, 1, "chunk"),
        (8, 4, 5, "logit_rows"),
    ] {
        let options = SessionOptions {
            context,
            chunk,
            logit_rows,
            kv: KvType::F32,
        };
        match Session::new(&model, Serial, Isa::best(), options).map(|_| ()) {
            Err(RuntimeError::Option { name: found, .. }) => assert_eq!(found, name),
            other => panic!("{other:?}"),
        }
    }
    let huge = ModelConfig {
        max_position_embeddings: 1 << 24,
        num_hidden_layers: 4096,
        ..config()
    };
    let needed = SessionOptions::new(1 << 24).memory_bytes(&huge, &Serial).unwrap();
    assert!(needed > 4 * 2 * 4096 * 32 * (1 << 24), "{needed}");
}
