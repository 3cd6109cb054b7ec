//! Texts drawn with the sketch of the head are those drawn with the whole head, token for token.

mod common;

use common::{config, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::{
    FloatStorage, Lookahead, PackedModel, Pool, Serial, Session, SessionOptions, SketchCounts, Top,
};
use onebit_model::sampling::{Sampler, SamplingParams};

/// What texts are drawn with: greedy or not, with and without a penalty, few and many of the largest logits.
fn samplings() -> Vec<SamplingParams> {
    let base = SamplingParams {
        repetition_penalty: 1.0,
        top_p: 1.0,
        ..SamplingParams::default()
    };
    vec![
        SamplingParams::greedy(),
        SamplingParams {
            repetition_penalty: 1.3,
            ..SamplingParams::greedy()
        },
        SamplingParams { top_k: 3, ..base },
        SamplingParams {
            top_k: 12,
            repetition_penalty: 1.2,
            temperature: 1.5,
            ..base
        },
        SamplingParams {
            top_k: 40,
            top_p: 0.9,
            ..SamplingParams::default()
        },
    ]
}

/// `tokens` tokens after `prompt`, and what the search did.
fn text(
    model: &PackedModel,
    params: SamplingParams,
    prompt: &[u32],
    tokens: usize,
    drafts: usize,
) -> (Vec<u32>, SketchCounts) {
    let options = SessionOptions {
        chunk: 16,
        logit_rows: drafts + 1,
        ..SessionOptions::new(prompt.len() + tokens)
    };
    let pool = Pool::new(2).unwrap();
    let mut reader = Lookahead::new(Session::new(model, pool, Isa::best(), options).unwrap(), drafts);
    let mut sampler = Sampler::new(params, model.config().vocab_size).unwrap();
    let mut history = prompt.to_vec();
    for _ in 0..tokens {
        let except = if params.repetition_penalty == 1.0 {
            &[][..]
        } else {
            &history
        };
        let top = sampler.needed().map(|count| Top { count, except });
        let logits = match history.len() == prompt.len() {
            true => reader.read(prompt, top),
            false => reader.next(*history.last().unwrap(), top),
        };
        let id = sampler.sample(logits.unwrap(), &history).unwrap();
        history.push(id);
    }
    (history, reader.session().sketch_counts())
}

fn compare(whole: &PackedModel, rounds: u64, tokens: usize) {
    let mut sketched = whole.clone();
    sketched.sketch_head(&Serial, Isa::best());
    assert!(sketched.sketch().is_some());
    for params in samplings() {
        for round in 0..rounds {
            let params = SamplingParams { seed: round, ..params };
            let prompt = random_ids(whole.config().vocab_size, 5, 50 + round);
            let (expected, none) = text(whole, params, &prompt, tokens, 0);
            assert_eq!(none, SketchCounts::default());
            for drafts in [0, 3] {
                let (found, counts) = text(&sketched, params, &prompt, tokens, drafts);
                assert_eq!(found, expected, "{params:?}, drafts of {drafts}");
                assert!(counts.searched > 0, "{params:?}: {counts:?}");
                // Of logits that are all the cap every row can win.
                if whole.config().final_logit_softcapping.is_some_and(|cap| cap < 5.0) {
                    continue;
                }
                assert!(counts.whole < counts.searched, "{params:?}: {counts:?}");
                assert!(counts.rows < (counts.searched - counts.whole) * whole.config().vocab_size);
            }
        }
    }
}

#[test]
fn texts_of_a_random_model_are_the_same() {
    for tied in [true, false] {
        let config = ModelConfig {
            hidden_size: 128,
            vocab_size: 3000,
            tie_word_embeddings: tied,
            max_position_embeddings: 512,
            ..config()
        };
        for storage in [FloatStorage::F16, FloatStorage::Int8, FloatStorage::Int4] {
            let model = random_model(&config, 11, storage);
            compare(&model, 2, 150);
        }
    }
}

/// The logits are some 40 at most: a cap that makes many of them equal, and two of their size.
#[test]
fn texts_of_a_capped_model_are_the_same() {
    for cap in [2.0, 10.0, 30.0] {
        let config = ModelConfig {
            hidden_size: 128,
            vocab_size: 3000,
            max_position_embeddings: 512,
            final_logit_softcapping: Some(cap),
            ..config()
        };
        compare(&random_model(&config, 11, FloatStorage::F16), 2, 150);
    }
}
