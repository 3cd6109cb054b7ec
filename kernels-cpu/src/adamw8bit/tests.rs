//! Against a plain twin bit for bit on every path, and what the rounding is for.

use alloc::vec;
use alloc::vec::Vec;
use std::println;

use super::*;
use crate::elementwise::testing::*;
use crate::isa::Isa;
use crate::rng::Key;

const BETAS: (f32, f32) = (0.9, 0.999);

fn step(t: i32, weight_decay: f32, lr: f32) -> AdamWStep {
    let (beta1, beta2) = BETAS;
    AdamWStep {
        lr,
        beta1,
        beta2,
        eps: 1e-8,
        weight_decay,
        bias_correction1: 1.0 - beta1.powi(t),
        bias_correction2: 1.0 - beta2.powi(t),
        grad_scale: 0.25,
    }
}

mod twin {
    //! The formulas, value by value.

    pub fn open_mean(code: i8, scale: f32) -> f32 {
        let q = f32::from(code) * (1.0 / 127.0);
        q * q.abs() * scale
    }

    pub fn open_square(code: u8, scale: f32) -> f32 {
        let k = (f32::from(code) + 1.0) * (1.0 / 256.0);
        (k * k) * (k * k) * scale
    }

    pub fn close_mean(m: f32, inverse: f32, uniform: f32) -> i8 {
        let y = (m.abs() * inverse).min(1.0) * 16129.0;
        let q = y.sqrt().floor();
        let up = uniform * (2.0 * q + 1.0) < (-q).mul_add(q, y);
        let code = q as i8 + i8::from(up && q < 127.0);
        if m < 0.0 { -code } else { code }
    }

    pub fn close_square(v: f32, inverse: f32, uniform: f32) -> u8 {
        let w = (v * inverse).min(1.0);
        let k = (256.0 * (v.sqrt() * inverse.sqrt()).sqrt()).floor().clamp(1.0, 256.0);
        let square = k * k;
        let distance = (4.0 * k).mul_add(square, 6.0f32.mul_add(square, 4.0f32.mul_add(k, 1.0)));
        let up = uniform * distance < (-square).mul_add(square, w * 4_294_967_296.0);
        (k as i32 - 1 + i32::from(up)).min(255) as u8
    }
}

#[derive(Clone)]
struct State {
    p: Vec<f32>,
    first: Vec<i8>,
    second: Vec<u8>,
    scales: [Vec<f32>; 2],
}

impl State {
    fn new(p: Vec<f32>) -> Self {
        let (n, blocks) = (p.len(), p.len().div_ceil(BLOCK));
        State {
            p,
            first: vec![0; n],
            second: vec![0; n],
            scales: [vec![0.0; blocks], vec![0.0; blocks]],
        }
    }

    fn step(&mut self, isa: Isa, numbers: &AdamWStep, draw: Draw, g: &[f32]) {
        let [first_scale, second_scale] = &mut self.scales;
        let moments = EightBit {
            first: &mut self.first,
            second: &mut self.second,
            first_scale,
            second_scale,
        };
        adamw8bit(isa, numbers, draw, &mut self.p, g, moments);
    }

    fn twin_step(&mut self, numbers: &AdamWStep, draw: Draw, g: &[f32]) {
        let f = Factors::of(numbers);
        for block in 0..self.scales[0].len() {
            let span = block * BLOCK..self.p.len().min((block + 1) * BLOCK);
            let (mut mean, mut square) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
            for (j, i) in span.clone().enumerate() {
                let g = g[i] * f.grad_scale;
                let (m, v) = (
                    twin::open_mean(self.first[i], self.scales[0][block]),
                    twin::open_square(self.second[i], self.scales[1][block]),
                );
                mean[j] = f.beta1.mul_add(m, f.rest1 * g);
                square[j] = f.beta2.mul_add(v, f.rest2 * (g * g));
                let denominator = square[j].sqrt().mul_add(f.root_scale, f.eps);
                self.p[i] = (-f.step_size).mul_add(mean[j] / denominator, self.p[i] * f.keep);
            }
            let most = |x: &[f32]| Some(x.iter().fold(0.0, |most: f32, x| most.max(x.abs()))).filter(|m| *m > 1e-37);
            let most = [most(&mean), most(&square)];
            let inverse = most.map(|m| m.map_or(0.0, |m| 1.0 / m));
            for (j, i) in span.enumerate() {
                let random = hash(draw.element + i as u32, draw.step);
                let uniform = |half: u32| (half as f32 + 0.5) * (1.0 / 65536.0);
                self.first[i] = twin::close_mean(mean[j], inverse[0], uniform(random & 0xffff));
                self.second[i] = twin::close_square(square[j], inverse[1], uniform(random >> 16));
            }
            for k in 0..2 {
                self.scales[k][block] = most[k].unwrap_or(0.0);
            }
        }
    }

    fn numbers(&self) -> Vec<f32> {
        let codes = self.first.iter().map(|&c| f32::from(c));
        let codes = codes.chain(self.second.iter().map(|&c| f32::from(c)));
        codes
            .chain(self.scales.iter().flatten().copied())
            .chain(self.p.iter().copied())
            .collect()
    }
}

