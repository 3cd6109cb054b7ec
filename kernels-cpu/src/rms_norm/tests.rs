//! Against f64 and its central differences, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

const EPS: f32 = 1e-5;

fn oracle(x: &[f64], w: &[f64]) -> Vec<f64> {
    x.chunks(w.len().max(1))
        .flat_map(|row| {
            let mean = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            let r = 1.0 / (mean + f64::from(EPS)).sqrt();
            row.iter().zip(w).map(move |(x, w)| x * r * w).collect::<Vec<f64>>()
        })
        .collect()
}

#[test]
fn forward_is_its_formula() {
    for n in SIZES {
        for rows in [1, 3] {
            let (x, w) = (numbers(1, rows * n), numbers(2, n));
            let y = on_every_path("rms_norm", |isa| {
                let mut out = vec![9.0; x.len()];
                rms_norm(isa, &x, &w, EPS, &mut out);
                out
            });
            assert_close("rms_norm", &y, &oracle(&wide(&x), &wide(&w)), 1e-6);
        }
    }
}

#[test]
fn squares_are_added_in_64_lanes() {
    for n in [1, 15, 16, 33, 63, 64, 65, 111, 112, 128, 200, 1000] {
        let x = numbers(9, n);
        let mut lanes = [0.0f32; 64];
        for (i, x) in x.iter().enumerate() {
            lanes[i % 64] = x.mul_add(*x, lanes[i % 64]);
        }
        for half in [32, 16, 8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        let r = 1.0 / (lanes[0] / n as f32 + EPS).sqrt();
        let want: Vec<f32> = x.iter().map(|x| x * r * 0.5).collect();
        let y = on_every_path("rms_norm", |isa| {
            let mut out = vec![9.0; n];
            rms_norm(isa, &x, &vec![0.5; n], EPS, &mut out);
            out
        });
        assert_eq!(y, want, "{n}");
    }
}

#[test]
fn backward_is_the_gradient() {
    for n in [1, 2, 15, 16, 17, 53] {
        for rows in [1, 3] {
            let (x, w, dy) = (numbers(3, rows * n), numbers(4, n), numbers(5, rows * n));
            let before = numbers(6, n);
            let both = on_every_path("rms_norm_backward", |isa| {
                let (mut dx, mut dw) = (vec![9.0; x.len()], before.clone());
                rms_norm_backward(isa, &x, &w, EPS, &dy, &mut dx, &mut dw);
                [dx, dw].concat()
            });
            let (x, w, dy) = (wide(&x), wide(&w), wide(&dy));
            let dx = gradient(&x, |x| weighted(&oracle(x, &w), &dy));
            let mut dw = gradient(&w, |w| weighted(&oracle(&x, w), &dy));
            dw.iter_mut().zip(&before).for_each(|(d, &b)| *d += f64::from(b));
            assert_close("dw", &both[x.len()..], &dw, 3e-6);
            // Relative to the terms, which nearly cancel in a row of one value.
            let ones = vec![1.0; n];
            let terms = x.iter().zip(oracle(&x, &ones)).zip(&dy).zip(w.iter().cycle());
            let size = terms
                .map(|(((x, xhat), dy), w)| (xhat / x * dy * w).abs())
                .fold(0.0, f64::max);
            let off = both
                .iter()
                .zip(&dx)
                .map(|(&g, d)| (f64::from(g) - d).abs())
                .fold(0.0, f64::max);
            assert!(off <= 3e-6 * size, "dx is {off} off, n = {n}");
        }
    }
}

#[test]
fn a_row_of_zeros_stays_zero() {
    let mut out = [9.0; 20];
    rms_norm(Isa::best(), &[0.0; 20], &[1.0; 20], EPS, &mut out);
    assert_eq!(out, [0.0; 20]);
}

#[test]
fn a_row_of_zeros_has_no_gradient_and_gives_none() {
    for n in [1, 16, 37] {
        let (mut x, w, dy) = (numbers(1, 3 * n), numbers(2, n), numbers(3, 3 * n));
        x[n..2 * n].fill(0.0);
        let others = |v: &[f32]| [&v[..n], &v[2 * n..]].concat();
        on_every_path("rms_norm_backward", |isa| {
            let (mut dx, mut dw) = (vec![9.0; 3 * n], vec![0.5; n]);
            rms_norm_backward(isa, &x, &w, EPS, &dy, &mut dx, &mut dw);
            let (mut dx2, mut dw2) = (vec![9.0; 2 * n], vec![0.5; n]);
            rms_norm_backward(isa, &others(&x), &w, EPS, &others(&dy), &mut dx2, &mut dw2);
            assert_eq!(dx[n..2 * n], vec![0.0; n]);
            assert_eq!((others(&dx), &dw), (dx2, &dw2));
            [dx, dw].concat()
        });
    }
}

#[test]
fn rows_do_not_see_each_other() {
    let (x, w) = (numbers(7, 5 * 37), numbers(8, 37));
    let mut all = vec![0.0; x.len()];
    rms_norm(Isa::best(), &x, &w, EPS, &mut all);
    for (x, want) in x.chunks(37).zip(all.chunks(37)) {
        let mut one = [0.0; 37];
        rms_norm(Isa::best(), x, &w, EPS, &mut one);
        assert_eq!(one, *want);
    }
}
