//! The norm and Muon against f64, AdamW, with moments in f32 and in 8 bits, against the CPU's bit for bit.

use half::bf16;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::adamw::AdamWStep;
use onebit_kernels_cpu::rng::Key;

use super::*;

mod bench;
mod eight_bit;
mod muon_tests;

fn seed(test: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = now.map_or(1, |d| d.as_nanos() as u64);
    println!("{test}: seed {seed}");
    seed
}

fn normals(key: &Key, purpose: u64, n: usize, size: f32) -> Vec<f32> {
    (0..n as u64).map(|i| size * key.normal(purpose << 40 | i)).collect()
}

fn narrow(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// What a step has besides its arenas.
struct Step {
    scalars: DeviceArray<u32>,
    guard: DeviceArray<u32>,
    partials: DeviceArray<u64>,
    losses: DeviceArray<f32>,
}

impl Step {
    fn new(gpu: &Gpu) -> Self {
        Step {
            scalars: gpu.upload(&StepScalars::new(0, 1e-3, 0.1, 0.9, 0.95).words()).unwrap(),
            guard: gpu.upload(&Guard::words(0)).unwrap(),
            partials: gpu.poisoned(NORM_PARTIALS).unwrap(),
            losses: gpu.upload(&[1.0f32, 2.0, 3.0]).unwrap(),
        }
    }

    fn norm(&self, gpu: &Gpu, gradients: Gradients, max_norm: f32) -> Guard {
        global_norm(
            gpu,
            &[gradients],
            &self.losses,
            max_norm,
            &self.scalars,
            &self.partials,
            &self.guard,
        )
        .unwrap();
        Guard::from_words(gpu.download(&self.guard).unwrap().try_into().unwrap())
    }
}

#[test]
fn the_norm_is_that_of_all_gradients() {
    let Some(gpu) = Gpu::for_test("global norm") else {
        return;
    };
    let key = Key::new(seed("norm"), 0, 0);
    let step = Step::new(&gpu);
    let some = normals(&key, 1, 256 * 37, 0.01);
    // 1024 blocks of 256 threads with 8 chunks of 4 at a time: the second time begins at 2^23.
    for n in [0, 256, 256 * 37, (1 << 23) + 512] {
        let g: Vec<f32> = some.iter().copied().cycle().take(n).collect();
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let rounded: Vec<f32> = narrow(&g).iter().map(|x| x.to_f32()).collect();
        let (f, b) = (gpu.upload(&g).unwrap(), gpu.upload(&narrow(&g)).unwrap());
        for (gradients, want) in [(Gradients::F32(&f), wide(&g)), (Gradients::Bf16(&b), wide(&rounded))] {
            let free = step.norm(&gpu, gradients, 0.0);
            assert!(
                (f64::from(free.norm) - want).abs() <= 2e-7 * want,
                "{n}: {} for {want}",
                free.norm
            );
            assert_eq!((free.scale, free.applies), (1.0, true));
            if n > 1 << 20 && gpu.properties().name.contains("emulated") {
                continue;
            }
            let clipped = step.norm(&gpu, gradients, 0.1);
            let expected = if want > 0.1 { 0.1f32 / free.norm } else { 1.0 };
            assert!(
                (clipped.scale - expected).abs() <= 2e-7,
                "{n}: {} for {expected}",
                clipped.scale
            );
            assert_eq!(step.norm(&gpu, gradients, 1e9).scale, 1.0);
        }
    }
}

#[test]
fn the_norm_is_that_of_several_arenas() {
    let Some(gpu) = Gpu::for_test("global norm of arenas") else {
        return;
    };
    let key = Key::new(seed("norm of arenas"), 0, 0);
    let step = Step::new(&gpu);
    let (a, b, c) = (
        normals(&key, 1, 256 * 5, 0.1),
        normals(&key, 2, 256 * 300, 0.01),
        normals(&key, 3, 256, 1.0),
    );
    let rounded: Vec<f32> = narrow(&b).iter().map(|x| x.to_f32()).collect();
    let all = a.iter().chain(&rounded).chain(&c);
    let want = all.map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (a, b, c) = (
        gpu.upload(&a).unwrap(),
        gpu.upload(&narrow(&b)).unwrap(),
        gpu.upload(&c).unwrap(),
    );
    let partials = gpu.poisoned(3 * NORM_PARTIALS).unwrap();
    let arenas = [Gradients::F32(&a), Gradients::Bf16(&b), Gradients::F32(&c)];
    let norm = |arenas: &[Gradients], partials: &DeviceArray<u64>| {
        global_norm(&gpu, arenas, &step.losses, 1.0, &step.scalars, partials, &step.guard)
    };
    norm(&arenas, &partials).unwrap();
    let guard = Guard::from_words(gpu.download(&step.guard).unwrap().try_into().unwrap());
    assert!(
        (f64::from(guard.norm) - want).abs() <= 2e-7 * want,
        "{guard:?} for {want}"
    );
    assert!((f64::from(guard.scale) - 1.0 / want).abs() <= 2e-7 / want);
    assert!(
        norm(&arenas[..2], &partials).is_err(),
        "room for another number of arenas"
    );
    // A number that is not finite in the last of them.
    gpu.write(&c, &[f32::NAN; 256]).unwrap();
    norm(&arenas, &partials).unwrap();
    let guard = Guard::from_words(gpu.download(&step.guard).unwrap().try_into().unwrap());
    assert!(!guard.applies);
}

/// Ranks that have slices of the gradients, and end with what all have found.
#[test]
fn the_norm_of_slices_is_the_same_on_all_ranks() {
    let Some(gpu) = Gpu::for_test("global norm of slices") else {
        return;
    };
    let key = Key::new(seed("norm of slices"), 0, 0);
    let step = Step::new(&gpu);
    let g = normals(&key, 1, 256 * 40, 0.1);
    let wide = gpu.upload(&g).unwrap();
    let narrow = gpu.upload(&narrow(&g)).unwrap();
    let rounded = g[256 * 20..].iter().map(|&x| bf16::from_f32(x).to_f32());
    let all = g[..256 * 20].iter().copied().chain(rounded);
    let want = all.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    // The first half in f32, the second in bf16; the third rank has none.
    let slices = [
        vec![(0..7, true), (20..21, false), (30..40, false)],
        vec![(7..20, true), (21..30, false)],
        vec![],
    ];
    let sum_of = |slices: &[(std::ops::Range<usize>, bool)], losses: &DeviceArray<f32>| {
        let sum = gpu.poisoned::<u64>(1).unwrap();
        let span = |blocks: &std::ops::Range<usize>| blocks.start * BLOCK..blocks.end * BLOCK;
        let f32s: Vec<_> = slices.iter().map(|(blocks, _)| wide.slice(span(blocks))).collect();
        let bf16s: Vec<_> = slices.iter().map(|(blocks, _)| narrow.slice(span(blocks))).collect();
        let of = |(i, (_, wide)): (usize, &(_, bool))| match wide {
            true => Gradients::F32(&f32s[i]),
            false => Gradients::Bf16(&bf16s[i]),
        };
        let gradients: Vec<_> = slices.iter().enumerate().map(of).collect();
        sum_of_squares(&gpu, &gradients, losses, &step.partials, &sum).unwrap();
        gpu.download(&sum).unwrap()[0]
    };
    let none = gpu.zeros::<f32>(0).unwrap();
    let end = |sums: &[u64]| {
        let sums = gpu.upload(sums).unwrap();
        norm_of_sums(&gpu, &sums, &none, 0.5, &step.scalars, &step.guard).unwrap();
        let guard = gpu.download(&step.guard).unwrap();
        gpu.write(&step.guard, &Guard::words(0)).unwrap();
        Guard::from_words(guard.try_into().unwrap())
    };
    let mut sums: Vec<u64> = slices.iter().map(|s| sum_of(s, &step.losses)).collect();
    assert_eq!(sums[2], 0);
    let guard = end(&sums);
    assert!(
        (f64::from(guard.norm) - want).abs() <= 2e-7 * want,
        "{guard:?} for {want}"
    );
    assert!((f64::from(guard.scale) - 0.5 / want).abs() <= 2e-7 / want);
    assert_eq!(end(&sums), guard);
    // One rank has what the whole has, to the last bit of an f32.
    let whole = step.norm(&gpu, Gradients::F32(&wide.slice(..20 * BLOCK)), 0.0);
    assert_eq!(end(&[sum_of(&[(0..20, true)], &none)]).norm, whole.norm);
    // A loss of a rank without gradients shuts the guard of all.
    sums[2] = sum_of(&slices[2], &gpu.upload(&[1.0, f32::INFINITY]).unwrap());
    assert!(!end(&sums).applies);
    let partials = gpu.zeros(NORM_PARTIALS).unwrap();
    let sum = gpu.zeros(2).unwrap();
    assert!(sum_of_squares(&gpu, &[], &none, &partials, &sum).is_err());
    assert!(sum_of_squares(&gpu, &[], &none, &partials.slice(1..), &sum.slice(1..)).is_err());
    let odd = wide.slice(..100);
    assert!(sum_of_squares(&gpu, &[Gradients::F32(&odd)], &none, &partials, &sum.slice(1..)).is_err());
    assert!(norm_of_sums(&gpu, &sum, &none, 0.5, &step.scalars, &step.scalars).is_err());
}

#[test]
fn the_guard_shuts_for_a_step_and_after_some_for_good() {
    let Some(gpu) = Gpu::for_test("guard") else { return };
    let step = Step::new(&gpu);
    let mut g = vec![0.5f32; 512];
    let fine = gpu.upload(&g).unwrap();
    for (bad_gradient, bad_loss) in [
        (f32::NAN, 1.0),
        (f32::INFINITY, 1.0),
        (1.0, f32::NAN),
        (1.0, f32::NEG_INFINITY),
    ] {
        let scalars = StepScalars {
            limit: 3,
            ..StepScalars::new(6, 1e-3, 0.1, 0.9, 0.95)
        };
        gpu.write(&step.scalars, &scalars.words()).unwrap();
        g[300] = bad_gradient;
        let bad = gpu.upload(&g).unwrap();
        let found = |is_bad: bool| {
            let loss = if is_bad { bad_loss } else { 1.0 };
            gpu.write(&step.losses, &[1.0, 2.0, loss]).unwrap();
            let guard = step.norm(&gpu, Gradients::F32(if is_bad { &bad } else { &fine }), 1.0);
            (guard.applies, guard.in_a_row)
        };
        let steps = [false, true, true, false, true, true, true, false, true];
        let expected = [
            (true, 0),
            (false, 1),
            (false, 2),
            (true, 0),
            (false, 1),
            (false, 2),
            (false, 3),
            // Shut for good.
            (false, 3),
            (false, 3),
        ];
        assert_eq!(steps.map(found), expected);
        g[300] = 0.5;

        // A shut guard stops every form of the update.
        let (p, m, v) = (
            gpu.upload(&g).unwrap(),
            gpu.upload(&g).unwrap(),
            gpu.upload(&g).unwrap(),
        );
        let decay = gpu.upload(&[1u8; 2]).unwrap();
        let codes = gpu.upload(&[9u8; 512]).unwrap();
        let scales = gpu.upload(&[3.0f32; 2]).unwrap();
        let constants = AdamW {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
        };
        let gradients = Gradients::F32(&fine);
        adamw(
            &gpu,
            constants,
            &p,
            gradients,
            (&m, &v),
            &decay,
            &step.scalars,
            &step.guard,
        )
        .unwrap();
        let moments = EightBitMoments {
            first: &codes.cast(),
            second: &codes,
            first_scale: &scales,
            second_scale: &scales,
            element: 0,
        };
        adamw8bit(
            &gpu,
            constants,
            &p,
            gradients,
            moments,
            &decay,
            &step.scalars,
            &step.guard,
        )
        .unwrap();
        let x = gpu.upload(&narrow(&g)).unwrap();
        let batch = muon::Batch::new(&gpu, gpu.zeros(1).unwrap(), &[0], g.len()).unwrap();
        muon::momentum(&gpu, &batch, &fine, &m, 0.95, &step.guard, &step.partials).unwrap();
        muon::normalize(&gpu, &batch, &fine, &m, 0.95, &step.guard, &step.partials, &x).unwrap();
        muon::update(&gpu, &batch, &p, &x, 1.0, &step.scalars, &step.guard).unwrap();
        for array in [&p, &m, &v] {
            assert_eq!(bits(&gpu.download(array).unwrap()), bits(&g));
        }
        assert_eq!(gpu.download(&codes).unwrap(), [9; 512]);
        assert_eq!(gpu.download(&scales).unwrap(), [3.0; 2]);
        gpu.write(&step.guard, &Guard::words(0)).unwrap();
    }
}

#[test]
fn adamw_has_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("adamw") else { return };
    let key = Key::new(seed("adamw"), 0, 0);
    let constants = AdamW {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
    };
    for (n, wide) in [(0, true), (256, true), (256 * 13, true), (256 * 13, false)] {
        let step = Step::new(&gpu);
        let mut want = [normals(&key, 1, n, 1.0), vec![0.0; n], vec![0.0; n]];
        let [p, m, v] = [0, 1, 2].map(|i| gpu.upload(&want[i]).unwrap());
        let flags: Vec<u8> = (0..n / BLOCK).map(|i| (i % 3 != 1) as u8).collect();
        let decay = gpu.upload(&flags).unwrap();
        for t in 0..4 {
            let mut g = normals(&key, 2 + u64::from(t), n, 0.3);
            let (wide_g, narrow_g) = (gpu.upload(&g).unwrap(), gpu.upload(&narrow(&g)).unwrap());
            let gradients = if wide {
                Gradients::F32(&wide_g)
            } else {
                Gradients::Bf16(&narrow_g)
            };
            if !wide {
                g = narrow(&g).iter().map(|x| x.to_f32()).collect();
            }
            let scalars = StepScalars::new(t, 3e-3, 0.1, constants.beta1, constants.beta2);
            gpu.write(&step.scalars, &scalars.words()).unwrap();
            let guard = step.norm(&gpu, gradients, 1.0);
            assert!(n == 0 || guard.scale < 1.0);
            adamw(
                &gpu,
                constants,
                &p,
                gradients,
                (&m, &v),
                &decay,
                &step.scalars,
                &step.guard,
            )
            .unwrap();
            let [wp, wm, wv] = &mut want;
            for (block, flag) in flags.iter().enumerate() {
                let span = block * BLOCK..(block + 1) * BLOCK;
                let numbers = AdamWStep {
                    lr: scalars.lr,
                    beta1: constants.beta1,
                    beta2: constants.beta2,
                    eps: constants.eps,
                    weight_decay: if *flag == 0 { 0.0 } else { 0.1 },
                    bias_correction1: scalars.bias_correction1,
                    bias_correction2: scalars.bias_correction2,
                    grad_scale: guard.scale,
                };
                let (p, m, v) = (&mut wp[span.clone()], &mut wm[span.clone()], &mut wv[span.clone()]);
                onebit_kernels_cpu::adamw::adamw(Isa::best(), &numbers, p, &g[span], m, v);
            }
            for (name, got, want) in [("p", &p, &want[0]), ("m", &m, &want[1]), ("v", &v, &want[2])] {
                assert_eq!(
                    bits(&gpu.download(got).unwrap()),
                    bits(want),
                    "{name} of {n} at step {t}"
                );
            }
        }
    }
}

