use alloc::vec;
use alloc::vec::Vec;

use super::super::*;
use super::{logits, plain};

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
