//! Against the algorithm as printed, in f64, on every path.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;

fn step(t: i32, weight_decay: f32, grad_scale: f32) -> AdamWStep {
    let (beta1, beta2) = (0.9f32, 0.95f32);
    AdamWStep {
        lr: 3e-3,
        beta1,
        beta2,
        eps: 1e-8,
        weight_decay,
        bias_correction1: 1.0 - beta1.powi(t),
        bias_correction2: 1.0 - beta2.powi(t),
        grad_scale,
    }
}

#[test]
fn steps_follow_the_algorithm() {
    for n in SIZES {
        let start = numbers(1, n);
        let gradients: Vec<Vec<f32>> = (0..5).map(|t| numbers(10 + t, n)).collect();
        let got = on_every_path("adamw", |isa| {
            let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
            for (t, g) in (1..).zip(&gradients) {
                adamw(isa, &step(t, 0.1, 0.25), &mut p, g, &mut m, &mut v);
            }
            [p, m, v].concat()
        });
        let (mut p, mut m, mut v) = (wide(&start), vec![0.0; n], vec![0.0; n]);
        let (lr, b1, b2) = (f64::from(3e-3f32), f64::from(0.9f32), f64::from(0.95f32));
        for (t, g) in (1..).zip(&gradients) {
            for i in 0..n {
                let g = f64::from(g[i]) * 0.25;
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let (mean, square) = (m[i] / (1.0 - b1.powi(t)), v[i] / (1.0 - b2.powi(t)));
                p[i] -= lr * (mean / (square.sqrt() + 1e-8) + f64::from(0.1f32) * p[i]);
            }
        }
        assert_close("p", &got[..n], &p, 1e-6);
        assert_close("m", &got[n..2 * n], &m, 2e-6);
        assert_close("v", &got[2 * n..], &v, 2e-6);
    }
}

#[test]
fn without_a_gradient_only_decay_moves_a_parameter() {
    let (mut p, mut m, mut v) = ([2.0; 3], [0.0; 3], [0.0; 3]);
    adamw(Isa::best(), &step(1, 0.0, 1.0), &mut p, &[0.0; 3], &mut m, &mut v);
    assert_eq!((p, m, v), ([2.0; 3], [0.0; 3], [0.0; 3]));
    adamw(Isa::best(), &step(2, 0.1, 1.0), &mut p, &[0.0; 3], &mut m, &mut v);
    assert_close("decay", &p, &[2.0 * (1.0 - 3e-4); 3], 1e-7);
}

#[test]
fn the_first_step_has_the_size_of_the_learning_rate() {
    for scale in [1e-3f32, 1.0, 1e3] {
        let (mut p, mut m, mut v) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        adamw(Isa::best(), &step(1, 0.0, scale), &mut p, &[5.0, -5.0], &mut m, &mut v);
        assert_close("first step", &p, &[-3e-3, 3e-3], 1e-5);
    }
}