#[test]
fn every_path_is_the_twin() {
    for n in SIZES {
        let start = numbers(1, n);
        // Gradients of very different sizes; none at all in some blocks, and so small in others that the scales vanish.
        let sized = |(i, x): (usize, f32)| match i / BLOCK {
            2 => 0.0,
            3 => x * 1e-30,
            _ => x * 10f32.powi(-((i % 5) as i32)),
        };
        // Made once: `powi` may be rounded otherwise where it is compiled a second time.
        let steps: Vec<(AdamWStep, Draw, Vec<f32>)> = (0..6)
            .map(|t| {
                let g = numbers(10 + t as u64, n).into_iter().enumerate().map(sized);
                let draw = Draw {
                    step: t as u32,
                    element: 512,
                };
                (step(t + 1, 0.1, 3e-3), draw, g.collect())
            })
            .collect();
        let got = on_every_path("adamw8bit", |isa| {
            let mut state = State::new(start.clone());
            for (step, draw, g) in &steps {
                state.step(isa, step, *draw, g);
            }
            state.numbers()
        });
        let mut twin = State::new(start.clone());
        for (step, draw, g) in &steps {
            twin.twin_step(step, *draw, g);
        }
        for (i, (a, b)) in got.iter().zip(&twin.numbers()).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{n}: value {i} is {a:e}, expected {b:e}");
        }
    }
}

#[test]
fn codes_are_their_own_fixed_points() {
    let s = crate::isa::Scalar;
    let first = |x: <crate::isa::Scalar as Simd>::F| {
        let mut lanes = [0.0; LANES];
        s.store(x, &mut lanes);
        lanes[0]
    };
    for uniform in [0.01, 0.99] {
        let u = s.splat(uniform);
        for q in -127..=127i8 {
            let opened = open_mean(s, s.splat(f32::from(q)), 1.0);
            assert!((first(close_mean(s, opened, 1.0, u)) - f32::from(q)).abs() <= 1.0);
        }
        assert_eq!(first(close_mean(s, s.splat(-1.0), 1.0, u)), -127.0);
        for q in 0..=255u8 {
            let opened = open_square(s, s.splat(f32::from(q)), 1.0);
            assert!((first(close_square(s, opened, 1.0, u)) - f32::from(q)).abs() <= 1.0);
            let mut stored = [0; LANES];
            store_u8(s, s.splat(f32::from(q)), &mut stored);
            assert_eq!((stored, first(load_u8(s, &stored))), ([q; LANES], f32::from(q)));
        }
        assert_eq!(first(close_square(s, s.splat(1.0), 1.0, u)), 255.0);
        assert_eq!(first(close_mean(s, s.splat(0.0), 1.0, u)), 0.0);
        assert_eq!(first(close_square(s, s.splat(0.0), 1.0, u)), 0.0);
    }
}

/// The mean over many draws is the value.
#[test]
fn rounding_has_no_bias() {
    for x in [1e-6f32, 1e-4, 0.003, 0.1, 0.37, 0.9] {
        let draws = 20_000;
        let uniform = |i: u32, shift: u32| ((hash(i, 5) >> shift & 0xffff) as f32 + 0.5) / 65536.0;
        let mean = |draw: &dyn Fn(u32) -> f32| (0..draws).map(|i| f64::from(draw(i))).sum::<f64>() / f64::from(draws);
        let m = mean(&|i| twin::open_mean(twin::close_mean(x, 1.0, uniform(i, 0)), 1.0));
        let v = mean(&|i| twin::open_square(twin::close_square(x, 1.0, uniform(i, 16)), 1.0));
        // Four standard errors: a draw is off by at most the distance of two codes.
        let code_m = 2.0 * f64::from(x.sqrt()) / 127.0 + 1.0 / 16129.0;
        let code_v = 4.0 * f64::from(x.powf(0.75)) / 256.0 * 1.5;
        let error = 4.0 * 0.5 / f64::from(draws).sqrt();
        assert!((m - f64::from(x)).abs() <= error * code_m, "m {x}: {m}");
        assert!((v - f64::from(x)).abs() <= error * code_v, "v {x}: {v}");
    }
}

/// A few hundred steps down a noisy bowl of very different curvatures.
#[test]
fn it_descends_as_far_as_with_f32_moments() {
    let (key, n, steps) = (Key::new(3, 0, 0), BLOCK, 600);
    let curvature: Vec<f32> = (0..n).map(|i| 10f32.powf(-3.0 * key.uniform(i as u64))).collect();
    let start = numbers(4, n);
    let loss = |p: &[f32]| p.iter().zip(&curvature).map(|(p, c)| c * p * p).sum::<f32>();
    let mut eight = State::new(start.clone());
    let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
    for t in 0..steps {
        let numbers = step(t + 1, 0.0, 0.02 * (1.0 - t as f32 / steps as f32));
        let noise = super::tests::numbers(100 + t as u64, n);
        let gradient = |p: &[f32]| -> Vec<f32> { (0..n).map(|i| curvature[i] * (p[i] + 0.1 * noise[i])).collect() };
        let draw = Draw {
            step: t as u32,
            element: 0,
        };
        let g = gradient(&eight.p);
        eight.step(Isa::best(), &numbers, draw, &g);
        let g = gradient(&p);
        crate::adamw::adamw(Isa::best(), &numbers, &mut p, &g, &mut m, &mut v);
    }
    let (first, eight, wide) = (loss(&start), loss(&eight.p), loss(&p));
    println!("loss {first} -> {eight} with 8 bits, {wide} with 32");
    assert!(
        eight < first / 100.0 && eight < 1.5 * wide + first / 1e4,
        "{first} -> {eight}, {wide}"
    );
}
