//! AdamW with 8-bit moments: a twin bit for bit, and what its rounding is for.

use super::*;

const CONSTANTS: AdamW = AdamW {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
};

fn hash(element: u32, step: u32) -> u32 {
    let mut x = element.wrapping_mul(0x9e37_79b9) ^ (step + 1).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

fn open_mean(code: i8, scale: f32) -> f32 {
    let q = f32::from(code) * (1.0 / 127.0);
    q * q.abs() * scale
}

fn open_square(code: u8, scale: f32) -> f32 {
    let k = (f32::from(code) + 1.0) * (1.0 / 256.0);
    (k * k) * (k * k) * scale
}

fn close_mean(m: f32, inverse: f32, uniform: f32) -> i8 {
    let y = (m.abs() * inverse).min(1.0) * 16129.0;
    let q = y.sqrt().floor();
    let up = uniform * (2.0 * q + 1.0) < (-q).mul_add(q, y);
    let code = q as i8 + i8::from(up && q < 127.0);
    if m < 0.0 { -code } else { code }
}

fn close_square(v: f32, inverse: f32, uniform: f32) -> u8 {
    let w = (v * inverse).min(1.0);
    let k = (256.0 * (v.sqrt() * inverse.sqrt()).sqrt()).floor().clamp(1.0, 256.0);
    let square = k * k;
    let distance = (4.0 * k).mul_add(square, 6.0f32.mul_add(square, 4.0f32.mul_add(k, 1.0)));
    let up = uniform * distance < (-square).mul_add(square, w * 4_294_967_296.0);
    (k as i32 - 1 + i32::from(up)).min(255) as u8
}

/// Parameters and moments on the host.
#[derive(Clone)]
struct State {
    p: Vec<f32>,
    first: Vec<i8>,
    second: Vec<u8>,
    scales: [Vec<f32>; 2],
}

impl State {
    fn new(p: Vec<f32>) -> Self {
        let n = p.len();
        State {
            p,
            first: vec![0; n],
            second: vec![0; n],
            scales: [vec![0.0; n / BLOCK], vec![0.0; n / BLOCK]],
        }
    }

    /// The step that the kernel makes.
    fn step(&mut self, g: &[f32], scalars: &StepScalars, grad_scale: f32, decay: &[u8]) {
        let [_, _, step_size, root_scale, keep, ..] = scalars.words().map(f32::from_bits);
        let AdamW { beta1, beta2, eps } = CONSTANTS;
        for (block, decay) in decay.iter().enumerate() {
            let span = block * BLOCK..(block + 1) * BLOCK;
            let (mut mean, mut square) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
            for (j, i) in span.clone().enumerate() {
                let g = g[i] * grad_scale;
                mean[j] = beta1.mul_add(open_mean(self.first[i], self.scales[0][block]), (1.0 - beta1) * g);
                square[j] = beta2.mul_add(
                    open_square(self.second[i], self.scales[1][block]),
                    (1.0 - beta2) * (g * g),
                );
                let denominator = square[j].sqrt().mul_add(root_scale, eps);
                let keep = if *decay == 0 { 1.0 } else { keep };
                self.p[i] = (-step_size).mul_add(mean[j] / denominator, self.p[i] * keep);
            }
            let most = |x: &[f32]| Some(x.iter().fold(0.0, |most: f32, x| most.max(x.abs()))).filter(|m| *m > 1e-37);
            let most = [most(&mean), most(&square)];
            let inverse = most.map(|m| m.map_or(0.0, |m| 1.0 / m));
            for (j, i) in span.enumerate() {
                let random = hash(i as u32, scalars.step);
                let uniform = |half: u32| (half as f32 + 0.5) * (1.0 / 65536.0);
                self.first[i] = close_mean(mean[j], inverse[0], uniform(random & 0xffff));
                self.second[i] = close_square(square[j], inverse[1], uniform(random >> 16));
            }
            for k in 0..2 {
                self.scales[k][block] = most[k].unwrap_or(0.0);
            }
        }
    }
}

#[test]
fn codes_are_their_own_fixed_points() {
    for uniform in [0.01, 0.99] {
        for q in -127..=127i8 {
            assert!((close_mean(open_mean(q, 1.0), 1.0, uniform) - q).abs() <= 1);
        }
        assert_eq!(close_mean(-1.0, 1.0, uniform), -127);
        for q in 0..=255u8 {
            assert!(close_square(open_square(q, 1.0), 1.0, uniform).abs_diff(q) <= 1);
        }
        assert_eq!(close_square(1.0, 1.0, uniform), 255);
        assert_eq!((close_mean(0.0, 1.0, uniform), close_square(0.0, 1.0, uniform)), (0, 0));
    }
}

/// The mean over many draws is the value.
#[test]
fn rounding_has_no_bias() {
    for x in [1e-6f32, 1e-4, 0.003, 0.1, 0.37, 0.9] {
        let draws = 20_000;
        let uniform = |i: u32, shift: u32| ((hash(i, 5) >> shift & 0xffff) as f32 + 0.5) / 65536.0;
        let mean = |draw: &dyn Fn(u32) -> f32| (0..draws).map(|i| f64::from(draw(i))).sum::<f64>() / f64::from(draws);
        let m = mean(&|i| open_mean(close_mean(x, 1.0, uniform(i, 0)), 1.0));
        let v = mean(&|i| open_square(close_square(x, 1.0, uniform(i, 16)), 1.0));
        // Four standard errors: a draw is off by at most the distance of two codes.
        let code_m = 2.0 * f64::from(x.sqrt()) / 127.0 + 1.0 / 16129.0;
        let code_v = 4.0 * f64::from(x.powf(0.75)) / 256.0 * 1.5;
        let error = 4.0 * 0.5 / f64::from(draws).sqrt();
        assert!((m - f64::from(x)).abs() <= error * code_m, "m {x}: {m}");
        assert!((v - f64::from(x)).abs() <= error * code_v, "v {x}: {v}");
    }
}

/// Its steps, the CPU's and the GPU's, over a few hundred steps of a noisy bowl of very different curvatures.
#[test]
fn it_descends_as_far_as_with_f32_moments() {
    let key = Key::new(seed("bowl"), 0, 0);
    let n = BLOCK;
    let curvature: Vec<f32> = (0..n).map(|i| 10f32.powf(-3.0 * key.uniform(i as u64))).collect();
    let start = normals(&key, 1, n, 1.0);
    let loss = |p: &[f32]| p.iter().zip(&curvature).map(|(p, c)| c * p * p).sum::<f32>();
    let mut state = State::new(start.clone());
    let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
    let steps = 600;
    for t in 0..steps {
        let lr = 0.02 * (1.0 - t as f32 / steps as f32);
        let scalars = StepScalars::new(t, lr, 0.0, CONSTANTS.beta1, CONSTANTS.beta2);
        let noise = normals(&key, 2 + u64::from(t), n, 0.1);
        let gradient = |p: &[f32]| -> Vec<f32> { (0..n).map(|i| curvature[i] * (p[i] + noise[i])).collect() };
        state.step(&gradient(&state.p), &scalars, 1.0, &[0]);
        let numbers = AdamWStep {
            lr,
            beta1: CONSTANTS.beta1,
            beta2: CONSTANTS.beta2,
            eps: CONSTANTS.eps,
            weight_decay: 0.0,
            bias_correction1: scalars.bias_correction1,
            bias_correction2: scalars.bias_correction2,
            grad_scale: 1.0,
        };
        let g = gradient(&p);
        onebit_kernels_cpu::adamw::adamw(Isa::best(), &numbers, &mut p, &g, &mut m, &mut v);
    }
    let (first, eight, wide) = (loss(&start), loss(&state.p), loss(&p));
    println!("loss {first} -> {eight} with 8 bits, {wide} with 32");
    assert!(
        eight < first / 100.0 && eight < 1.5 * wide + first / 1e4,
        "{first} -> {eight}, {wide}"
    );
}

#[test]
fn the_kernel_is_its_twin() {
    let Some(gpu) = Gpu::for_test("adamw8bit") else { return };
    let key = Key::new(seed("adamw8bit"), 0, 0);
    for (blocks, wide) in [(0, true), (1, true), (11, true), (8, false)] {
        let n = blocks * BLOCK;
        let step = Step::new(&gpu);
        let mut twin = State::new(normals(&key, 1, n, 1.0));
        let p = gpu.upload(&twin.p).unwrap();
        let (first, second) = (gpu.upload(&twin.first).unwrap(), gpu.upload(&twin.second).unwrap());
        let [first_scale, second_scale] = [0, 1].map(|k| gpu.upload(&twin.scales[k]).unwrap());
        let moments = EightBitMoments {
            first: &first,
            second: &second,
            first_scale: &first_scale,
            second_scale: &second_scale,
        };
        let flags: Vec<u8> = (0..blocks).map(|b| (b % 2) as u8).collect();
        let decay = gpu.upload(&flags).unwrap();
        for t in 0..5 {
            // Gradients of very different sizes; none at all in one block, and so small in another that the scales vanish.
            let size = |i: usize| match i / BLOCK {
                2 => 0.0,
                3 => 1e-30,
                _ => 10f32.powf(-4.0 * key.uniform(1 << 50 | i as u64)),
            };
            let mut g: Vec<f32> = normals(&key, 2 + u64::from(t), n, 1.0)
                .iter()
                .enumerate()
                .map(|(i, x)| x * size(i))
                .collect();
            let (wide_g, narrow_g) = (gpu.upload(&g).unwrap(), gpu.upload(&narrow(&g)).unwrap());
            let gradients = if wide {
                Gradients::F32(&wide_g)
            } else {
                Gradients::Bf16(&narrow_g)
            };
            if !wide {
                g = narrow(&g).iter().map(|x| x.to_f32()).collect();
            }
            let scalars = StepScalars::new(t, 1e-2, 0.1, CONSTANTS.beta1, CONSTANTS.beta2);
            gpu.write(&step.scalars, &scalars.words()).unwrap();
            let guard = step.norm(&gpu, gradients, 1.0);
            adamw8bit(
                &gpu,
                CONSTANTS,
                &p,
                gradients,
                moments,
                &decay,
                &step.scalars,
                &step.guard,
            )
            .unwrap();
            twin.step(&g, &scalars, guard.scale, &flags);
            assert_eq!(bits(&gpu.download(&p).unwrap()), bits(&twin.p), "p at step {t}");
            assert_eq!(
                bits(&gpu.download(&first_scale).unwrap()),
                bits(&twin.scales[0]),
                "scales of m at step {t}"
            );
            assert_eq!(
                bits(&gpu.download(&second_scale).unwrap()),
                bits(&twin.scales[1]),
                "scales of v at step {t}"
            );
            assert_eq!(gpu.download(&first).unwrap(), twin.first, "m at step {t}");
            assert_eq!(gpu.download(&second).unwrap(), twin.second, "v at step {t}");
        }
    }
    let short = gpu.zeros::<f32>(1).unwrap();
    let (p, first, second) = (
        gpu.zeros::<f32>(512).unwrap(),
        gpu.zeros::<i8>(512).unwrap(),
        gpu.zeros::<u8>(512).unwrap(),
    );
    let moments = EightBitMoments {
        first: &first,
        second: &second,
        first_scale: &short,
        second_scale: &short,
    };
    let step = Step::new(&gpu);
    let decay = gpu.zeros::<u8>(2).unwrap();
    assert!(
        adamw8bit(
            &gpu,
            CONSTANTS,
            &p,
            Gradients::F32(&p),
            moments,
            &decay,
            &step.scalars,
            &step.guard
        )
        .is_err()
    );
}
