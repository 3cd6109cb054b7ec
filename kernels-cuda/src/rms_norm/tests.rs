use half::bf16;
use onebit_kernels_cpu::isa::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_kernels_cpu::{dropout, rms_norm};

use super::*;
use crate::device::DeviceArray;
use crate::quantize::testing::*;

const EPS: f32 = 1e-5;
const SEED: u64 = 0x1234_5678_9abc_def0;
const PURPOSE: u32 = 0x6472_6f70 + 3;

/// Rows and columns of each way in which threads lie over rows, at its limits and between them; columns are multiples of 4.
const SHAPES: [(usize, usize); 12] = [
    (1, 4),
    (0, 8),
    (9, 508),
    (8, 512),
    (3, 516),
    (17, 1024),
    (2, 1028),
    (3, 2048),
    (1, 6144),
    (2, 6148),
    (1, 16380),
    (2, 16384),
];

/// `y = x·r·w` and `r`, in f64; `r` of a row of zeros is written as 0.
fn normed(x: &[f32], w: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = w.len();
    let mean = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
    let r: Vec<f64> = x
        .chunks(n)
        .map(|row| match mean(row) {
            0.0 => 0.0,
            mean => 1.0 / (mean + f64::from(EPS)).sqrt(),
        })
        .collect();
    let y = (0..x.len())
        .map(|i| f64::from(x[i]) * r[i / n] * f64::from(w[i % n]))
        .collect();
    (y, r)
}

/// `(x·r)·w` in f32, as both sides compute it, from the GPU's `r`.
fn scaled(x: &[f32], w: &[f32], r: &[f32]) -> Vec<f32> {
    let n = w.len();
    (0..x.len()).map(|i| x[i] * r[i / n] * w[i % n]).collect()
}

/// `dx`, `dw` in f64.
fn backward(dy: &[f32], x: &[f32], w: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = w.len();
    let (_, r) = normed(x, w);
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; n]);
    for row in 0..r.len() {
        let at = |j: usize| {
            (
                f64::from(dy[row * n + j]),
                f64::from(x[row * n + j]) * r[row],
                f64::from(w[j]),
            )
        };
        let mean = (0..n).map(&at).map(|(g, x, w)| g * x * w).sum::<f64>() / n as f64;
        for j in 0..n {
            let (g, x, w) = at(j);
            dx[row * n + j] = r[row] * (g * w - x * mean);
            dw[j] += g * x;
        }
    }
    (dx, dw)
}

/// Of several rows the second is that of a dropped word.
fn zero_a_row(x: &mut [f32], cols: usize) {
    if let Some(row) = x.chunks_mut(cols).nth(1) {
        row.fill(0.0);
    }
}

fn check_r(gpu: &Gpu, rstd: &DeviceArray<f32>, x: &[f32], w: &[f32]) -> Vec<f32> {
    let found = gpu.download(rstd).unwrap();
    assert!(distance(found.iter().copied(), &normed(x, w).1) < 1e-6);
    found
}

