//! Against f64 and its central differences, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

/// (loss, smoothed loss, lse) of one row.
fn oracle(x: &[f64], target: usize, smoothing: f64) -> [f64; 3] {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let nll = lse - x[target];
    [nll, (1.0 - smoothing) * nll + smoothing * (lse - mean), lse]
}

/// (loss, smoothed loss, lse) of each row.
fn run(isa: Isa, x: &[f32], vocab: usize, targets: &[u32], smoothing: f32) -> [Vec<f32>; 3] {
    let n = targets.len();
    let (mut loss, mut smooth, mut lse) = (vec![9.0; n], vec![9.0; n], vec![9.0; n]);
    cross_entropy(isa, x, vocab, targets, &mut loss, &mut smooth, smoothing, &mut lse);
    [loss, smooth, lse]
}

#[test]
fn losses_are_their_formulas() {
    for vocab in SIZES.into_iter().skip(1).chain([9001]) {
        for (size, smoothing) in [(1.0, 0.0), (3.0, 0.1), (1e4, 0.1), (30.0, 1.0)] {
            let x: Vec<f32> = numbers(vocab as u64, 3 * vocab).iter().map(|v| v * size).collect();
            let targets = [0, (vocab / 2) as u32, (vocab - 1) as u32];
            let got = on_every_path("cross_entropy", |isa| run(isa, &x, vocab, &targets, smoothing).concat());
            for (row, x) in wide(&x).chunks(vocab).enumerate() {
                let want = oracle(x, targets[row] as usize, f64::from(smoothing));
                for (k, want) in want.into_iter().enumerate() {
                    let got = f64::from(got[k * 3 + row]);
                    assert!(
                        (got - want).abs() <= 1e-6 * want.abs().max(1.0),
                        "{vocab} {size} {k}: {got} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn backward_is_the_gradient() {
    for vocab in [1, 2, 15, 16, 17, 53] {
        for smoothing in [0.0f32, 0.1] {
            let x: Vec<f32> = numbers(1, 3 * vocab).iter().map(|v| v * 3.0).collect();
            let targets = [0, (vocab / 2) as u32, (vocab - 1) as u32];
            let got = on_every_path("cross_entropy_backward", |isa| {
                let [_, _, lse] = run(isa, &x, vocab, &targets, smoothing);
                let mut dx = vec![9.0; x.len()];
                cross_entropy_backward(isa, &x, vocab, &targets, &lse, smoothing, 0.25, &mut dx);
                dx
            });
            for (row, x) in wide(&x).chunks(vocab).enumerate() {
                let loss = |x: &[f64]| 0.25 * oracle(x, targets[row] as usize, f64::from(smoothing))[1];
                for (got, want) in got[row * vocab..].iter().zip(gradient(x, loss)) {
                    assert!((f64::from(*got) - want).abs() <= 2e-7, "{vocab}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn huge_logits_are_stable() {
    for isa in Isa::available() {
        let x = [1e4, -1e4, 9999.0, 0.0, -1e4, -1e4, -1e4, 1e4];
        let targets = [1, 3];
        let [loss, smooth, lse] = run(isa, &x, 4, &targets, 0.1);
        assert!((loss[0] - 20_000.313).abs() < 0.01 && loss[1] == 0.0);
        assert!(smooth.iter().all(|v| v.is_finite()));
        let mut dx = [9.0; 8];
        cross_entropy_backward(isa, &x, 4, &targets, &lse, 0.0, 1.0, &mut dx);
        assert!(dx.iter().all(|v| v.is_finite()) && dx[1] == -1.0 && dx[4..] == [0.0; 4]);
        assert!(dx[..4].iter().sum::<f32>().abs() < 2e-3);
    }
}

#[test]
fn a_vocabulary_of_one_has_no_loss() {
    for isa in Isa::available() {
        let [loss, smooth, lse] = run(isa, &[-7.5, 1e4], 1, &[0, 0], 0.1);
        assert_eq!((loss, smooth, lse), (vec![0.0; 2], vec![0.0; 2], vec![-7.5, 1e4]));
    }
}

#[test]
fn a_masked_logit_takes_no_part_and_nan_is_seen() {
    let low = f32::NEG_INFINITY;
    let [loss, smooth, _] = run(Isa::best(), &[1.0, low, 1.0, low], 4, &[0], 0.0);
    assert!((loss[0] - core::f32::consts::LN_2).abs() < 1e-6 && smooth == loss);
    for at in [0, 3, 16, 18] {
        let mut x = [0.5; 19];
        x[at] = f32::NAN;
        assert!(run(Isa::best(), &x, 19, &[5], 0.0)[0][0].is_nan(), "{at}");
    }
}

#[test]
#[should_panic(expected = "target 4 is not below 4")]
fn a_target_outside_the_vocabulary_is_refused() {
    run(Isa::best(), &[0.0; 4], 4, &[4], 0.0);
}
