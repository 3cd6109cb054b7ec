//! Muon's pieces against f64.

use super::*;

/// One matrix, and several that lie in their arenas in another order, with what is no matrix between them.
#[test]
fn muon_is_its_formulas() {
    let Some(gpu) = Gpu::for_test("muon") else { return };
    let key = Key::new(seed("muon"), 0, 0);
    let cases: [(usize, &[usize]); 5] = [
        (8, &[0]),
        (96, &[256, 0, 512]),
        (1000, &[4, 2048]),
        (40_008, &[0]),
        (3000, &[3000, 9004, 0, 6004]),
    ];
    for (n, begins) in cases {
        let (step, count) = (Step::new(&gpu), begins.len());
        let len = begins.iter().max().unwrap() + n + 4;
        let words = StepScalars::new(3, 0.02, 0.1, 0.9, 0.95).words();
        gpu.write(&step.scalars, &words).unwrap();
        let [g, m, p] = [1, 2, 3].map(|i| normals(&key, i, len, 0.5));
        let [dg, dm, dp] = [&g, &m, &p].map(|x| gpu.upload(x).unwrap());
        gpu.write(&step.guard, &[0, 0.25f32.to_bits(), 1, 0]).unwrap();
        let batch = muon::Batch::new(&gpu, gpu.zeros(count).unwrap(), begins, n).unwrap();
        let x = gpu.poisoned::<bf16>(count * n).unwrap();
        muon::momentum(&gpu, &batch, &dg, &dm, 0.95, &step.guard, &step.partials).unwrap();
        muon::normalize(&gpu, &batch, &dg, &dm, 0.95, &step.guard, &step.partials, &x).unwrap();
        let c = f64::from(0.95f32);
        let momentum = |i: usize| c * f64::from(m[i]) + 0.25 * f64::from(g[i]);
        let (got_m, got) = (gpu.download(&dm).unwrap(), wide(&gpu, &x));
        for (begin, got) in begins.iter().zip(got.chunks(n)) {
            let range = *begin..begin + n;
            let want: Vec<f64> = range.clone().map(momentum).collect();
            close("momentum", &got_m[range.clone()], &want, 1e-7);
            let ahead: Vec<f64> = range.map(|i| c * momentum(i) + 0.25 * f64::from(g[i])).collect();
            let norm = ahead.iter().map(|x| x * x).sum::<f64>().sqrt();
            let direction: Vec<f64> = ahead.iter().map(|x| x / norm).collect();
            close("direction", got, &direction, 0.003);
        }

        muon::update(&gpu, &batch, &dp, &x, 3.0, &step.scalars, &step.guard).unwrap();
        let got_p = gpu.download(&dp).unwrap();
        for (begin, got) in begins.iter().zip(got.chunks(n)) {
            let keep = 1.0 - 0.02 * 0.1;
            let want: Vec<f64> = (0..n)
                .map(|i| keep * f64::from(p[begin + i]) - 0.06 * f64::from(got[i]))
                .collect();
            close("parameters", &got_p[*begin..begin + n], &want, 1e-7);
        }
        for i in (0..len).filter(|i| !begins.iter().any(|begin| (*begin..begin + n).contains(i))) {
            assert_eq!(
                (got_m[i].to_bits(), got_p[i].to_bits()),
                (m[i].to_bits(), p[i].to_bits()),
                "{i}"
            );
        }

        let y = gpu.upload(&narrow(&g[..count * n / 8 * 8])).unwrap();
        let x = x.slice(..y.len());
        let combined: Vec<f64> = wide(&gpu, &y)
            .iter()
            .zip(&got)
            .map(|(&y, &x)| 3.4445 * f64::from(x) - 4.775 * f64::from(y))
            .collect();
        muon::combine(&gpu, (3.4445, &x), (-4.775, &y), &y).unwrap();
        close("combination", &wide(&gpu, &y), &combined, 0.003);
    }
}

#[test]
fn matrices_outside_their_arena_are_refused() {
    let Some(gpu) = Gpu::for_test("matrices of Muon") else {
        return;
    };
    let step = Step::new(&gpu);
    let table = |n| gpu.zeros::<u64>(n).unwrap();
    let batch = |begins: &[usize], n| muon::Batch::new(&gpu, table(begins.len()), begins, n);
    assert!(batch(&[2], 8).is_err());
    assert!(batch(&[0], 6).is_err());
    assert!(batch(&[0; muon::MAX_BATCH + 1], 8).is_err());
    assert!(muon::Batch::new(&gpu, table(2), &[0], 8).is_err());
    let [arena, moments] = [0; 2].map(|_| gpu.zeros::<f32>(64).unwrap());
    let run = |begins: &[usize], partials| {
        let batch = batch(begins, 16).unwrap();
        muon::momentum(&gpu, &batch, &arena, &moments, 0.95, &step.guard, partials)
    };
    assert!(run(&[0, 48], &step.partials).is_ok());
    assert!(run(&[0, 52], &step.partials).is_err());
    assert!(run(&[0, 48], &gpu.zeros(1).unwrap()).is_err());
}

fn wide(gpu: &Gpu, x: &DeviceArray<bf16>) -> Vec<f32> {
    gpu.download(x).unwrap().iter().map(|x| x.to_f32()).collect()
}

fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    assert!(
        error.sqrt() <= tolerance * size.sqrt(),
        "{what}: error {} of {}",
        error.sqrt(),
        size.sqrt()
    );
}