#[test]
fn the_stream_is_normalised_and_quantised() {
    let Some(gpu) = Gpu::for_test("residual_norm") else {
        return;
    };
    let mut random = Random::new();
    let step = gpu.upload(&[7u32]).unwrap();
    for (i, (rows, cols)) in SHAPES.into_iter().enumerate() {
        let (mut x, branch, w) = (
            random.f32s(rows * cols, 2.0),
            random.bf16s(rows * cols, 1.0),
            random.f32s(cols, 1.0),
        );
        zero_a_row(&mut x, cols);
        let [xs, ws, rstd] = [
            gpu.upload(&x).unwrap(),
            gpu.upload(&w).unwrap(),
            gpu.poisoned(rows).unwrap(),
        ];
        let norm = Norm { weight: &ws, eps: EPS };
        let forms = Forms::new(&gpu, rows, cols, [0.0, 0.25, 1.0][i % 3]);

        // Without a branch.
        residual_norm(&gpu, &xs, None, &norm, &rstd, &forms.outputs()).unwrap();
        assert_eq!(gpu.download(&xs).unwrap(), x);
        let r = check_r(&gpu, &rstd, &x, &w);
        forms.check(&gpu, &scaled(&x, &w, &r), cols, false);
        // From the CPU's own norm, whose sums have another order, codes differ rarely and by one.
        let mut y = vec![0.0; x.len()];
        rms_norm::rms_norm(Isa::best(), &x, &w, EPS, &mut y);
        forms.check(&gpu, &y, cols, true);

        // With one, dropped or not, beside the stream or over it.
        for (p, over) in [(None, false), (Some(0.3), true), (Some(0.0), false)] {
            let values = gpu.upload(&branch).unwrap();
            let sum = if over {
                gpu.upload(&x).unwrap()
            } else {
                gpu.poisoned(rows * cols).unwrap()
            };
            let from = if over { &sum } else { &xs };
            let dropped = Dropout {
                p: p.unwrap_or(0.0),
                seed: SEED,
                purpose: PURPOSE,
                step: &step,
            };
            let branch_of = Branch {
                values: &values,
                factor: 0.7,
                dropout: p.map(|_| dropped),
                sum: &sum,
            };
            let forms = Forms::new(&gpu, rows, cols, 0.5);
            residual_norm(&gpu, from, Some(&branch_of), &norm, &rstd, &forms.outputs()).unwrap();
            let mut kept = widen(&branch);
            if let Some(p) = p {
                let key = Key::new(SEED, PURPOSE, 7);
                dropout::dropout(Isa::best(), &widen(&branch), p, key, 0, &mut kept);
            }
            let expected: Vec<f32> = kept.iter().zip(&x).map(|(b, x)| 0.7f32.mul_add(*b, *x)).collect();
            assert!(
                gpu.download(&sum).unwrap() == expected,
                "the stream, {rows} by {cols}, dropout {p:?}"
            );
            let r = check_r(&gpu, &rstd, &expected, &w);
            forms.check(&gpu, &scaled(&expected, &w, &r), cols, false);
        }
    }
}

#[test]
fn bf16_rows_are_normalised() {
    let Some(gpu) = Gpu::for_test("norm") else { return };
    let mut random = Random::new();
    for (rows, cols) in SHAPES.map(|(rows, cols)| (rows, cols.div_ceil(8) * 8)) {
        let stride = cols + 24;
        let (all, w) = (random.bf16s(rows * stride, 2.0), random.f32s(cols, 1.0));
        let x: Vec<f32> = all.chunks(stride).flat_map(|row| widen(&row[..cols])).collect();
        let (ws, rstd) = (gpu.upload(&w).unwrap(), gpu.poisoned(rows).unwrap());
        let forms = Forms::new(&gpu, rows, cols, 0.25);
        let from = gpu.upload(&all).unwrap();
        norm(
            &gpu,
            &from,
            stride,
            &Norm { weight: &ws, eps: EPS },
            &rstd,
            &forms.outputs(),
        )
        .unwrap();
        let r = check_r(&gpu, &rstd, &x, &w);
        forms.check(&gpu, &scaled(&x, &w, &r), cols, false);

        // Backward; what lies between the rows stays as it was.
        let dy = random.bf16s(rows * cols, 0.5);
        let before = random.f32s(cols, 1.0);
        let (dx, total) = (
            gpu.poisoned::<bf16>(rows * stride).unwrap(),
            gpu.upload(&before).unwrap(),
        );
        let partials = gpu.poisoned(partial_len(cols)).unwrap();
        let dw = WeightGradient {
            total: &total,
            accumulate: true,
            partials: &partials,
        };
        norm_backward(&gpu, &gpu.upload(&dy).unwrap(), &from, stride, &ws, &rstd, &dx, &dw).unwrap();
        let (expected, expected_dw) = backward(&widen(&dy), &x, &w);
        let found = gpu.download(&dx).unwrap();
        let (over, scratch) = (gpu.upload(&all).unwrap(), gpu.zeros(cols).unwrap());
        let dw_over = WeightGradient { total: &scratch, ..dw };
        norm_backward(
            &gpu,
            &gpu.upload(&dy).unwrap(),
            &over,
            stride,
            &ws,
            &rstd,
            &over,
            &dw_over,
        )
        .unwrap();
        let over = gpu.download(&over).unwrap();
        let rows_of = |x: &[bf16]| -> Vec<bf16> { x.chunks(stride).flat_map(|row| row[..cols].to_vec()).collect() };
        assert!(rows_of(&over) == rows_of(&found), "in place, {rows} by {cols}");
        let inside: Vec<f32> = found.chunks(stride).flat_map(|row| widen(&row[..cols])).collect();
        assert!(distance(inside, &expected) < 1.1 * BF16, "{rows} by {cols}");
        assert!(
            found
                .chunks(stride)
                .all(|row| row[cols..].iter().all(|x| x.to_bits() == 0xffff))
        );
        let sums: Vec<f64> = expected_dw
            .iter()
            .zip(&before)
            .map(|(d, b)| d + f64::from(*b))
            .collect();
        assert!(
            distance(gpu.download(&total).unwrap(), &sums) < 1e-5,
            "{rows} by {cols}"
        );
    }
}

