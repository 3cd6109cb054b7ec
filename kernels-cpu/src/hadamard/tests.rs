use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::Isa;

fn signs(n: usize, seed: u64) -> Vec<f32> {
    let mut signs = vec![0.0; ROUNDS * n];
    fill_signs(&Key::new(seed, 1, 0), &mut signs);
    signs
}

fn rotated(isa: Isa, x: &[f32], signs: &[f32]) -> Vec<f32> {
    let mut out = x.to_vec();
    rotate(isa, &mut out, signs, &mut vec![0.0; x.len()]);
    out
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn lengths_and_inner_products_stay_and_all_paths_agree() {
    for n in [128, 384, 512, 1536, 2560] {
        let signs = signs(n, n as u64);
        let key = Key::new(7, 2, 0);
        let (mut a, mut b) = (vec![0.0; n], vec![0.0; n]);
        key.fill_normal(0, &mut a);
        key.fill_normal(n as u64, &mut b);
        let (ra, rb) = (rotated(Isa::SCALAR, &a, &signs), rotated(Isa::SCALAR, &b, &signs));
        let bound = 1e-5 * dot(&a, &a).max(dot(&b, &b));
        assert!((dot(&a, &b) - dot(&ra, &rb)).abs() < bound, "{n}");
        assert!((dot(&a, &a) - dot(&ra, &ra)).abs() < bound, "{n}");
        for isa in Isa::available() {
            assert_eq!(rotated(isa, &a, &signs), ra, "{} at {n}", isa.name());
        }
    }
}

/// A vector with a single value, the worst of all for quantisation, comes out like noise: no value far above its share.
#[test]
fn a_spike_is_spread_over_all_values() {
    for n in [512, 2560] {
        let signs = signs(n, 3);
        for at in [0, 1, 17, n / 2 + 5, n - 1] {
            let mut x = vec![0.0; n];
            x[at] = 1.0;
            let out = rotated(Isa::best(), &x, &signs);
            let largest = out.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(largest < 6.0 / (n as f32).sqrt(), "{n}, spike at {at}: {largest}");
            let zeros = out.iter().filter(|v| **v == 0.0).count();
            assert!(zeros < n / 2, "{n}, spike at {at}: {zeros} zeros");
        }
    }
}

#[test]
fn short_and_odd_vectors_cannot_be_rotated() {
    assert!([0, 16, 64, 100, 200].iter().all(|&n| !can_rotate(n)));
    assert!([128, 512, 768, 1536, 2560].iter().all(|&n| can_rotate(n)));
}
