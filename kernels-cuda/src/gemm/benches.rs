//! Times of products at the sizes of training steps.

use half::bf16;

use super::dispatch::{self, Path};
use super::*;
use crate::device::Element;

/// Seconds of one of `launches`, the median of nine readings of many.
fn seconds(gpu: &Gpu, mut launch: impl FnMut()) -> f64 {
    let mut time = |count: usize| {
        let begin = gpu.mark().unwrap();
        for _ in 0..count {
            launch();
        }
        gpu.mark().unwrap().seconds_since(&begin).unwrap() / count as f64
    };
    time(2);
    let count = (5e-3 / time(3)).clamp(1.0, 200.0) as usize;
    let mut times: Vec<f64> = (0..9).map(|_| time(count)).collect();
    times.sort_by(f64::total_cmp);
    times[4]
}

/// Values that are not all alike: products of zeros take less power, and run faster than they do in earnest.
fn values<T: Element>(gpu: &Gpu, len: usize, value: impl Fn(u64) -> T) -> DeviceArray<T> {
    let mut random = super::tests::Random(len as u64);
    let few: Vec<T> = (0..len.min(1 << 20)).map(|_| value(random.next())).collect();
    let all: Vec<T> = few.iter().copied().cycle().take(len).collect();
    gpu.upload(&all).unwrap()
}

/// `[what, layout, m, n, k, out]` of the steps of three models: forward, gradient of the input, gradient of the weights.
fn sizes(emulated: bool) -> Vec<(&'static str, Layout, (usize, usize, usize))> {
    use Layout::*;
    if emulated {
        return vec![("emulated", NT, (128, 128, 128))];
    }
    let mut all = Vec::new();
    for (tokens, d, f) in [(8192, 512, 1408), (65536, 768, 2048), (16384, 2048, 5632)] {
        all.push(("gate|up", NT, (tokens, 2 * f, d)));
        all.push(("down", NT, (tokens, d, f)));
        all.push(("o", NT, (tokens, d, d)));
        all.push(("dX gate|up", NN, (tokens, d, 2 * f)));
        all.push(("dX down", NN, (tokens, f, d)));
        all.push(("dW gate|up", TN, (2 * f, d, tokens)));
        all.push(("dW down", TN, (d, f, tokens)));
        all.push(("dW o", TN, (d, d, tokens)));
    }
    all.push(("square", NT, (8192, 8192, 8192)));
    all
}

fn bench(gpu: &Gpu, path: Option<Path>) {
    let emulated = gpu.properties().name.contains("emulated");
    println!("{} ({path:?})", gpu.properties().name);
    for (what, layout, (m, n, k)) in sizes(emulated) {
        let ((a_len, a_stride), (b_len, b_stride)) = match layout {
            Layout::NT => ((m * k, k), (n * k, k)),
            Layout::NN => ((m * k, k), (k * n, n)),
            Layout::TN => ((k * m, m), (k * n, n)),
        };
        let float = |x: u64| bf16::from_f32((x >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
        let (a, b) = (values(gpu, a_len, float), values(gpu, b_len, float));
        let (narrow, wide) = (gpu.zeros::<bf16>(m * n).unwrap(), gpu.zeros::<f32>(m * n).unwrap());
        // Gradients of weights are f32, everything else bf16.
        let output = match layout {
            Layout::TN => problem::Output::F32(&wide),
            _ => problem::Output::Bf16(&narrow),
        };
        let workspace = gpu.uninitialized::<f32>(32 << 20).unwrap();
        let mut problem = Problem {
            layout,
            m,
            n,
            k,
            operands: Operands::Bf16 { a: &a, b: &b },
            a_stride,
            b_stride,
            output,
            c_stride: n,
            row_scale: None,
            col_scale: None,
            alpha: 1.0,
            batch: super::problem::Batch::ONE,
        };
        let report = |kind: &str, problem: &Problem| {
            let time = seconds(gpu, || match path {
                Some(path) => dispatch::run_on(gpu, path, problem, &workspace).unwrap(),
                None => dispatch::run(gpu, problem, &workspace).unwrap(),
            });
            let rate = 2.0 * m as f64 * n as f64 * k as f64 / time / 1e12;
            println!(
                "{kind:4} {layout:?} {what:10} {m:6} x {n:5} x {k:5}: {:9.1} us {rate:7.1} TOP/s",
                time * 1e6
            );
        };
        report("bf16", &problem);
        if layout == Layout::NT {
            let a = values(gpu, a_len, |x| (x >> 20) as i8);
            let b = values(gpu, b_len, |x| ((x >> 20) % 3) as i8 - 1);
            let rows = values(gpu, m, |_| 0.01f32);
            problem.operands = Operands::Int8 { a: &a, b: &b };
            problem.row_scale = Some(&rows);
            report("int8", &problem);
        }
    }
}

#[test]
#[ignore = "a bench"]
fn bench_gemm_mma() {
    let Some(gpu) = Gpu::for_test("bench_gemm_mma") else {
        return;
    };
    bench(&gpu, Some(Path::Mma));
}

#[test]
#[ignore = "a bench"]
fn bench_gemm() {
    let Some(gpu) = Gpu::for_test("bench_gemm") else { return };
    bench(&gpu, None);
}
