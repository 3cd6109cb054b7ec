//! Each quantiser against its formula in f64 or scalar f32, and each path against the scalar one bit for bit.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::isa::Isa;
use crate::t2::tests::Lcg;

const SIZES: [usize; 10] = [0, 1, 15, 16, 17, 63, 127, 1021, 4096, 9001];

/// `clamp(round(v), lo, hi)`, ties to even, in f64.
fn rte_clamp(v: f64, lo: i32, hi: i32) -> i32 {
    (libm::rint(v) as i32).clamp(lo, hi)
}

/// Random values with exact ties, signed zeros and far outliers among them.
fn values(n: usize, gamma: f32, seed: u64) -> Vec<f32> {
    let mut rng = Lcg(seed);
    let special = [0.5, -0.5, 1.5, -1.5, 0.0, -0.0, 1000.0, -1000.0, 0.49999997, 1e-30];
    rng.floats(n)
        .iter()
        .enumerate()
        .map(|(i, v)| if i % 7 == 3 { special[i / 7 % 10] * gamma } else { *v })
        .collect()
}

#[test]
fn the_scale_is_the_mean_magnitude() {
    for n in SIZES {
        let w = values(n, 1.0, 5);
        let exact: f64 = w.iter().map(|v| f64::from(v.abs())).sum();
        let scalar = abs_sum(Isa::SCALAR, &w);
        assert!((scalar - exact).abs() <= 1e-6 * exact, "{scalar} {exact}");
        for isa in Isa::available() {
            assert_eq!(abs_sum(isa, &w).to_bits(), scalar.to_bits(), "{}", isa.name());
        }
        // Threads that split at blocks of 4096 add up to the same bits.
        let parts: f64 = w.chunks(4096).map(|c| abs_sum(Isa::best(), c)).fold(0.0, |a, b| a + b);
        assert_eq!(parts.to_bits(), scalar.to_bits());
    }
    assert_eq!(absmean_scale(6.0, 4), 1.5);
    assert_eq!(absmean_scale(0.0, 4), SCALE_FLOOR);
    assert_eq!(absmean_scale(0.0, 0), SCALE_FLOOR);
}