#[test]
fn zeros_are_written_to_all() {
    let Some(gpu) = Gpu::for_test("zero") else { return };
    for n in [0, 4, 1020, 1028] {
        let array = gpu.poisoned::<f32>(n).unwrap();
        zero(&gpu, &array).unwrap();
        assert!(gpu.download(&array).unwrap().iter().all(|x| x.to_bits() == 0));
    }
    assert!(zero(&gpu, &gpu.zeros(6).unwrap()).is_err());
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("shapes of the optimiser") else {
        return;
    };
    let step = Step::new(&gpu);
    let [p, m, v] = [0; 3].map(|_| gpu.zeros::<f32>(1024).unwrap());
    let decay = gpu.zeros::<u8>(4).unwrap();
    let constants = AdamW {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
    };
    let run = |p: &DeviceArray<f32>, v: &DeviceArray<f32>, decay: &DeviceArray<u8>, guard: &DeviceArray<u32>| {
        adamw(
            &gpu,
            constants,
            p,
            Gradients::F32(&m),
            (&m, v),
            decay,
            &step.scalars,
            guard,
        )
    };
    assert!(run(&p, &v, &decay, &step.guard).is_ok());
    assert!(run(&p.slice(..512), &v, &decay, &step.guard).is_err());
    assert!(run(&p, &v.slice(..512), &decay, &step.guard).is_err());
    assert!(run(&p, &v, &decay.slice(..3), &step.guard).is_err());
    assert!(run(&p, &v, &decay, &step.scalars).is_err());
    let odd = Gradients::F32(&m.slice(..1000));
    let norm = |g, partials| global_norm(&gpu, &[g], &step.losses, 1.0, &step.scalars, partials, &step.guard);
    assert!(norm(odd, &step.partials).is_err());
    assert!(norm(Gradients::F32(&m), &step.partials.slice(1..)).is_err());
    let batch = muon::Batch::new(&gpu, gpu.zeros(1).unwrap(), &[0], 1024).unwrap();
    let short = p.slice(..1020);
    assert!(muon::momentum(&gpu, &batch, &p, &m.slice(4..), 0.9, &step.guard, &step.partials).is_err());
    assert!(muon::momentum(&gpu, &batch, &short, &m, 0.9, &step.guard, &step.partials).is_err());
    let x = gpu.zeros::<bf16>(1024).unwrap();
    assert!(muon::combine(&gpu, (1.0, &x), (1.0, &x.slice(8..)), &x).is_err());
    assert!(muon::update(&gpu, &batch, &p, &x.slice(8..), 1.0, &step.scalars, &step.guard).is_err());
}
