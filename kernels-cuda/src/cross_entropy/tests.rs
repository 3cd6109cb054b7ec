//! Against the formulas in f64.

use half::bf16;
use onebit_kernels_cpu::rng::Key;

use super::*;

mod bench;
mod teachers;

fn seed(test: &str) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = now.map_or(1, |d| d.as_nanos() as u64);
    println!("{test}: seed {seed}");
    seed
}

/// Logits with NaN in the columns that do not count, and targets.
fn random(key: &Key, rows: usize, v: Vocabulary, size: f32) -> (Vec<bf16>, Vec<u32>) {
    let logits = (0..rows * v.stride)
        .map(|i| match i % v.stride {
            column if column < v.size => bf16::from_f32(size * key.normal(i as u64)),
            _ => bf16::NAN,
        })
        .collect();
    let targets = (0..rows as u64)
        .map(|r| key.below(1 << 40 | r, v.size as u32))
        .collect();
    (logits, targets)
}

/// lse, nll, smoothed loss, and gradient of one row.
fn oracle(x: &[bf16], target: u32, (smoothing, z): (f64, f64), scale: f64, cap: Option<f32>) -> ([f64; 3], Vec<f64>) {
    let x = capped(x, cap);
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    let nll = lse - x[target as usize];
    let uniform = lse - x.iter().sum::<f64>() / x.len() as f64;
    let smoothed = if smoothing == 0.0 {
        nll
    } else {
        (1.0 - smoothing) * nll + smoothing * uniform
    } + z * lse * lse;
    let share = smoothing / x.len() as f64;
    let hit = |j: usize| if j == target as usize { 1.0 - smoothing } else { 0.0 };
    let slope = |j: usize| cap.map_or(1.0, |cap| 1.0 - (x[j] / f64::from(cap)).powi(2));
    let gradient = (0..x.len())
        .map(|j| slope(j) * scale * ((1.0 + 2.0 * z * lse) * (x[j] - lse).exp() - hit(j) - share))
        .collect();
    ([lse, nll, smoothed], gradient)
}

/// The logits that count.
fn capped(x: &[bf16], cap: Option<f32>) -> Vec<f64> {
    let of = |x: f64| match cap.map(f64::from) {
        Some(cap) => cap * (x / cap).tanh(),
        None => x,
    };
    x.iter().map(|x| of(f64::from(x.to_f32()))).collect()
}

struct Outcome {
    logits: Vec<bf16>,
    losses: [Vec<f32>; 3],
}

/// Runs the form with a gradient of `scale`, or the other.
fn run(gpu: &Gpu, logits: &[bf16], targets: &[u32], v: Vocabulary, scale: Option<f32>) -> Outcome {
    let logits = gpu.upload(logits).unwrap();
    let ids = gpu.upload(targets).unwrap();
    let [lse, nll, smoothed] = [0; 3].map(|_| gpu.poisoned::<f32>(targets.len()).unwrap());
    let losses = RowLosses {
        lse: &lse,
        nll: &nll,
        smoothed: &smoothed,
    };
    match scale {
        Some(scale) => cross_entropy(gpu, &logits, &ids, v, None, scale, losses).unwrap(),
        None => cross_entropy_evaluate(gpu, &logits, &ids, v, losses).unwrap(),
    }
    Outcome {
        logits: gpu.download(&logits).unwrap(),
        losses: [&lse, &nll, &smoothed].map(|a| gpu.download(a).unwrap()),
    }
}

