use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::isa::Isa;
use crate::rng::Key;

/// Values in −1..1.
fn values(seed: u64, n: usize) -> Vec<f32> {
    let key = Key::new(seed, 3, 0);
    (0..n as u64).map(|i| 2.0 * key.uniform(i) - 1.0).collect()
}

fn length(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|v| v * v).sum::<f64>().sqrt()
}

#[test]
fn no_product_is_above_its_bound_and_none_is_far_below() {
    const COLS: usize = 96;
    for rows in [0, 1, 15, 16, 17, 64] {
        let (w, x) = (values(1, rows * COLS), values(2, COLS));
        let (w_step, x_step) = (1.0 / 127.0f32, 1.0 / 100.0f32);
        let to_bytes = |v: &[f32], step: f32| -> Vec<i32> { v.iter().map(|v| (v / step).round() as i32).collect() };
        let (wq, xq) = (to_bytes(&w, w_step), to_bytes(&x, x_step));
        let off = |v: &[f32], q: &[i32], step: f32| {
            length(
                v.iter()
                    .zip(q)
                    .map(|(v, q)| f64::from(*v) - f64::from(*q) * f64::from(step)),
            ) as f32
        };
        let by_row = |f: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..rows).map(f).collect() };
        let at = |r: usize| r * COLS..(r + 1) * COLS;
        let lengths = by_row(&|r| length(wq[at(r)].iter().map(|q| f64::from(*q) * f64::from(w_step))) as f32);
        let offs = by_row(&|r| off(&w[at(r)], &wq[at(r)], w_step));
        let sums: Vec<i32> = (0..rows)
            .map(|r| wq[at(r)].iter().zip(&xq).map(|(w, x)| w * x).sum())
            .collect();
        let input = Input {
            step: x_step,
            length: length(x.iter().map(|v| f64::from(*v))) as f32,
            off: off(&x, &xq, x_step),
        };
        let figures = Rows {
            unit: &vec![w_step; rows],
            length: &lengths,
            off: &offs,
        };
        for isa in Isa::available() {
            let mut found = vec![f32::NAN; rows];
            let largest = most(isa, &sums, figures, input, &mut found);
            assert_eq!(largest, found.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            for (r, found) in found.iter().enumerate() {
                let exact: f64 = (w[at(r)].iter().zip(&x))
                    .map(|(w, x)| f64::from(*w) * f64::from(*x))
                    .sum();
                let room = f64::from(lengths[r] * input.off + offs[r] * input.length);
                let above = f64::from(*found) - exact;
                assert!(
                    above > -1e-5 && above < 2.0 * room + 1e-5,
                    "{} row {r}: {above}",
                    isa.name()
                );
            }
        }
    }
}
