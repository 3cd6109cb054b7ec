use alloc::format;
use alloc::string::String;
use alloc::vec;
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

/// As [`logits`], of few distinct values, so that there are many ties.
fn tied_logits(seed: u64, n: usize) -> Vec<f32> {
    logits(seed, n).iter().map(|x| (x * 2.0) as i32 as f32 / 2.0).collect()
}

/// The probabilities that remain after all filters, by sorting everything, in f64.
fn oracle(logits: &[f32], p: &SamplingParams) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).filter(|i| logits[*i] > f32::NEG_INFINITY).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if p.top_k > 0 {
        order.truncate(p.top_k);
    }
    let most = f64::from(logits[order[0]]);
    let weight = |i: usize| exp((f64::from(logits[i]) - most) / f64::from(p.temperature));
    let total: f64 = order.iter().map(|i| weight(*i)).sum();
    let mut mass = 0.0;
    let mut kept = Vec::new();
    for i in order {
        if p.top_p < 1.0 && mass >= f64::from(p.top_p) * total {
            break;
        }
        mass += weight(i);
        kept.push(i);
    }
    kept.retain(|i| weight(*i) >= f64::from(p.min_p));
    let total: f64 = kept.iter().map(|i| weight(*i)).sum();
    let mut all = vec![0.0; logits.len()];
    for i in kept {
        all[i] = weight(i) / total;
    }
    all
}

/// e^x by its series, without `std`: (1 + y + y²/2 + …)^1024 for y = x/1024.
fn exp(x: f64) -> f64 {
    let y = x / 1024.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for i in 1..20 {
        term *= y / f64::from(i);
        sum += term;
    }
    for _ in 0..10 {
        sum *= sum;
    }
    sum
}

fn counts(params: SamplingParams, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(params, logits.len()).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(&mut logits.to_vec(), &[]).unwrap() as usize] += 1;
    }
    counts
}

/// Every draw has a token that the oracle allows, and the counts pass a chi-square test at about 4.5 standard deviations.
fn check_distribution(params: SamplingParams, logits: &[f32], draws: usize) {
    let expected = oracle(logits, &params);
    let (mut chi, mut freedom) = (0.0, -1.0);
    let (mut rare_seen, mut rare_expected) = (0.0, 0.0);
    for (i, (seen, p)) in counts(params, logits, draws).into_iter().zip(&expected).enumerate() {
        let (seen, e) = (seen as f64, p * draws as f64);
        assert!(
            seen == 0.0 || e > 0.0,
            "token {i} is filtered out but was drawn: {params:?}"
        );
        if e >= 5.0 {
            chi += (seen - e) * (seen - e) / e;
            freedom += 1.0;
        } else {
            rare_seen += seen;
            rare_expected += e;
        }
    }
    if rare_expected >= 5.0 {
        chi += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
        freedom += 1.0;
    }
    // Squared: (chi − freedom)² ≤ 4.5² · 2 · freedom.
    let far = chi - freedom;
    assert!(
        far <= 0.0 || far * far <= 20.25 * 2.0 * freedom.max(1.0),
        "chi² {chi} of {freedom}: {params:?}"
    );
}

#[test]
fn draws_follow_the_probabilities() {
    let x = logits(1, 60);
    check_distribution(plain(), &x, 20_000);
    check_distribution(
        SamplingParams {
            temperature: 0.6,
            ..plain()
        },
        &x,
        20_000,
    );
    check_distribution(
        SamplingParams {
            temperature: 3.0,
            ..plain()
        },
        &x,
        20_000,
    );
    check_distribution(SamplingParams { top_k: 7, ..plain() }, &x, 20_000);
    check_distribution(SamplingParams { top_p: 0.6, ..plain() }, &x, 20_000);
    check_distribution(SamplingParams { min_p: 0.1, ..plain() }, &x, 20_000);
    check_distribution(
        SamplingParams {
            repetition_penalty: 1.0,
            ..Default::default()
        },
        &x,
        20_000,
    );
}

#[test]
fn the_chi_square_test_sees_a_wrong_distribution() {
    let x = logits(1, 60);
    let cold = counts(
        SamplingParams {
            temperature: 0.9,
            ..plain()
        },
        &x,
        20_000,
    );
    let expected = oracle(&x, &plain());
    let chi: f64 = cold
        .iter()
        .zip(&expected)
        .filter(|(_, p)| **p * 20_000.0 >= 5.0)
        .map(|(c, p)| (*c as f64 - p * 20_000.0) * (*c as f64 - p * 20_000.0) / (p * 20_000.0))
        .sum();
    assert!(chi > 200.0, "{chi}");
}

