use half::bf16;

use super::*;
use crate::device::DeviceArray;
use crate::quantize::testing::*;
use crate::rms_norm::partial_len;

const EPS: f32 = 1e-5;
const KINDS: [Activation; 3] = [Activation::Relu2Gate, Activation::SiluGate, Activation::Relu2];
const SHAPES: [(usize, usize); 9] = [
    (1, 8),
    (0, 8),
    (5, 248),
    (3, 512),
    (2, 1408),
    (2, 6144),
    (1, 6152),
    (1, 11008),
    (2, 16384),
];

/// Gate (as up where there is none) and up of element `i` of `h`.
fn inputs(kind: Activation, x: &[bf16], width: usize, i: usize) -> (f32, f32) {
    let (row, j) = (i / width, i % width);
    let row = &x[row * kind.inputs(width)..];
    match kind {
        Activation::Relu2 => (row[j].to_f32(), 1.0),
        _ => (row[j].to_f32(), row[width + j].to_f32()),
    }
}

/// `act(g)` and its slope, in f64.
fn gate(kind: Activation, g: f64) -> (f64, f64) {
    if kind == Activation::SiluGate {
        let s = 1.0 / (1.0 + (-g).exp());
        (g * s, s * (1.0 + g * (1.0 - s)))
    } else {
        (g.max(0.0).powi(2), 2.0 * g.max(0.0))
    }
}

/// `h` in f64.
fn hidden(kind: Activation, x: &[bf16], rows: usize, width: usize) -> Vec<f64> {
    let at = |i| inputs(kind, x, width, i);
    (0..rows * width)
        .map(|i| gate(kind, f64::from(at(i).0)).0 * f64::from(at(i).1))
        .collect()
}

fn reciprocal_rms(h: &[f64], width: usize) -> Vec<f64> {
    let mean = |row: &[f64]| row.iter().map(|h| h * h).sum::<f64>() / width as f64;
    h.chunks(width)
        .map(|row| match mean(row) {
            0.0 => 0.0,
            mean => 1.0 / (mean + f64::from(EPS)).sqrt(),
        })
        .collect()
}

#[test]
fn the_activation_is_normalised_and_quantised() {
    let Some(gpu) = Gpu::for_test("activation") else { return };
    let mut random = Random::new();
    for (rows, width) in SHAPES {
        for kind in KINDS {
            let x = random.bf16s(rows * kind.inputs(width), 1.0);
            let w = random.f32s(width, 1.0);
            let (xs, ws) = (gpu.upload(&x).unwrap(), gpu.upload(&w).unwrap());
            let exact = hidden(kind, &x, rows, width);
            // relu² in the kernel's order, so that all else is the same bits; silu's exponential is its own.
            let h: Vec<f32> = match kind {
                Activation::SiluGate => exact.iter().map(|&h| h as f32).collect(),
                _ => (0..exact.len())
                    .map(|i| inputs(kind, &x, width, i))
                    .map(|(g, u)| g.max(0.0) * g.max(0.0) * u)
                    .collect(),
            };
            let close = kind == Activation::SiluGate;
            let forms = Forms::new(&gpu, rows, width, 0.25);
            activation(&gpu, kind, &xs, rows, width, None, &forms.outputs()).unwrap();
            forms.check(&gpu, &h, width, close);

            let rstd = gpu.poisoned(rows).unwrap();
            let sub = SubNorm {
                norm: Norm { weight: &ws, eps: EPS },
                rstd: &rstd,
            };
            let forms = Forms::new(&gpu, rows, width, 0.25);
            activation(&gpu, kind, &xs, rows, width, Some(&sub), &forms.outputs()).unwrap();
            let r = gpu.download(&rstd).unwrap();
            assert!(distance(r.iter().copied(), &reciprocal_rms(&exact, width)) < 2e-6);
            let y: Vec<f32> = (0..h.len()).map(|i| h[i] * r[i / width] * w[i % width]).collect();
            forms.check(&gpu, &y, width, close);
        }
    }
}

