//! Each function against f64 over the whole range of f32, and every path against the scalar twin.

use alloc::vec::Vec;
use std::println;

use super::*;
use crate::isa::Isa;
use crate::simd::simd_kernel;

/// Applies `f` to the slice, sixteen values at a time.
macro_rules! over_slice {
    ($entry:ident, $body:ident, $f:path) => {
        #[inline(always)]
        fn $body<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
            for (x, out) in x.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                s.store($f(s, s.load(x)), out);
            }
        }
        simd_kernel! { pub fn $entry(x: &[f32], out: &mut [f32]) = $body; }
    };
}
over_slice!(exp_slice, exp_body, exp);
over_slice!(ln_slice, ln_body, ln);
over_slice!(tanh_slice, tanh_body, tanh);
over_slice!(sigmoid_slice, sigmoid_body, sigmoid);

/// Bit patterns across all of f32 (NaNs and both infinities among them), then the edges and a dense stretch.
fn inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (0..1u64 << 20).map(|i| f32::from_bits((i * 4099) as u32)).collect();
    x.extend((0..400_000).map(|i| (i as f32 - 200_000.0) * 1e-3 + 1.7e-5));
    x.extend((0..100_000).map(|i| (i as f32 - 50_000.0) * 4e-5 + 1.0));
    let edges = [
        0.0,
        1.0,
        88.722_84,
        88.8,
        103.9,
        104.0,
        1e9,
        f32::MIN_POSITIVE,
        1e-45,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    x.extend(edges.iter().flat_map(|&e: &f32| [e, -e]));
    while !x.len().is_multiple_of(LANES) {
        x.push(0.5);
    }
    x
}

/// Distance of `got` from `want` in units of the last place of an f32 of that size.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if got.is_nan() || rounded.is_nan() {
        return if got.is_nan() && rounded.is_nan() {
            0.0
        } else {
            f64::INFINITY
        };
    }
    if rounded.is_infinite() || got.is_infinite() {
        // At the edge of overflow the largest finite number and infinity are neighbours.
        let near = got == rounded || (want.abs() < 3.4029e38 && got.abs().min(rounded.abs()) > 3.4027e38);
        return if near { 0.0 } else { f64::INFINITY };
    }
    let size = rounded.abs();
    let ulp = f64::from(f32::from_bits(size.to_bits() + 1)) - f64::from(size);
    (f64::from(got) - want).abs() / if ulp.is_finite() { ulp } else { 2f64.powi(104) }
}

fn check(name: &str, run: fn(Isa, &[f32], &mut [f32]), oracle: fn(f64) -> f64, bound: f64) {
    let x = inputs();
    let mut scalar = std::vec![0.0; x.len()];
    run(Isa::SCALAR, &x, &mut scalar);
    let mut worst = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(&scalar) {
        let e = ulps(y, oracle(f64::from(x)));
        assert!(
            e <= bound,
            "{name}({x:e}) = {y:e}, expected {:e}: {e} ulp",
            oracle(f64::from(x))
        );
        if e > worst.0 {
            worst = (e, x);
        }
    }
    println!(
        "{name}: at most {:.3} ulp, at {:e}, over {} inputs",
        worst.0,
        worst.1,
        x.len()
    );
    for isa in Isa::available() {
        let mut y = std::vec![0.0; x.len()];
        run(isa, &x, &mut y);
        for ((x, a), b) in x.iter().zip(&y).zip(&scalar) {
            assert!(
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
                "{name}({x:e}): {a} {b} {}",
                isa.name()
            );
        }
        println!("{name}: {} as scalar", isa.name());
    }
}

#[test]
fn exp_is_right_over_all_of_f32() {
    check("exp", exp_slice, f64::exp, 1.0);
}

#[test]
fn ln_is_right_over_all_of_f32() {
    check("ln", ln_slice, f64::ln, 1.0);
}

#[test]
fn tanh_is_right_over_all_of_f32() {
    check("tanh", tanh_slice, f64::tanh, 1.5);
}

#[test]
fn sigmoid_is_right_over_all_of_f32() {
    check(
        "sigmoid",
        sigmoid_slice,
        |x| {
            if x < 0.0 {
                x.exp() / (1.0 + x.exp())
            } else {
                1.0 / (1.0 + (-x).exp())
            }
        },
        2.2,
    );
}

#[test]
fn limits_and_signs() {
    let x = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1.0,
        20.0,
        -20.0,
        1e-45,
        f32::NAN,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ];
    let run = |f: fn(Isa, &[f32], &mut [f32])| {
        let mut y = [0.0; LANES];
        f(Isa::best(), &x, &mut y);
        y
    };
    let (e, l, t, g) = (run(exp_slice), run(ln_slice), run(tanh_slice), run(sigmoid_slice));
    assert_eq!(e[..4], [1.0, 1.0, f32::INFINITY, 0.0]);
    assert_eq!(
        (l[0], l[1], l[2], l[4]),
        (f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, 0.0)
    );
    assert!(l[3].is_nan());
    assert_eq!(t[1].to_bits(), (-0.0f32).to_bits());
    assert_eq!((t[2], t[3], t[5], t[6], t[7]), (1.0, -1.0, 1.0, -1.0, 1e-45));
    assert_eq!(g[..4], [0.5, 0.5, 1.0, 0.0]);
    assert!(e[8].is_nan() && l[8].is_nan() && t[8].is_nan() && g[8].is_nan());
}

#[test]
fn square_roots_are_those_of_libm() {
    for bits in (0..u32::MAX).step_by(if cfg!(miri) { 100_000_007 } else { 100_003 }) {
        let x = f32::from_bits(bits);
        let (single, double) = (sqrt_f32(x), sqrt_f64(f64::from(x)));
        assert!(
            single.to_bits() == libm::sqrtf(x).to_bits() || single.is_nan() && (x < 0.0 || x.is_nan()),
            "{x}"
        );
        // In f64 the root has digits enough to be rounded to f32 as the exact one is.
        assert!(
            (double as f32).to_bits() == single.to_bits() || double.is_nan() && single.is_nan(),
            "{x}"
        );
    }
}