#[test]
fn gradients_of_the_stream_the_branch_and_the_weight() {
    let Some(gpu) = Gpu::for_test("residual_norm_backward") else {
        return;
    };
    let mut random = Random::new();
    let step = gpu.upload(&[9u32]).unwrap();
    // More rows than there are warps or blocks, so that each has several.
    let more = if emulated(&gpu) {
        [(2200, 8), (1100, 516)]
    } else {
        [(8000, 512), (5000, 768)]
    };
    for (i, (rows, cols)) in SHAPES.into_iter().chain(more).enumerate() {
        let (mut x, w, before) = (
            random.f32s(rows * cols, 2.0),
            random.f32s(cols, 1.0),
            random.f32s(rows * cols, 0.1),
        );
        zero_a_row(&mut x, cols);
        let (dy, dy2) = (random.bf16s(rows * cols, 0.5), random.bf16s(rows * cols, 0.5));
        let (xs, ws) = (gpu.upload(&x).unwrap(), gpu.upload(&w).unwrap());
        let r: Vec<f32> = normed(&x, &w).1.iter().map(|&r| r as f32).collect();
        let (rstd, dys, dy2s) = (
            gpu.upload(&r).unwrap(),
            gpu.upload(&dy).unwrap(),
            gpu.upload(&dy2).unwrap(),
        );
        let partials = gpu.poisoned(partial_len(cols)).unwrap();
        for (fresh, two, p) in [(true, false, None), (false, true, Some(0.4)), (false, false, Some(0.0))] {
            let dres = if fresh {
                gpu.poisoned(rows * cols).unwrap()
            } else {
                gpu.upload(&before).unwrap()
            };
            let total = gpu.poisoned(cols).unwrap();
            // Over dy, where it is not needed again.
            let values = if fresh {
                gpu.poisoned(rows * cols).unwrap()
            } else {
                gpu.upload(&dy).unwrap()
            };
            let dropped = |p| Dropout {
                p,
                seed: SEED,
                purpose: PURPOSE,
                step: &step,
            };
            let branch = BranchGradient {
                values: &values,
                factor: 0.7,
                dropout: p.map(dropped),
            };
            let run = || {
                let args = ResidualBackward {
                    dy: if fresh { &dys } else { &values },
                    dy2: two.then_some(&dy2s),
                    x: &xs,
                    rstd: &rstd,
                    weight: &ws,
                    dres: &dres,
                    fresh,
                    branch: Some(branch),
                    dw: WeightGradient {
                        total: &total,
                        accumulate: false,
                        partials: &partials,
                    },
                };
                residual_norm_backward(&gpu, &args).unwrap();
            };
            run();
            let g: Vec<f32> = (0..dy.len())
                .map(|i| dy[i].to_f32() + if two { dy2[i].to_f32() } else { 0.0 })
                .collect();
            let (mut expected, expected_dw) = backward(&g, &x, &w);
            if !fresh {
                expected.iter_mut().zip(&before).for_each(|(e, b)| *e += f64::from(*b));
            }
            let found = gpu.download(&dres).unwrap();
            assert!(
                distance(found.iter().copied(), &expected) < 1e-5,
                "dres, {rows} by {cols}"
            );
            let dw = gpu.download(&total).unwrap();
            assert!(
                distance(dw.iter().copied(), &expected_dw) < 1e-5,
                "dw, {rows} by {cols}"
            );
            let mut of_branch: Vec<f32> = found.iter().map(|d| d * 0.7).collect();
            if let Some(p) = p {
                let key = Key::new(SEED, PURPOSE, 9);
                dropout::dropout(Isa::best(), &of_branch.clone(), p, key, 0, &mut of_branch);
            }
            let of_branch = of_branch.iter().map(|&d| bf16::from_f32(d));
            assert!(
                gpu.download(&values).unwrap().into_iter().eq(of_branch),
                "branch, {rows} by {cols}"
            );
            if fresh && i % 4 == 0 {
                // Equal inputs, equal bytes.
                run();
                assert!(gpu.download(&total).unwrap() == dw && gpu.download(&dres).unwrap() == found);
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("norms, shapes") else {
        return;
    };
    let (x, w, rstd) = (gpu.zeros(64).unwrap(), gpu.zeros(16).unwrap(), gpu.zeros(4).unwrap());
    let forms = Forms::new(&gpu, 4, 16, 0.0);
    let run = |x: &DeviceArray<f32>, w: &DeviceArray<f32>, rstd: &DeviceArray<f32>| {
        residual_norm(&gpu, x, None, &Norm { weight: w, eps: EPS }, rstd, &forms.outputs())
    };
    assert!(run(&x, &w, &rstd).is_ok());
    assert!(run(&x.slice(..60), &w, &rstd).is_err());
    assert!(run(&x, &w.slice(..14), &rstd).is_err());
    assert!(run(&x.slice(..48), &w, &rstd.slice(..3)).is_err(), "outputs");
    let step = gpu.zeros::<u32>(1).unwrap();
    let values = gpu.zeros::<bf16>(64).unwrap();
    let branch = |p| Branch {
        values: &values,
        factor: 1.0,
        dropout: Some(Dropout {
            p,
            seed: 1,
            purpose: 2,
            step: &step,
        }),
        sum: &x,
    };
    let norm_of = Norm { weight: &w, eps: EPS };
    assert!(residual_norm(&gpu, &x, Some(&branch(0.5)), &norm_of, &rstd, &forms.outputs()).is_ok());
    assert!(residual_norm(&gpu, &x, Some(&branch(1.0)), &norm_of, &rstd, &forms.outputs()).is_err());
    assert!(norm(&gpu, &values, 20, &norm_of, &rstd, &forms.outputs()).is_err());
    let (total, partials) = (gpu.zeros(16).unwrap(), gpu.zeros(partial_len(16)).unwrap());
    let backward = |partials: &DeviceArray<f32>| {
        let dw = WeightGradient {
            total: &total,
            accumulate: false,
            partials,
        };
        norm_backward(&gpu, &values, &values, 16, &w, &rstd, &forms.plain, &dw)
    };
    assert!(backward(&partials).is_ok());
    assert!(backward(&partials.slice(1..)).is_err());
}
