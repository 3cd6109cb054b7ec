//! Against f64, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::testing::*;
use super::*;
use crate::isa::Isa;

#[test]
fn pointwise_operations_are_their_formulas() {
    for n in SIZES {
        let (a, b) = (numbers(1, n), numbers(2, n));
        let run = |what: &str, f: &dyn Fn(Isa, &mut [f32])| {
            on_every_path(what, |isa| {
                let mut out = b.clone();
                f(isa, &mut out);
                out
            })
        };
        let each = |f: &dyn Fn(f32, f32) -> f32| a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect::<Vec<f32>>();
        assert_eq!(run("add", &|isa, out| add(isa, &a, &b, out)), each(&|a, b| a + b));
        assert_eq!(run("mul", &|isa, out| mul(isa, &a, &b, out)), each(&|a, b| a * b));
        assert_eq!(
            run("axpy", &|isa, out| axpy(isa, 0.3, &a, out)),
            each(&|a, b| a.mul_add(0.3, b))
        );
        assert_eq!(
            run("scale", &|isa, out| scale(isa, 0.3, &a, out)),
            each(&|a, _| a * 0.3)
        );
    }
}

#[test]
fn sums_are_close_to_f64() {
    for n in SIZES.into_iter().chain([20_011]) {
        let (a, b) = (numbers(3, n), numbers(4, n));
        let (wide_a, wide_b) = (wide(&a), wide(&b));
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        for isa in Isa::available() {
            std::println!("sums: {}", isa.name());
            // A lane adds at most 256 values before the f64 sum.
            let bound = 256.0 * f64::from(f32::EPSILON) * norm(&wide_a) * norm(&wide_b).max((n as f64).sqrt());
            assert!((sum(isa, &a) - wide_a.iter().sum::<f64>()).abs() <= bound);
            assert!((dot(isa, &a, &b) - weighted(&wide_a, &wide_b)).abs() <= bound);
            let squares = weighted(&wide_a, &wide_a);
            assert!((sum_squares(isa, &a) - squares).abs() <= 1e-5 * squares);
            assert_eq!(sum(isa, &a).to_bits(), sum(Isa::SCALAR, &a).to_bits());
            assert_eq!(dot(isa, &a, &b).to_bits(), dot(Isa::SCALAR, &a, &b).to_bits());
        }
    }
}

#[test]
fn a_long_sum_keeps_its_digits() {
    let x = vec![0.1f32; 1 << 20];
    let want = f64::from(0.1f32) * x.len() as f64;
    assert!((sum(Isa::best(), &x) / want - 1.0).abs() < 1e-5);
}

#[test]
fn one_value_that_is_not_finite_is_found_anywhere() {
    for isa in Isa::available() {
        for n in SIZES {
            let mut x = numbers(5, n);
            x.iter_mut().for_each(|v| *v *= 1e38);
            x.iter_mut().for_each(|v| *v = v.clamp(f32::MIN, f32::MAX));
            assert!(all_finite(isa, &x));
            for at in [0, n / 2, n.saturating_sub(1)] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    if let Some(v) = x.get_mut(at) {
                        let good = core::mem::replace(v, bad);
                        assert!(!all_finite(isa, &x), "{} {n} {at} {bad}", isa.name());
                        x[at] = good;
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "length of `b`")]
fn lengths_must_agree() {
    add(Isa::best(), &[1.0; 3], &[1.0; 4], &mut [0.0; 3]);
}
