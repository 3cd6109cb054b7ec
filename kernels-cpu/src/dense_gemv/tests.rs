//! Every path, every split of tokens and rows, against the sixteen chains written out; and against f64.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::isa::Isa;
use crate::t2::tests::Lcg;

const SIZES: [usize; 11] = [0, 1, 15, 16, 17, 31, 33, 63, 127, 256, 1021];

/// Lane `k mod 16`, chains in order, folded 8-4-2-1.
fn sixteen_chains(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for k in 0..w.len().next_multiple_of(16) {
        let (w, x) = if k < w.len() { (w[k], x[k]) } else { (0.0, 0.0) };
        lanes[k % 16] = w.mul_add(x, lanes[k % 16]);
    }
    let mut n = 8;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}

type Kernel<W> = fn(Isa, &[W], &[f32], usize, &mut [f32]);
type Gather<W> = fn(Isa, &[W], &[f32], &[u32], &mut [f32]);

fn check<W: Copy>(kernel: Kernel<W>, gather: Gather<W>, narrow: fn(f32) -> W, widen: fn(W) -> f32) {
    let mut rng = Lcg(31);
    for n in SIZES {
        for (rows, tokens) in [
            (1, 1),
            (3, 1),
            (4, 1),
            (9, 1),
            (5, 2),
            (2, 5),
            (3, 9),
            (13, 7),
            (0, 3),
            (3, 0),
        ] {
            // One element of offset: kernels may not assume alignment.
            let w: Vec<W> = rng.floats(rows * n + 1).into_iter().map(narrow).collect();
            let (w, x) = (&w[1..], &rng.floats(tokens * n + 1)[1..]);
            let wide: Vec<f32> = w.iter().map(|v| widen(*v)).collect();
            for isa in Isa::available() {
                let mut out = vec![9.0; tokens * rows];
                kernel(isa, if out.is_empty() { &[] } else { w }, x, tokens, &mut out);
                if tokens == 1 && n > 0 {
                    let some: Vec<u32> = (0..rows as u32).rev().chain((0..rows as u32).step_by(2)).collect();
                    let mut picked = vec![9.0; some.len()];
                    gather(isa, w, x, &some, &mut picked);
                    let same = |(r, v): (&u32, &f32)| out[*r as usize].to_bits() == v.to_bits();
                    assert!(some.iter().zip(&picked).all(same), "{} {rows} x {n}", isa.name());
                }
                for (i, got) in out.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let (row, token) = (&wide[r * n..(r + 1) * n], &x[t * n..(t + 1) * n]);
                    let want = sixteen_chains(row, token);
                    assert_eq!(got.to_bits(), want.to_bits(), "{} {tokens} x {rows} x {n}", isa.name());
                    let pairs = || row.iter().zip(token).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    let (exact, size) = (pairs().sum::<f64>(), pairs().map(f64::abs).sum::<f64>());
                    // A chain of n/16 roundings and a fold of four.
                    let bound = size * f64::from(f32::EPSILON) * (n as f64 / 16.0 + 5.0);
                    assert!((f64::from(*got) - exact).abs() <= bound);
                }
            }
        }
    }
}

/// More rows than are taken through the tokens at once, the last panel not a whole one.
#[test]
fn more_rows_than_a_panel() {
    let mut rng = Lcg(48);
    let (n, rows, tokens) = (1021, 37, 5);
    let (w, x) = (rng.floats(rows * n), rng.floats(tokens * n));
    for isa in Isa::available() {
        let mut out = vec![9.0; tokens * rows];
        gemv_f32(isa, &w, &x, tokens, &mut out);
        for (i, got) in out.iter().enumerate() {
            let (t, r) = (i / rows, i % rows);
            let want = sixteen_chains(&w[r * n..(r + 1) * n], &x[t * n..(t + 1) * n]);
            assert_eq!(got.to_bits(), want.to_bits(), "{} token {t}, row {r}", isa.name());
        }
    }
}

#[test]
fn f32_weights() {
    for isa in Isa::available() {
        std::println!("dense_gemv path: {}", isa.name());
    }
    check(gemv_f32, gather_f32, |v| v, |v| v);
}

#[test]
fn f16_weights() {
    check(gemv_f16, gather_f16, f16::from_f32, f16::to_f32);
}

#[test]
fn bf16_weights() {
    check(gemv_bf16, gather_bf16, bf16::from_f32, bf16::to_f32);
}

/// The chains are those of the integers as f32; each row's sum is multiplied by its step once.
#[test]
fn i8_weights() {
    let mut rng = Lcg(47);
    for n in SIZES {
        for (rows, tokens) in [(1, 1), (3, 1), (9, 1), (5, 2), (3, 9), (14, 8), (0, 3)] {
            let w: Vec<i8> = rng.floats(rows * n).iter().map(|v| (v * 1e3) as i8).collect();
            let wide: Vec<f32> = w.iter().map(|v| f32::from(*v)).collect();
            let (steps, x) = (rng.floats(rows), rng.floats(tokens * n));
            for isa in Isa::available() {
                let mut out = vec![9.0; tokens * rows];
                gemv_i8(isa, &w, &steps, &x, tokens, &mut out);
                for (i, got) in out.iter().enumerate() {
                    let (t, r) = (i / rows, i % rows);
                    let want = sixteen_chains(&wide[r * n..(r + 1) * n], &x[t * n..(t + 1) * n]) * steps[r];
                    assert_eq!(got.to_bits(), want.to_bits(), "{} {tokens} x {rows} x {n}", isa.name());
                }
                if tokens == 1 && n > 0 {
                    let some: Vec<u32> = (0..rows as u32).rev().chain((0..rows as u32).step_by(2)).collect();
                    let mut picked = vec![9.0; some.len()];
                    gather_i8(isa, &w, &steps, &x, &some, &mut picked);
                    let same = |(r, v): (&u32, &f32)| out[*r as usize].to_bits() == v.to_bits();
                    assert!(some.iter().zip(&picked).all(same), "{} {rows} x {n}", isa.name());
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "a step for each row")]
fn missing_steps_are_refused() {
    gemv_i8(Isa::best(), &[0; 8], &[1.0], &[0.0; 4], 1, &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "w is [rows, n]")]
fn a_short_matrix_is_refused() {
    gemv_f32(Isa::best(), &[0.0; 7], &[0.0; 4], 1, &mut [0.0; 2]);
}