#[test]
fn gradients_of_gate_up_and_weight() {
    let Some(gpu) = Gpu::for_test("activation_backward") else {
        return;
    };
    let mut random = Random::new();
    let more = if emulated(&gpu) { (1100, 16) } else { (5000, 1408) };
    for (rows, width) in SHAPES.into_iter().chain([more]) {
        for kind in KINDS {
            let x = random.bf16s(rows * kind.inputs(width), 1.0);
            let (dy, w) = (random.bf16s(rows * width, 0.5), random.f32s(width, 1.0));
            let (xs, ws, dys) = (
                gpu.upload(&x).unwrap(),
                gpu.upload(&w).unwrap(),
                gpu.upload(&dy).unwrap(),
            );
            let h = hidden(kind, &x, rows, width);
            let r = reciprocal_rms(&h, width);
            let rstd = gpu.upload(&r.iter().map(|&r| r as f32).collect::<Vec<_>>()).unwrap();
            let total = gpu.poisoned(width).unwrap();
            let partials = gpu.poisoned(partial_len(width)).unwrap();
            let sub = SubNormBackward {
                weight: &ws,
                rstd: &rstd,
                dw: WeightGradient {
                    total: &total,
                    accumulate: false,
                    partials: &partials,
                },
            };
            for normed in [false, true] {
                let dx = gpu.poisoned::<bf16>(x.len()).unwrap();
                activation_backward(&gpu, kind, &dys, &xs, rows, width, normed.then_some(&sub), &dx).unwrap();
                let mut expected = vec![0.0; x.len()];
                let mut dw = vec![0.0; width];
                for row in 0..rows {
                    let at = |j: usize| {
                        (
                            f64::from(dy[row * width + j].to_f32()),
                            h[row * width + j] * r[row],
                            f64::from(w[j]),
                        )
                    };
                    let mean = (0..width).map(&at).map(|(g, h, w)| g * h * w).sum::<f64>() / width as f64;
                    for j in 0..width {
                        let (g, h, w) = at(j);
                        dw[j] += g * h;
                        let dh = if normed { r[row] * (g * w - h * mean) } else { g };
                        let (gate_in, up) = inputs(kind, &x, width, row * width + j);
                        let (value, slope) = gate(kind, f64::from(gate_in));
                        let to = &mut expected[row * kind.inputs(width)..];
                        to[j] = slope * f64::from(up) * dh;
                        if kind != Activation::Relu2 {
                            to[width + j] = value * dh;
                        }
                    }
                }
                let found = gpu.download(&dx).unwrap();
                // In place, the same.
                let over = gpu.upload(&x).unwrap();
                activation_backward(&gpu, kind, &dys, &over, rows, width, normed.then_some(&sub), &over).unwrap();
                assert!(gpu.download(&over).unwrap() == found, "in place");
                let found = widen(&found);
                assert!(
                    distance(found, &expected) < 1.1 * BF16,
                    "{kind:?}, {rows} by {width}, normed {normed}"
                );
                if normed {
                    let found = gpu.download(&total).unwrap();
                    assert!(distance(found, &dw) < 1e-5, "dw, {kind:?}, {rows} by {width}");
                }
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("activation, shapes") else {
        return;
    };
    let x = gpu.zeros::<bf16>(4 * 32).unwrap();
    let forms = Forms::new(&gpu, 4, 16, 0.0);
    let run = |kind, x: &DeviceArray<bf16>, rows, width| activation(&gpu, kind, x, rows, width, None, &forms.outputs());
    assert!(run(Activation::SiluGate, &x, 4, 16).is_ok());
    assert!(run(Activation::Relu2, &x, 4, 16).is_err());
    assert!(run(Activation::SiluGate, &x.slice(..64), 4, 16).is_err());
    assert!(run(Activation::SiluGate, &x.slice(..96), 3, 16).is_err(), "outputs");
    assert!(run(Activation::SiluGate, &x.slice(..96), 4, 12).is_err());
    let backward = |dy: &DeviceArray<bf16>| activation_backward(&gpu, Activation::Relu2Gate, dy, &x, 4, 16, None, &x);
    assert!(backward(&forms.plain).is_ok());
    assert!(backward(&forms.plain.slice(..32)).is_err());
}

#[test]
#[ignore = "a bench"]
fn bench_activation() {
    let Some(gpu) = Gpu::for_test("bench") else { return };
    for (rows, width) in [
        (65536, 1408),
        (65536, 2048),
        (16384, 5632),
        (16384, 6912),
        (8192, 14336),
    ] {
        let len = rows * width;
        let (x, dx, dy) = (filled(&gpu, 2 * len), filled(&gpu, 2 * len), filled(&gpu, len));
        let (w, rstd, total) = (filled(&gpu, width), filled(&gpu, rows), filled(&gpu, width));
        let partials = filled(&gpu, partial_len(width));
        let forms = Forms::new(&gpu, rows, width, 0.5);
        let codes = forms.codes_only();
        let sub = SubNorm {
            norm: Norm { weight: &w, eps: EPS },
            rstd: &rstd,
        };
        let sub_backward = SubNormBackward {
            weight: &w,
            rstd: &rstd,
            dw: WeightGradient {
                total: &total,
                accumulate: true,
                partials: &partials,
            },
        };
        for kind in [Activation::Relu2Gate, Activation::SiluGate] {
            let name = |what: &str| format!("{what} {kind:?} {rows}x{width}");
            bench(&gpu, &name("activation, sub-norm, int8"), 5 * len, || {
                activation(&gpu, kind, &x, rows, width, Some(&sub), &codes).unwrap()
            });
            bench(&gpu, &name("activation_backward, sub-norm"), 10 * len, || {
                activation_backward(&gpu, kind, &dy, &x, rows, width, Some(&sub_backward), &dx).unwrap()
            });
            bench(&gpu, &name("activation_backward"), 10 * len, || {
                activation_backward(&gpu, kind, &dy, &x, rows, width, None, &dx).unwrap()
            });
        }
    }
}
