mod distribution;
mod stop;

use alloc::format;
use alloc::vec::Vec;

use onebit_kernels_cpu::rng::Key;

use super::*;

/// No filter, no penalty, temperature 1.
fn plain() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        seed: 3,
    }
}

fn logits(seed: u64, n: usize) -> Vec<f32> {
    let key = Key::new(seed, 1, 0);
    (0..n as u64).map(|i| 2.0 * key.normal(i)).collect()
}

#[test]
fn greedy_takes_the_lowest_of_the_largest() {
    let mut sampler = Sampler::new(SamplingParams::greedy(), 5).unwrap();
    assert_eq!(sampler.sample(&mut [0.0, 2.0, -1.0, 2.0, 1.0], &[1]), Ok(1));
    assert_eq!(
        sampler.sample(&mut [f32::NEG_INFINITY, -2.0, -1.0, -1.0, -3.0], &[]),
        Ok(2)
    );
    // A vanishing temperature is greedy too, and top-k 1 as well.
    for params in [
        SamplingParams {
            temperature: 1e-38,
            ..plain()
        },
        SamplingParams {
            temperature: f32::from_bits(1),
            ..plain()
        },
        SamplingParams { top_k: 1, ..plain() },
        SamplingParams {
            top_p: f32::MIN_POSITIVE,
            ..plain()
        },
        SamplingParams { min_p: 1.0, ..plain() },
    ] {
        let mut sampler = Sampler::new(params, 4).unwrap();
        for _ in 0..50 {
            assert_eq!(sampler.sample(&mut [1.0, 3.0, 2.9, f32::MIN], &[]), Ok(1), "{params:?}");
        }
    }
}

#[test]
fn repetition_penalty_is_applied_once_per_seen_token() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        ..SamplingParams::greedy()
    };
    let mut sampler = Sampler::new(params, 5).unwrap();
    for _ in 0..3 {
        let mut x = [4.0, -1.0, 3.0, 0.0, f32::NEG_INFINITY];
        assert_eq!(sampler.sample(&mut x, &[0, 1, 0, 3, 4, 0]), Ok(2));
        assert_eq!(x, [2.0, -2.0, 3.0, 0.0, f32::NEG_INFINITY]);
    }
    // A reward instead of a penalty that overflows stays a usable logit.
    let params = SamplingParams {
        repetition_penalty: 1e-30,
        ..SamplingParams::greedy()
    };
    let mut sampler = Sampler::new(params, 2).unwrap();
    assert_eq!(sampler.sample(&mut [2e9, 3e9], &[0]), Ok(0));
}

#[test]
fn same_seed_same_tokens() {
    let x = logits(2, 500);
    let draw = |sampler: &mut Sampler| -> Vec<u32> {
        let mut history = Vec::new();
        for _ in 0..40 {
            let token = sampler.sample(&mut x.clone(), &history).unwrap();
            history.push(token);
        }
        history
    };
    let mut sampler = Sampler::new(SamplingParams::default(), 500).unwrap();
    let first = draw(&mut sampler);
    let second = draw(&mut sampler);
    assert_ne!(first, second, "the stream goes on");
    sampler.reset();
    assert_eq!(first, draw(&mut sampler));
    let mut other = Sampler::new(
        SamplingParams {
            seed: 1,
            ..Default::default()
        },
        500,
    )
    .unwrap();
    assert_ne!(first, draw(&mut other));
}

#[test]
fn sampling_allocates_nothing() {
    for params in [
        plain(),
        SamplingParams::default(),
        SamplingParams { top_p: 0.99, ..plain() },
    ] {
        let mut sampler = Sampler::new(params, 3000).unwrap();
        let before = sampler.capacities();
        for seed in 0..5 {
            sampler.sample(&mut logits(seed, 3000), &[1, 2]).unwrap();
        }
        // Ascending logits beat the threshold every time.
        let mut rising: Vec<f32> = (0..3000).map(|i| i as f32 / 300.0).collect();
        sampler.sample(&mut rising, &[]).unwrap();
        assert_eq!(sampler.capacities(), before, "{params:?}");
    }
}

#[test]
fn bad_logits_and_histories_are_errors() {
    for params in [
        SamplingParams::default(),
        SamplingParams {
            repetition_penalty: 1.1,
            ..SamplingParams::greedy()
        },
    ] {
        let mut sampler = Sampler::new(params, 3).unwrap();
        assert!(matches!(
            sampler.sample(&mut [0.0, f32::NAN, 1.0], &[]),
            Err(SamplingError::BadLogit { token: 1, .. })
        ));
        let infinite = Err(SamplingError::BadLogit {
            token: 2,
            found: f32::INFINITY,
        });
        assert_eq!(sampler.sample(&mut [0.0, 1.0, f32::INFINITY], &[]), infinite);
        assert_eq!(
            sampler.sample(&mut [f32::NEG_INFINITY; 3], &[]),
            Err(SamplingError::NoToken)
        );
        assert_eq!(
            sampler.sample(&mut [0.0; 2], &[]),
            Err(SamplingError::LogitCount { expected: 3, found: 2 })
        );
        assert_eq!(
            sampler.sample(&mut [0.0; 3], &[3]),
            Err(SamplingError::UnknownToken { token: 3, vocab: 3 })
        );
        // An error uses up no random number.
        assert_eq!(sampler.sample(&mut [9.0, -90.0, -90.0], &[]), Ok(0));
    }
}

#[test]
fn params_are_validated() {
    let good = SamplingParams::default();
    assert_eq!(good.validate(), Ok(()));
    for (bad, name) in [
        (
            SamplingParams {
                temperature: -0.1,
                ..good
            },
            "temperature",
        ),
        (
            SamplingParams {
                temperature: f32::NAN,
                ..good
            },
            "temperature",
        ),
        (
            SamplingParams {
                temperature: f32::INFINITY,
                ..good
            },
            "temperature",
        ),
        (SamplingParams { top_p: 0.0, ..good }, "top_p"),
        (SamplingParams { top_p: 1.01, ..good }, "top_p"),
        (
            SamplingParams {
                top_p: f32::NAN,
                ..good
            },
            "top_p",
        ),
        (SamplingParams { min_p: -0.01, ..good }, "min_p"),
        (
            SamplingParams {
                min_p: f32::NAN,
                ..good
            },
            "min_p",
        ),
        (
            SamplingParams {
                repetition_penalty: 0.0,
                ..good
            },
            "repetition_penalty",
        ),
        (
            SamplingParams {
                repetition_penalty: f32::INFINITY,
                ..good
            },
            "repetition_penalty",
        ),
    ] {
        let error = Sampler::new(bad, 10).unwrap_err();
        assert!(format!("{error}").contains(name), "{error}");
    }
    assert_eq!(
        Sampler::new(good, 0).unwrap_err(),
        SamplingError::VocabularySize { found: 0 }
    );
}
