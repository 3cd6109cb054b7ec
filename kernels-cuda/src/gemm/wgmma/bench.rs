//! Rates of both schedules. Operands are random (zeros cost less power, so a GPU runs them faster), and small ones rotate through several copies, so that no
//! product finds in the L2 cache what the one before has left there, more than it would in training.

use half::bf16;

use super::super::problem::{Layout, Operands, Output, Problem};
use super::{Plan, Schedule, plan, run};
use crate::device::{DeviceArray, Element, Gpu};

/// Bytes that the copies of the operands have together, at least: three times an L2 cache.
const ROTATED: usize = 150 << 20;

/// `len` random elements, of which a piece is made on the host and repeated.
fn random<T: Element>(gpu: &Gpu, len: usize, mut element: impl FnMut(u32) -> T) -> DeviceArray<T> {
    let mut state = 0x2545_f491_u32 ^ len as u32;
    let piece: Vec<T> = (0..len.min(1 << 20))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            element(state)
        })
        .collect();
    let array = gpu.uninitialized(len).unwrap();
    let source = gpu.upload(&piece).unwrap();
    for start in (0..len).step_by(piece.len().max(1)) {
        let end = len.min(start + piece.len());
        gpu.copy(&source.slice(..end - start), &array.slice(start..end))
            .unwrap();
    }
    array
}

/// What a product of the list is.
struct Case {
    what: &'static str,
    layout: Layout,
    sizes: (usize, usize, usize),
    int8: bool,
    f32_output: bool,
}

/// Prints one line for each way to run `case`; `cuts` are numbers of pieces to try beside what is planned.
fn measure(gpu: &Gpu, case: &Case, cuts: &[usize]) {
    let Case { layout, int8, .. } = *case;
    let (m, n, k) = case.sizes;
    let size = if int8 { 1 } else { 2 };
    let copies = (ROTATED / ((m + n) * k * size)).clamp(1, 8) + 1;
    let to_bf16 = |r: u32| bf16::from_f32(r as f32 / 2_147_483_648.0 - 1.0);
    let a16: Vec<_> = (0..copies)
        .map(|_| random(gpu, if int8 { 0 } else { m * k }, to_bf16))
        .collect();
    let b16: Vec<_> = (0..copies)
        .map(|_| random(gpu, if int8 { 0 } else { n * k }, to_bf16))
        .collect();
    let a8: Vec<_> = (0..copies)
        .map(|_| random(gpu, if int8 { m * k } else { 0 }, |r| (r >> 8) as i8))
        .collect();
    // Ternary weights.
    let b8: Vec<_> = (0..copies)
        .map(|_| random(gpu, if int8 { n * k } else { 0 }, |r| (r % 3) as i8 - 1))
        .collect();
    let c16 = gpu
        .uninitialized::<bf16>(if case.f32_output { 0 } else { m * n })
        .unwrap();
    let c32 = gpu.zeros::<f32>(if case.f32_output { m * n } else { 0 }).unwrap();
    let rows = gpu.upload(&vec![0.01f32; m]).unwrap();
    let cols = gpu.upload(&vec![0.02f32; n]).unwrap();
    let problem = |copy: usize| Problem {
        layout,
        m,
        n,
        k,
        operands: if int8 {
            Operands::Int8 {
                a: &a8[copy],
                b: &b8[copy],
            }
        } else {
            Operands::Bf16 {
                a: &a16[copy],
                b: &b16[copy],
            }
        },
        a_stride: if layout == Layout::TN { m } else { k },
        b_stride: if layout == Layout::NT { k } else { n },
        output: if case.f32_output {
            Output::F32(&c32)
        } else {
            Output::Bf16(&c16)
        },
        c_stride: n,
        row_scale: int8.then_some(&rows),
        col_scale: int8.then_some(&cols),
        alpha: 1.0,
        batch: crate::gemm::problem::Batch::ONE,
    };
    let planned = plan(gpu.properties().multiprocessors, (m, n, k), int8, usize::MAX);
    let mut plans = vec![planned];
    for schedule in Schedule::ALL {
        for &splits in [1, planned.splits].iter().chain(cuts) {
            let plan = Plan { schedule, splits };
            if splits <= super::blocks(k, int8) && !plans.contains(&plan) {
                plans.push(plan);
            }
        }
    }
    for (i, plan) in plans.into_iter().enumerate() {
        let workspace = gpu.uninitialized::<f32>(problem(0).workspace_len(plan.splits)).unwrap();
        // A recording, so that the host's part of a launch is not measured.
        let graph = gpu
            .record(|| (0..copies).try_for_each(|copy| run(gpu, &problem(copy), plan, &workspace)))
            .unwrap();
        graph.launch().unwrap();
        let mut seconds: Vec<f64> = (0..11)
            .map(|_| {
                let begin = gpu.mark().unwrap();
                graph.launch().unwrap();
                gpu.mark().unwrap().seconds_since(&begin).unwrap() / copies as f64
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        println!(
            "{:<14} {m:>6} {n:>6} {k:>6}  {layout:?} {:<4} {:<11} {:>2} pieces {:>9.1} us {:>7.1} T/s{}",
            case.what,
            if int8 { "int8" } else { "bf16" },
            format!("{:?}", plan.schedule),
            plan.splits,
            seconds[5] * 1e6,
            2.0 * (m * n * k) as f64 / seconds[5] / 1e12,
            if i == 0 { "  <- planned" } else { "" },
        );
    }
}

#[test]
#[ignore = "a bench"]
fn bench_gemm_wgmma() {
    let Some(gpu) = Gpu::for_test("bench of wgmma") else {
        return;
    };
    if !gpu.properties().is_hopper() {
        println!("SKIPPED (no Hopper): bench of wgmma");
        return;
    }
    let case = |what, layout, sizes, int8, f32_output| Case {
        what,
        layout,
        sizes,
        int8,
        f32_output,
    };
    let square = (8192, 8192, 8192);
    measure(&gpu, &case("square", Layout::NT, square, false, false), &[]);
    measure(&gpu, &case("square", Layout::NN, square, false, false), &[]);
    measure(&gpu, &case("square", Layout::TN, square, false, false), &[]);
    measure(&gpu, &case("square f32", Layout::TN, square, false, true), &[]);
    measure(&gpu, &case("square", Layout::NT, square, true, false), &[]);
    // Tokens of a step, and (outputs, inputs) of the linears: qkv, o, gate|up, down.
    for (model, tokens, linears) in [
        ("25m", 65536, [(1536, 512), (512, 512), (2816, 512), (512, 1408)]),
        ("25m small", 8192, [(1536, 512), (512, 512), (2816, 512), (512, 1408)]),
        ("125m", 65536, [(2304, 768), (768, 768), (4096, 768), (768, 2048)]),
        ("1b3", 16384, [(6144, 2048), (2048, 2048), (11264, 2048), (2048, 5632)]),
    ] {
        println!("{model}");
        for (outputs, inputs) in linears {
            measure(
                &gpu,
                &case("forward", Layout::NT, (tokens, outputs, inputs), true, false),
                &[],
            );
            measure(
                &gpu,
                &case("dX", Layout::NN, (tokens, inputs, outputs), false, false),
                &[],
            );
            let (half, twice) = {
                let sizes = (outputs, inputs, tokens);
                let splits = plan(gpu.properties().multiprocessors, sizes, false, usize::MAX).splits;
                ((splits / 2).max(1), splits * 2)
            };
            measure(
                &gpu,
                &case("dW", Layout::TN, (outputs, inputs, tokens), false, true),
                &[half, twice],
            );
        }
    }
}
