mod dropout;

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::isa::Isa;
use crate::math::sqrt_f64;
use crate::rng::Key;

pub(super) fn normal(key: u32, n: usize) -> Vec<f32> {
    let key = Key::new(7, key, 0);
    (0..n as u64).map(|i| key.normal(i)).collect()
}

pub(super) fn shape(seq: usize, heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape {
        seq,
        heads,
        kv_heads,
        head_dim,
    }
}

/// Inputs of a shape: q, k, v and the gradient of the output.
fn inputs(s: &AttentionShape) -> [Vec<f32>; 4] {
    let (q, kv) = (s.seq * s.row(), s.seq * s.kv_row());
    [normal(1, q), normal(2, kv), normal(3, kv), normal(4, q)]
}

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Probabilities of one query of one head, in f64.
fn oracle_row(s: &AttentionShape, q: &[f64], k: &[f64], h: usize, i: usize) -> (Vec<f64>, f64) {
    let (n, kv) = (s.head_dim, h / (s.heads / s.kv_heads));
    let score = |j: usize| {
        let dot: f64 = (0..n)
            .map(|d| q[i * s.row() + h * n + d] * k[j * s.kv_row() + kv * n + d])
            .sum();
        dot / sqrt_f64(n as f64)
    };
    let scores: Vec<f64> = (0..=i).map(score).collect();
    let most = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    let lse = most + libm::log(scores.iter().map(|x| libm::exp(x - most)).sum());
    (scores.iter().map(|x| libm::exp(x - lse)).collect(), lse)
}

/// `1 / (1 − p)` for each probability of a row that is kept, 0 for the others; 1 without dropout.
fn oracle_mask(s: &AttentionShape, dropout: Option<&AttentionDropout>, h: usize, i: usize) -> Vec<f64> {
    let Some(d) = dropout else {
        return vec![1.0; i + 1];
    };
    let row = (d.sequence * s.heads as u64 + h as u64) * s.seq as u64 + i as u64;
    let number = |j: usize| row * s.seq.div_ceil(4) as u64 * 4 + j as u64;
    let factor = |j| {
        let kept = d.key.uniform(number(j)) >= d.p;
        f64::from(u8::from(kept)) / (1.0 - f64::from(d.p))
    };
    (0..=i).map(factor).collect()
}

/// Output and log-sum-exps, straight from the definition in f64.
fn oracle(
    s: &AttentionShape,
    dropout: Option<&AttentionDropout>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let n = s.head_dim;
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; s.heads * s.seq];
    for h in 0..s.heads {
        let kv = h / (s.heads / s.kv_heads);
        for i in 0..s.seq {
            let (p, l) = oracle_row(s, q, k, h, i);
            lse[h * s.seq + i] = l;
            let mask = oracle_mask(s, dropout, h, i);
            for (j, (p, m)) in p.iter().zip(&mask).enumerate() {
                for d in 0..n {
                    out[i * s.row() + h * n + d] += p * m * v[j * s.kv_row() + kv * n + d];
                }
            }
        }
    }
    (out, lse)
}

/// Gradients of `Σ out·dout` from the formulas in f64; itself checked against central differences below.
fn oracle_backward(
    s: &AttentionShape,
    dropout: Option<&AttentionDropout>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    dout: &[f64],
) -> [Vec<f64>; 3] {
    let n = s.head_dim;
    let [mut dq, mut dk, mut dv] = [vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]];
    for h in 0..s.heads {
        let kv = h / (s.heads / s.kv_heads);
        for i in 0..s.seq {
            let (p, _) = oracle_row(s, q, k, h, i);
            let at = i * s.row() + h * n;
            let mask = oracle_mask(s, dropout, h, i);
            let dp: Vec<f64> = (0..=i)
                .map(|j| {
                    (0..n)
                        .map(|d| dout[at + d] * v[j * s.kv_row() + kv * n + d])
                        .sum::<f64>()
                        * mask[j]
                })
                .collect();
            let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..=i {
                let ds = p[j] * (dp[j] - delta) / sqrt_f64(n as f64);
                let key = j * s.kv_row() + kv * n;
                for d in 0..n {
                    dv[key + d] += p[j] * mask[j] * dout[at + d];
                    dk[key + d] += ds * q[at + d];
                    dq[at + d] += ds * k[key + d];
                }
            }
        }
    }
    [dq, dk, dv]
}

/// Of the third of some sequences, so that numbers do not begin at 0.
fn three_tenths() -> AttentionDropout {
    AttentionDropout {
        p: 0.3,
        key: Key::new(5, 6, 7),
        sequence: 2,
    }
}

/// Every output of forward and backward: out, lse, dq, dk, dv.
fn run(isa: Isa, s: &AttentionShape, x: &[Vec<f32>; 4]) -> [Vec<f32>; 5] {
    run_dropped(isa, s, None, x)
}

fn run_dropped(
    isa: Isa,
    s: &AttentionShape,
    dropout: Option<&AttentionDropout>,
    [q, k, v, dout]: &[Vec<f32>; 4],
) -> [Vec<f32>; 5] {
    // Dirty buffers: everything must be written.
    let (mut out, mut lse) = (vec![9.0; q.len()], vec![9.0; s.heads * s.seq]);
    let (mut dq, mut dk, mut dv) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![9.0; v.len()]);
    let mut scratch = vec![9.0; scratch_len(s)];
    causal_attention(isa, s, dropout, q, k, v, &mut out, &mut lse, &mut scratch);
    causal_attention_backward(
        isa,
        s,
        dropout,
        q,
        k,
        v,
        &out,
        &lse,
        dout,
        &mut dq,
        &mut dk,
        &mut dv,
        &mut scratch,
    );
    [out, lse, dq, dk, dv]
}

