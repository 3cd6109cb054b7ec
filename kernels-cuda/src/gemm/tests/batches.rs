//! Products in batches: each has the bits of the same product alone, and what lies between the results stays.

use half::bf16;

use super::super::problem::{self, Batch, Layout, Operands, Problem};
use super::super::*;
use super::{Host, Random};
use crate::device::Gpu;

#[test]
fn each_product_of_a_batch_has_the_bits_of_that_product_alone() {
    let Some(gpu) = Gpu::for_test("batches of products") else {
        return;
    };
    let mut random = Random::new("batches");
    let multiprocessors = gpu.properties().multiprocessors;
    for layout in [Layout::NT, Layout::NN, Layout::TN] {
        for (count, sizes) in [
            (2, (40, 72, 33)),
            (3, (130, 64, 200)),
            (7, (9, 1, 65)),
            (1, (40, 40, 40)),
        ] {
            let (m, n, k) = sizes;
            let gap = random.below(2);
            let ha = match layout {
                Layout::TN => Host::new::<bf16>(k, m, gap),
                _ => Host::new::<bf16>(m, k, gap),
            };
            let hb = match layout {
                Layout::NT => Host::new::<bf16>(n, k, gap),
                _ => Host::new::<bf16>(k, n, gap),
            };
            let hc = Host::new::<bf16>(m, n, gap);
            // One step has nothing between the matrices, the other has.
            let steps = [&ha, &hb, &hc].map(|h| h.rows * h.stride + 8 * random.below(2));
            let mut values = |host: &Host, step: usize| -> Vec<bf16> {
                let mut all = vec![bf16::NAN; (count - 1) * step + host.len()];
                for i in 0..count {
                    let one = host.fill(bf16::NAN, || bf16::from_f32(random.float()));
                    all[i * step..][..one.len()].copy_from_slice(&one);
                }
                all
            };
            let a = gpu.upload(&values(&ha, steps[0])).unwrap();
            let b = gpu.upload(&values(&hb, steps[1])).unwrap();
            let out = gpu.poisoned::<bf16>((count - 1) * steps[2] + hc.len()).unwrap();
            let matrices = |array, host: &Host, step| Matrices {
                array,
                stride: host.stride,
                step,
            };
            gemm_bf16_strided_batched(
                &gpu,
                layout,
                sizes,
                count,
                matrices(&a, &ha, steps[0]),
                matrices(&b, &hb, steps[1]),
                matrices(&out, &hc, steps[2]),
            )
            .unwrap();
            let mut want = vec![u16::MAX; out.len()];
            for i in 0..count {
                let (a, b) = (a.slice(i * steps[0]..), b.slice(i * steps[1]..));
                let one = gpu.poisoned::<bf16>(hc.len()).unwrap();
                let problem = Problem {
                    layout,
                    m,
                    n,
                    k,
                    operands: Operands::Bf16 { a: &a, b: &b },
                    a_stride: ha.stride,
                    b_stride: hb.stride,
                    output: problem::Output::Bf16(&one),
                    c_stride: hc.stride,
                    row_scale: None,
                    col_scale: None,
                    alpha: 1.0,
                    batch: Batch::ONE,
                };
                let none = gpu.zeros::<f32>(0).unwrap();
                if count == 1 {
                    super::dispatch::run(&gpu, &problem, &none).unwrap();
                } else {
                    let plan = super::mma::plan(multiprocessors, sizes, false, 0, count);
                    super::mma::run(&gpu, &problem, plan, &none).unwrap();
                }
                for (at, value) in gpu.download(&one).unwrap().iter().enumerate() {
                    want[i * steps[2] + at] = value.to_bits();
                }
            }
            let got: Vec<u16> = gpu.download(&out).unwrap().iter().map(|x| x.to_bits()).collect();
            assert!(got == want, "{layout:?}, {count} of {sizes:?}");
            assert!(got.iter().any(|&x| x != u16::MAX && bf16::from_bits(x).is_finite()));
        }
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("batches_that_do_not_fit_are_refused") else {
        return;
    };
    let array = gpu.zeros::<bf16>(3 * 256).unwrap();
    let of = |array, step| Matrices {
        array,
        stride: 16,
        step,
    };
    let good = of(&array, 256);
    let run = |count, a, b, out| gemm_bf16_strided_batched(&gpu, Layout::NT, (16, 16, 16), count, a, b, out);
    let other = gpu.zeros::<bf16>(3 * 256).unwrap();
    let to = of(&other, 256);
    run(3, good, good, to).unwrap();
    run(0, good, good, to).unwrap();
    for (count, a, b, out) in [
        (4, good, good, to),
        (3, of(&array, 257), good, to),
        (3, good, of(&array, 264), to),
        (3, good, good, of(&other, 248)),
        (3, good, good, of(&other, 0)),
        (usize::from(u16::MAX) + 1, of(&array, 0), of(&array, 0), to),
    ] {
        let answer = run(count, a, b, out);
        assert!(
            matches!(answer, Err(crate::CudaError::Shape { .. })),
            "{count} {a:?} {b:?} {out:?}"
        );
    }
}
