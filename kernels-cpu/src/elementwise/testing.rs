//! What the tests of the float kernels share: inputs, the comparison of paths, central differences.

use alloc::vec::Vec;
use std::println;

use crate::isa::Isa;
use crate::rng::Key;

/// Lengths around the vector width, and primes.
pub(crate) const SIZES: [usize; 11] = [0, 1, 2, 15, 16, 17, 31, 97, 257, 4095, 4099];

/// Standard normal numbers.
pub(crate) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut x = alloc::vec![0.0; n];
    Key::new(seed, 0, 0).fill_normal(0, &mut x);
    x
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Runs `f` on every path, prints which, and asserts the bits of the scalar twin; returns the scalar result.
pub(crate) fn on_every_path(what: &str, f: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let want = f(Isa::SCALAR);
    for isa in Isa::available() {
        let got = f(isa);
        println!("{what}: {}", isa.name());
        assert_eq!(got.len(), want.len());
        for (i, (a, b)) in got.iter().zip(&want).enumerate() {
            let same = a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(same, "{what}, {}: value {i} is {a:e}, scalar {b:e}", isa.name());
        }
    }
    want
}

/// Asserts `|got − want| ≤ tolerance · max|want|` for each value.
pub(crate) fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(g) - w).abs();
        assert!(off <= tolerance * size, "{what}: value {i} is {g:e}, expected {w:e}");
    }
}

/// Gradient of `f` at `x` by central differences.
pub(crate) fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            at[i] = x[i] + STEP;
            let above = f(&at);
            at[i] = x[i] - STEP;
            let below = f(&at);
            at[i] = x[i];
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// `Σ a·b` in f64: the loss whose gradient with respect to `a` is `b`.
pub(crate) fn weighted(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