#[test]
fn ternary_rounds_to_nearest_even_and_clamps() {
    // A power of two, so that the reciprocal is exact and ties are ties.
    let gamma = 0.25;
    for isa in Isa::available() {
        std::println!("quantize path: {}", isa.name());
        for n in SIZES {
            let w = values(n, gamma, 6);
            let (mut f, mut i) = (vec![9.0; n], vec![9; n]);
            ternary_f32(isa, &w, gamma, &mut f);
            ternary_i8(isa, &w, gamma, &mut i);
            for k in 0..n {
                let want = rte_clamp(f64::from(w[k]) / f64::from(gamma), -1, 1);
                assert_eq!(
                    (f[k], i32::from(i[k])),
                    (want as f32, want),
                    "{} of {}",
                    w[k],
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn activations_fill_the_byte_and_rows_are_independent() {
    for isa in Isa::available() {
        for n in SIZES {
            let (rows, stride) = (3, n + 5);
            let mut x = values(rows * n, 0.01, 7);
            x[..n].fill(0.0);
            let (mut q, mut scales) = (vec![9; rows * stride], vec![0.0; rows]);
            absmax_i8(isa, &x, n, &mut q, stride, &mut scales);
            for r in 0..rows {
                let row = &x[r * n..(r + 1) * n];
                let most = row.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert_eq!(scales[r], 127.0 / most.max(1e-5));
                for k in 0..n {
                    // The product is one correctly rounded f32 operation: the oracle does that one in f32 too.
                    let want = rte_clamp(f64::from(row[k] * scales[r]), -128, 127);
                    assert_eq!(i32::from(q[r * stride + k]), want);
                }
                assert!(q[r * stride + n..(r + 1) * stride].iter().all(|v| *v == 0));
                assert!(most == 0.0 || q[r * stride..].iter().take(n).any(|v| v.unsigned_abs() == 127));
            }
            let mut back = vec![9.0; rows * n];
            dequantize_rows(isa, &q, stride, n, &scales, &mut back);
            for (i, v) in back.iter().enumerate() {
                let want = f32::from(q[i / n * stride + i % n]) * (1.0 / scales[i / n]);
                assert_eq!(v.to_bits(), want.to_bits());
                assert!((v - x[i]).abs() <= 0.5001 / scales[i / n]);
            }
        }
    }
}

#[test]
fn rows_of_whole_numbers() {
    for isa in Isa::available() {
        for n in SIZES {
            let w = values(2 * n, 0.1, 8);
            let (mut q, mut steps) = (vec![0; 2 * n], vec![0.0; 2]);
            int8_rowwise(isa, &w, n, &mut q, &mut steps);
            for r in 0..2 {
                let row = &w[r * n..(r + 1) * n];
                let most = row.iter().fold(0f32, |m, v| m.max(v.abs()));
                assert_eq!(steps[r], most.max(1e-5) / 127.0);
                for k in 0..n {
                    assert_eq!(
                        i32::from(q[r * n + k]),
                        rte_clamp(f64::from(row[k] / steps[r]), -127, 127)
                    );
                }
            }
        }
    }
}

#[test]
fn binary_is_the_sign() {
    for isa in Isa::available() {
        for n in SIZES {
            let w = values(n, 1.0, 9);
            let mut q = vec![0; n];
            binary_i8(isa, &w, &mut q);
            assert!(w.iter().zip(&q).all(|(w, q)| *q == if *w >= 0.0 { 1 } else { -1 }));
        }
    }
}

#[test]
fn the_staircase_is_soft_then_hard() {
    let gamma = 0.25f32;
    for n in SIZES {
        let w = values(n, gamma, 10);
        for a in [-1.0, 0.0, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999999, 1.0, 2.0f32] {
            let mut want = vec![0.0; n];
            soft_ternary(Isa::SCALAR, &w, gamma, a, &mut want);
            for isa in Isa::available() {
                let mut got = vec![9.0; n];
                soft_ternary(isa, &w, gamma, a, &mut got);
                let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&got), bits(&want), "{} at {a}", isa.name());
            }
            let (a, g) = (f64::from(a.clamp(0.0, 1.0)), f64::from(gamma));
            for (w, y) in w.iter().zip(&want) {
                let u = f64::from(*w) / g;
                let exact = if a == 1.0 {
                    g * f64::from(rte_clamp(u, -1, 1))
                } else {
                    let b = 2.0 / (1.0 - a);
                    let s = 0.5 * (libm::tanh(b * (u - 0.5)) + libm::tanh(b * (u + 0.5)));
                    (1.0 - a) * f64::from(*w) + if a == 0.0 { 0.0 } else { a * g * s }
                };
                // On the edge of a step the steep tanh magnifies the f32 rounding of u by b·γ.
                let edge = 2.0 / (1.0 - a).max(1e-6) * g * 1e-7 * (1.0 - (u.abs() - 0.5).abs()).max(0.0);
                let bound = 1e-6 * (exact.abs() + g) + if a == 1.0 { 0.0 } else { edge };
                assert!((f64::from(*y) - exact).abs() <= bound, "w {w} a {a}: {y} {exact}");
            }
        }
    }
}

#[test]
fn a_nan_does_not_spread() {
    let mut x = vec![1.0f32; 40];
    x[20] = f32::NAN;
    for isa in Isa::available() {
        let (mut q, mut scale) = (vec![0; 40], [0.0]);
        absmax_i8(isa, &x, 40, &mut q, 40, &mut scale);
        assert_eq!((scale[0], q[19], q[20]), (127.0, 127, -128), "{}", isa.name());
        let mut t = vec![0; 40];
        ternary_i8(isa, &x, 1.0, &mut t);
        assert_eq!((t[19], t[20]), (1, -1), "{}", isa.name());
    }
}

#[test]
fn sums_are_scaled_alike_on_every_path() {
    for n in [0, 1, 15, 16, 17, 100] {
        // Beyond 2^24 a sum has more bits than an f32.
        let sums: Vec<i32> = (0..n).map(|i: i32| (i - 50).wrapping_mul(33_554_431) + i).collect();
        let want: Vec<f32> = sums.iter().map(|s| *s as f32 * 0.37).collect();
        for isa in Isa::available() {
            let mut out = vec![9.0; n as usize];
            scale_sums(isa, &sums, 0.37, &mut out);
            assert_eq!(out, want, "{} {n}", isa.name());
        }
    }
}