fn bits(x: &[bf16]) -> Vec<u16> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn losses_and_gradients_are_their_formulas() {
    let Some(gpu) = Gpu::for_test("cross-entropy") else {
        return;
    };
    let key = Key::new(seed("cross-entropy"), 0, 0);
    let mut sizes = vec![
        (1, 8, 3),
        (7, 8, 5),
        (8, 8, 1),
        (9, 16, 4),
        (50, 72, 33),
        (256, 256, 7),
        (1000, 1008, 3),
        (8192, 8192, 2),
        (20_011, 20_016, 1),
        // More than shared memory holds.
        (128_256, 128_256, 1),
    ];
    if !gpu.properties().name.contains("emulated") {
        sizes.extend([
            (32_768, 32_768, 150),
            (50_257, 50_304, 20),
            (128_256, 128_256, 40),
            (151_669, 151_680, 5),
        ]);
    }
    for (size, stride, rows) in sizes {
        for (spread, smoothing, z_loss, softcap) in [
            (2.0f32, 0.0f32, 0.0f32, None),
            (8.0, 0.1, 0.0, None),
            (300.0, 0.1, 0.0, None),
            (8.0, 0.0, 1e-2, None),
            (2.0, 0.1, 1e-4, None),
            (8.0, 0.0, 0.0, Some(5.0f32)),
            (300.0, 0.1, 1e-3, Some(30.0)),
        ] {
            let v = Vocabulary {
                size,
                stride,
                smoothing,
                z_loss,
                softcap,
            };
            let (logits, targets) = random(&key, rows, v, spread);
            let scale = 1.0 / 4096.0f32;
            let got = run(&gpu, &logits, &targets, v, Some(scale));
            let evaluated = run(&gpu, &logits, &targets, v, None);
            assert_eq!(bits(&evaluated.logits), bits(&logits), "logits of an evaluation stay");
            for row in 0..rows {
                let x = &logits[row * stride..][..size];
                let (smoothing, scale) = (f64::from(smoothing), f64::from(scale));
                let (want, gradient) = oracle(x, targets[row], (smoothing, f64::from(z_loss)), scale, softcap);
                for k in 0..3 {
                    let value = got.losses[k][row];
                    assert_eq!(value.to_bits(), evaluated.losses[k][row].to_bits(), "the forms agree");
                    let error = (f64::from(value) - want[k]).abs();
                    assert!(
                        error <= 2e-6 * want[k].abs().max(want[0].abs()).max(1.0),
                        "{v:?} spread {spread} row {row} loss {k}: {value} for {}",
                        want[k]
                    );
                }
                // 1 − tanh² loses digits where it is small: what it is multiplied with is off by its rounding to 1.
                let of_cap = capped(x, softcap);
                let slope = |x: f64| softcap.map(|cap| 1.0 - (x / f64::from(cap)).powi(2));
                let flat: Vec<f64> = of_cap
                    .iter()
                    .zip(&gradient)
                    .map(|(x, want)| match slope(*x) {
                        None => 0.0,
                        Some(slope) if slope > 1e-12 => want.abs() / slope,
                        Some(_) => 2.0 * scale,
                    })
                    .collect();
                let dx = &got.logits[row * stride..][..stride];
                for j in 0..size {
                    let (value, want) = (f64::from(dx[j].to_f32()), gradient[j]);
                    let terms = want.abs()
                        + if j == targets[row] as usize { 2.0 * scale } else { 0.0 }
                        + scale * smoothing / size as f64;
                    // Half a unit of bf16, and f32's errors of what is subtracted.
                    let bound = want.abs() * 1.01 / 256.0 + 2e-6 * terms + 5e-7 * flat[j] + 1e-37;
                    assert!(
                        (value - want).abs() <= bound,
                        "{v:?} spread {spread} row {row} column {j}: {value} for {want}"
                    );
                }
                assert!(bits(&dx[size..]).iter().all(|&b| b == 0), "the other columns are zeros");
            }
        }
    }
}

#[test]
fn equal_logits_give_equal_bytes() {
    let Some(gpu) = Gpu::for_test("cross-entropy, twice") else {
        return;
    };
    let v = Vocabulary {
        size: 3001,
        stride: 3008,
        smoothing: 0.05,
        z_loss: 1e-3,
        softcap: None,
    };
    let (logits, targets) = random(&Key::new(seed("twice"), 0, 0), 40, v, 4.0);
    let [one, two] = [0; 2].map(|_| run(&gpu, &logits, &targets, v, Some(1.0)));
    assert_eq!(bits(&one.logits), bits(&two.logits));
    assert_eq!(one.losses, two.losses);
}