/// Tokens with a positive weight after the filters, through the sampler's own steps.
fn kept(params: &SamplingParams, logits: &[f32]) -> Vec<u32> {
    let mut c = Vec::new();
    filters::top_k(logits, params.top_k, &mut c);
    let most = c.iter().fold(f32::NEG_INFINITY, |a, c| a.max(c.logit));
    for c in &mut c {
        c.weight = exp(f64::from((c.logit - most) / params.temperature)) as f32;
    }
    if params.top_p < 1.0 {
        filters::top_p(&mut c, params.top_p);
    }
    if params.min_p > 0.0 {
        filters::min_p(&mut c, params.min_p);
    }
    let mut ids: Vec<u32> = c.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn filters_match_sorting_everything() {
    for n in [1, 2, 17, 64, 65, 300, 1031] {
        for seed in 0..4 {
            for x in [logits(seed, n), tied_logits(seed, n)] {
                for top_k in [0, 1, 2, 5, 50, 64, 301, 5000] {
                    for (top_p, min_p) in [
                        (1.0, 0.0),
                        (0.013, 0.0),
                        (0.5, 0.0),
                        (0.9, 0.0),
                        (0.997, 0.0),
                        (1.0, 0.05),
                        (0.83, 0.031),
                    ] {
                        let params = SamplingParams {
                            top_k,
                            top_p,
                            min_p,
                            temperature: 0.9,
                            ..plain()
                        };
                        let want: Vec<u32> = (0..)
                            .zip(oracle(&x, &params))
                            .filter(|(_, p)| *p > 0.0)
                            .map(|(i, _)| i)
                            .collect();
                        assert_eq!(kept(&params, &x), want, "n={n} seed={seed} {params:?}");
                        if top_p == 1.0 && min_p == 0.0 && top_k > 0 {
                            assert_eq!(want.len(), top_k.min(n));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_kept_token_can_be_drawn_and_no_other() {
    let x = tied_logits(5, 40);
    let params = SamplingParams {
        top_k: 12,
        top_p: 0.9,
        min_p: 0.02,
        temperature: 1.4,
        ..plain()
    };
    let drawn: Vec<u32> = (0..)
        .zip(counts(params, &x, 20_000))
        .filter(|(_, c)| *c > 0)
        .map(|(i, _)| i)
        .collect();
    assert_eq!(drawn, kept(&params, &x));
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

/// All text released for `pieces`, and whether it stopped.
fn stream<'a>(stops: &[&str], pieces: impl Iterator<Item = &'a str>) -> (String, bool) {
    let mut watcher = StopStrings::new(stops.iter().copied()).unwrap();
    let mut all = String::new();
    for piece in pieces {
        all.push_str(watcher.push(piece).text);
    }
    let stopped = watcher.stopped();
    all.push_str(watcher.finish());
    assert_eq!(watcher.finish(), "", "released twice");
    (all, stopped)
}

/// The text up to the stop string that ends first (the longest of these), by trying every end.
fn stop_oracle(stops: &[&str], text: &str) -> (String, bool) {
    for (at, c) in text.char_indices() {
        let so_far = &text[..at + c.len_utf8()];
        if let Some(n) = stops.iter().filter(|s| so_far.ends_with(**s)).map(|s| s.len()).max() {
            return (String::from(&so_far[..so_far.len() - n]), true);
        }
    }
    (String::from(text), false)
}

#[test]
fn stop_strings_split_anywhere() {
    let stop_sets: [&[&str]; 5] = [&["</s>"], &["aab", "ab"], &["\n\nUser:", "\n\n"], &["é→", "→→b"], &[]];
    let texts = [
        "hello</s> more",
        "aaaab rest",
        "aacaab",
        "one\nUser\n\nUser: x",
        "é→",
        "x→é→→b",
        "</s",
        "",
        "</s></s>",
    ];
    for stops in stop_sets {
        for text in texts {
            let want = stop_oracle(stops, text);
            let cuts: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
            for a in &cuts {
                for b in cuts.iter().filter(|b| *b >= a) {
                    let pieces = [&text[..*a], &text[*a..*b], &text[*b..]];
                    assert_eq!(stream(stops, pieces.into_iter()), want, "{stops:?} {pieces:?}");
                }
            }
            let letters = cuts.windows(2).map(|w| &text[w[0]..w[1]]);
            assert_eq!(stream(stops, letters), want, "{stops:?} {text:?}");
        }
    }
}

#[test]
fn only_a_possible_stop_is_held_back() {
    let mut watcher = StopStrings::new(["<end>"]).unwrap();
    assert_eq!(
        watcher.push("hello <e"),
        Streamed {
            text: "hello ",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("n"),
        Streamed {
            text: "",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("try <"),
        Streamed {
            text: "<entry ",
            stopped: false
        }
    );
    assert_eq!(
        watcher.push("end> after"),
        Streamed {
            text: "",
            stopped: true
        }
    );
    assert_eq!(
        watcher.push("more"),
        Streamed {
            text: "",
            stopped: true
        }
    );
    assert_eq!(watcher.finish(), "");
    watcher.reset();
    assert_eq!(
        watcher.push("again"),
        Streamed {
            text: "again",
            stopped: false
        }
    );
    assert_eq!(StopStrings::new(["a", ""]).unwrap_err(), SamplingError::EmptyStopString);
}