fn assert_close(what: &str, s: &AttentionShape, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(
            error <= tolerance * w.abs().max(1.0),
            "{what}[{i}] of {s:?}: {g} for {w}"
        );
    }
}

pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn shapes() -> Vec<AttentionShape> {
    let mut all = Vec::new();
    for seq in [1, 2, 31, 32, 33, 63, 64, 65, 130] {
        for head_dim in [8, 16, 20, 32, 64] {
            all.push(shape(seq, 2, 1, head_dim));
        }
    }
    all.extend([
        shape(5, 1, 1, 1),
        shape(17, 4, 4, 8),
        shape(70, 6, 2, 16),
        shape(9, 3, 1, 128),
        shape(3, 2, 2, 79),
    ]);
    all
}

#[test]
fn matches_the_formulas_on_every_path() {
    for s in shapes() {
        let x = inputs(&s);
        let [q, k, v, dout] = x.each_ref().map(|x| wide(x));
        for dropout in [None, Some(&three_tenths())] {
            let (out, lse) = oracle(&s, dropout, &q, &k, &v);
            let [dq, dk, dv] = oracle_backward(&s, dropout, &q, &k, &v, &dout);
            let got = run_dropped(Isa::SCALAR, &s, dropout, &x);
            let [g_out, g_lse, g_dq, g_dk, g_dv] = &got;
            assert_close("out", &s, g_out, &out, 4e-6);
            assert_close("lse", &s, g_lse, &lse, 4e-6);
            assert_close("dq", &s, g_dq, &dq, 2e-5);
            assert_close("dk", &s, g_dk, &dk, 2e-5);
            assert_close("dv", &s, g_dv, &dv, 2e-5);
            for isa in Isa::available() {
                let other = run_dropped(isa, &s, dropout, &x);
                for (a, b) in got.iter().zip(&other) {
                    assert_eq!(bits(a), bits(b), "{} of {s:?}", isa.name());
                }
            }
        }
    }
    std::println!("paths: {:?}", Isa::available().map(Isa::name).collect::<Vec<_>>());
}

#[test]
fn gradients_match_central_differences() {
    let dropout = three_tenths();
    for (s, dropout) in [
        (shape(6, 4, 2, 5), None),
        (shape(66, 2, 1, 3), None),
        (shape(6, 4, 2, 5), Some(&dropout)),
        (shape(66, 2, 1, 3), Some(&dropout)),
    ] {
        let x = inputs(&s);
        let [_, _, g_dq, g_dk, g_dv] = run_dropped(Isa::best(), &s, dropout, &x);
        let [q, k, v, dout] = x.each_ref().map(|x| wide(x));
        let analytic = oracle_backward(&s, dropout, &q, &k, &v, &dout);
        let loss = |x: &[Vec<f64>; 3]| -> f64 {
            let (out, _) = oracle(&s, dropout, &x[0], &x[1], &x[2]);
            out.iter().zip(&dout).map(|(o, d)| o * d).sum()
        };
        let mut at = [q, k, v];
        for (which, got) in [&g_dq, &g_dk, &g_dv].into_iter().enumerate() {
            // A stride that visits every head and, over the run, every element offset.
            for i in (0..got.len()).step_by(1 + got.len() / 60) {
                let h = 1e-5;
                let kept = at[which][i];
                at[which][i] = kept + h;
                let above = loss(&at);
                at[which][i] = kept - h;
                let below = loss(&at);
                at[which][i] = kept;
                let difference = (above - below) / (2.0 * h);
                assert!(
                    (analytic[which][i] - difference).abs() < 1e-7,
                    "oracle {which} {i} of {s:?}"
                );
                assert!(
                    (f64::from(got[i]) - difference).abs() < 2e-5,
                    "kernel {which} {i} of {s:?}"
                );
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let s = shape(70, 2, 1, 16);
    let mut x = inputs(&s);
    x[0].iter_mut().for_each(|q| *q *= 300.0);
    let [q, k, v, _] = x.each_ref().map(|x| wide(x));
    let (out, _) = oracle(&s, None, &q, &k, &v);
    let got = run(Isa::best(), &s, &x);
    assert!(got.iter().flatten().all(|x| x.is_finite()));
    // Scores reach 1000, so their rounding alone is 1e-4.
    assert_close("out", &s, &got[0], &out, 2e-3);
}

#[test]
fn a_later_token_does_not_change_an_earlier_output() {
    let s = shape(130, 2, 1, 16);
    let mut x = inputs(&s);
    let before = run(Isa::best(), &s, &x);
    let changed = 71;
    for i in 0..3 {
        let row = x[i].len() / s.seq;
        x[i][changed * row..].iter_mut().for_each(|x| *x *= -2.0);
    }
    let after = run(Isa::best(), &s, &x);
    assert_eq!(
        bits(&before[0][..changed * s.row()]),
        bits(&after[0][..changed * s.row()])
    );
    assert_ne!(bits(&before[0]), bits(&after[0]));
}

#[test]
fn empty_shapes_write_nothing() {
    for s in [shape(0, 2, 1, 8), shape(3, 0, 0, 8), shape(3, 2, 1, 0)] {
        let got = run(Isa::best(), &s, &inputs(&s));
        assert!(got[0].is_empty() && got[3].is_empty());
    }
}

#[test]
fn softmax_weights_sum_and_scale() {
    for isa in Isa::available() {
        assert_eq!(softmax_weights(isa, &mut []), 0.0);
        let mut x = [1.0f32, f32::NEG_INFINITY, 3.0, -200.0];
        let sum = softmax_weights(isa, &mut x);
        assert_eq!((x[1], x[2], x[3]), (0.0, 1.0, 0.0));
        assert!((f64::from(sum) - (1.0 + libm::exp(-2.0))).abs() < 1e-6);
    }
}