#[test]
fn what_is_no_number_shows_and_stays_in_its_row() {
    let Some(gpu) = Gpu::for_test("cross-entropy of NaN") else {
        return;
    };
    for smoothing in [0.0, 0.1] {
        let v = Vocabulary {
            size: 2100,
            stride: 2104,
            smoothing,
            z_loss: 0.0,
            softcap: None,
        };
        let (mut logits, mut targets) = random(&Key::new(7, 0, 0), 6, v, 1.0);
        targets[1] = 2100;
        targets[2] = u32::MAX;
        logits[3 * 2104 + 2099] = bf16::NAN;
        // A masked logit takes no part.
        targets[4] = 5;
        if smoothing == 0.0 {
            logits[4 * 2104 + 77] = bf16::NEG_INFINITY;
        }
        for scale in [Some(1.0), None] {
            let got = run(&gpu, &logits, &targets, v, scale);
            for row in 0..6 {
                let nan = [1, 2, 3].contains(&row);
                assert_eq!(got.losses[1][row].is_nan(), nan, "row {row}");
                assert_eq!(got.losses[2][row].is_nan(), nan, "row {row}");
            }
            let want = oracle(&logits[4 * 2104..][..2100], 5, (f64::from(smoothing), 0.0), 1.0, None).0;
            assert!((f64::from(got.losses[1][4]) - want[1]).abs() < 1e-5);
        }
    }
}

#[test]
fn sums_go_to_their_slot() {
    let Some(gpu) = Gpu::for_test("sums of losses") else {
        return;
    };
    let key = Key::new(seed("sums"), 0, 0);
    for rows in [0, 1, 1023, 1025, 9001] {
        let nll: Vec<f32> = (0..rows).map(|i| 11.0 + key.normal(i)).collect();
        let smoothed: Vec<f32> = (0..rows).map(|i| 9.0 + key.normal(i)).collect();
        let [a, b] = [&nll, &smoothed].map(|x| gpu.upload(x).unwrap());
        let sums = gpu.upload(&[-1.0f32; 6]).unwrap();
        let slot = gpu.upload(&[1u32]).unwrap();
        loss_sums(&gpu, &a, &b, &slot, &sums).unwrap();
        gpu.write(&slot, &[3]).unwrap();
        loss_sums(&gpu, &a, &b, &slot, &sums).unwrap();
        let got = gpu.download(&sums).unwrap();
        let exact = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>();
        for (got, want) in [(got[2], exact(&nll)), (got[3], exact(&smoothed))] {
            assert!(
                (f64::from(got) - want).abs() <= 1e-7 * want.abs(),
                "{rows}: {got} for {want}"
            );
        }
        assert_eq!([got[0], got[1], got[4], got[5]], [-1.0; 4]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("shapes of cross-entropy") else {
        return;
    };
    let logits = gpu.zeros::<bf16>(4 * 16).unwrap();
    let targets = gpu.zeros::<u32>(4).unwrap();
    let [lse, nll, short] = [4, 4, 3].map(|n| gpu.zeros::<f32>(n).unwrap());
    let v = Vocabulary {
        size: 16,
        stride: 16,
        smoothing: 0.0,
        z_loss: 0.0,
        softcap: None,
    };
    let refused = |v: Vocabulary, logits: &DeviceArray<bf16>, smoothed: &DeviceArray<f32>| {
        let losses = RowLosses {
            lse: &lse,
            nll: &nll,
            smoothed,
        };
        let error = cross_entropy(&gpu, logits, &targets, v, None, 1.0, losses);
        matches!(error, Err(CudaError::Shape { .. }))
            && cross_entropy_evaluate(&gpu, logits, &targets, v, losses).is_err()
    };
    assert!(!refused(v, &logits, &nll));
    assert!(refused(v, &logits, &short));
    assert!(refused(v, &logits.slice(..48), &nll));
    assert!(refused(v, &logits.slice(4..), &nll));
    assert!(refused(Vocabulary { size: 17, ..v }, &logits, &nll));
    assert!(refused(Vocabulary { size: 0, ..v }, &logits, &nll));
    assert!(refused(
        Vocabulary {
            size: 12,
            stride: 12,
            ..v
        },
        &logits.slice(..48),
        &nll
    ));
    assert!(loss_sums(&gpu, &nll, &short, &targets.slice(..1), &lse).is_err());
}
