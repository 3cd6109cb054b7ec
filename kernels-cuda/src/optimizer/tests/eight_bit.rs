//! AdamW with 8-bit moments: the bits of the CPU's.

use onebit_kernels_cpu::adamw8bit::{Draw, EightBit};

use super::*;

const CONSTANTS: AdamW = AdamW {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
};

/// Parameters and moments on the host.
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

    /// The step that the kernel makes, block by block, because they differ in decay.
    fn step(&mut self, g: &[f32], scalars: &StepScalars, grad_scale: f32, decay: &[u8]) {
        for (block, decay) in decay.iter().enumerate() {
            let span = block * BLOCK..(block + 1) * BLOCK;
            let numbers = AdamWStep {
                lr: scalars.lr,
                beta1: CONSTANTS.beta1,
                beta2: CONSTANTS.beta2,
                eps: CONSTANTS.eps,
                weight_decay: if *decay == 0 { 0.0 } else { scalars.weight_decay },
                bias_correction1: scalars.bias_correction1,
                bias_correction2: scalars.bias_correction2,
                grad_scale,
            };
            let draw = Draw {
                step: scalars.step,
                element: span.start as u32,
            };
            let [first_scale, second_scale] = &mut self.scales;
            let moments = EightBit {
                first: &mut self.first[span.clone()],
                second: &mut self.second[span.clone()],
                first_scale: &mut first_scale[block..=block],
                second_scale: &mut second_scale[block..=block],
            };
            let (p, g) = (&mut self.p[span.clone()], &g[span]);
            onebit_kernels_cpu::adamw8bit::adamw8bit(Isa::best(), &numbers, draw, p, g, moments);
        }
    }
}

#[test]
fn the_kernel_has_the_bits_of_the_cpu() {
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
            element: 0,
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
        element: 0,
    };
    let step = Step::new(&gpu);
    let decay = gpu.zeros::<u8>(2).unwrap();
    let run = |moments| {
        let g = Gradients::F32(&p);
        adamw8bit(&gpu, CONSTANTS, &p, g, moments, &decay, &step.scalars, &step.guard)
    };
    assert!(run(moments).is_err());
    let two = gpu.zeros::<f32>(2).unwrap();
    let fits = EightBitMoments {
        first_scale: &two,
        second_scale: &two,
        ..moments
    };
    assert!(run(fits).is_ok());
    assert!(run(EightBitMoments { element: 128, ..fits }).is_err());
}

/// A slice that knows the number of its first element is what it would be in the whole.
#[test]
fn slices_draw_what_the_whole_does() {
    let Some(gpu) = Gpu::for_test("adamw8bit, slices") else {
        return;
    };
    let key = Key::new(seed("adamw8bit, slices"), 0, 0);
    let (n, step) = (9 * BLOCK, Step::new(&gpu));
    let decay = gpu.upload(&[1u8, 0, 1, 1, 0, 0, 1, 0, 1]).unwrap();
    let weights = normals(&key, 1, n, 1.0);
    let run = |slices: &[std::ops::Range<usize>], offset: usize| {
        let p = gpu.upload(&weights).unwrap();
        let (first, second) = (gpu.zeros::<i8>(n).unwrap(), gpu.zeros::<u8>(n).unwrap());
        let [first_scale, second_scale] = [0; 2].map(|_| gpu.zeros::<f32>(9).unwrap());
        for t in 0..3 {
            let g = gpu.upload(&normals(&key, 2 + u64::from(t), n, 0.1)).unwrap();
            let scalars = StepScalars::new(t, 1e-2, 0.1, CONSTANTS.beta1, CONSTANTS.beta2);
            gpu.write(&step.scalars, &scalars.words()).unwrap();
            for blocks in slices {
                let span = blocks.start * BLOCK..blocks.end * BLOCK;
                let moments = EightBitMoments {
                    first: &first.slice(span.clone()),
                    second: &second.slice(span.clone()),
                    first_scale: &first_scale.slice(blocks.clone()),
                    second_scale: &second_scale.slice(blocks.clone()),
                    element: span.start + offset,
                };
                let (p, g) = (p.slice(span.clone()), g.slice(span));
                let decay = decay.slice(blocks.clone());
                let g = Gradients::F32(&g);
                adamw8bit(&gpu, CONSTANTS, &p, g, moments, &decay, &step.scalars, &step.guard).unwrap();
            }
        }
        let scales = [&first_scale, &second_scale].map(|s| bits(&gpu.download(s).unwrap()));
        let codes = (gpu.download(&first).unwrap(), gpu.download(&second).unwrap());
        (bits(&gpu.download(&p).unwrap()), codes, scales)
    };
    let whole = run(std::slice::from_ref(&(0..9)), 0);
    assert!(whole == run(&[0..2, 2..3, 3..9], 0));
    assert!(
        whole.1 != run(std::slice::from_ref(&(0..9)), BLOCK).1,
        "draws that do not depend on the place"
    );
    // The hash has 32 bits of the number.
    assert!(whole == run(&[5..9, 0..5], 1 << 32));
}
