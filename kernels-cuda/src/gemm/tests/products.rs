//! Products of all kinds, and what is refused.

use half::bf16;

use super::super::*;
use super::{Case, Kind, Random, Way, check, error, ways};
use crate::device::Gpu;

fn check_bf16(gpu: &Gpu, ways: &[Way], random: &mut Random, case: Case) {
    let value = |r: &mut Random| bf16::from_f32(r.float());
    check(gpu, ways, random, case, value, value);
}

fn check_s8(gpu: &Gpu, ways: &[Way], random: &mut Random, case: Case) {
    let byte = |r: &mut Random| (r.below(256) as i32 - 128) as i8;
    let trit = |r: &mut Random| (r.below(3) as i32 - 1) as i8;
    // Below 2^24 every integer is an f32: 1,024 products of two bytes.
    if case.sizes.2 <= 1024 {
        check(gpu, ways, random, case, byte, byte);
    } else {
        check(gpu, ways, random, case, byte, trit);
    }
}

const EDGES: [usize; 16] = [1, 7, 8, 9, 16, 31, 63, 64, 65, 127, 128, 129, 136, 200, 257, 264];

/// Cases of all sizes along each direction, and all combinations of the rest somewhere.
fn cases(random: &mut Random, gpu: &Gpu, layouts: &[Layout]) -> Vec<Case> {
    let emulated = gpu.properties().name.contains("emulated");
    let mut cases = Vec::new();
    for &layout in layouts {
        for kind in [Kind::Bf16, Kind::F32, Kind::Accumulate] {
            for direction in 0..3 {
                for &edge in EDGES
                    .iter()
                    .filter(|_| !emulated || random.below(3) == 0)
                    .collect::<Vec<_>>()
                {
                    let mut sizes = [0; 3].map(|_| EDGES[random.below(EDGES.len())]);
                    sizes[direction] = edge;
                    cases.push(Case {
                        layout,
                        sizes: (sizes[0], sizes[1], sizes[2]),
                        kind,
                        rows: random.below(2) == 0,
                        cols: random.below(2) == 0,
                        alpha: [1.0, 1.0, -0.37][random.below(3)],
                        gap: random.below(3),
                        workspace: random.below(3) != 0,
                    });
                }
            }
        }
    }
    cases
}

#[test]
fn bf16_of_every_layout_and_size() {
    let Some(gpu) = Gpu::for_test("bf16_of_every_layout_and_size") else {
        return;
    };
    let (mut random, ways) = (Random::new("bf16"), ways(&gpu));
    for case in cases(&mut random, &gpu, &[Layout::NT, Layout::NN, Layout::TN]) {
        check_bf16(&gpu, &ways, &mut random, case);
    }
}

#[test]
fn int8_is_exact() {
    let Some(gpu) = Gpu::for_test("int8_is_exact") else {
        return;
    };
    let (mut random, ways) = (Random::new("int8"), ways(&gpu));
    for case in cases(&mut random, &gpu, &[Layout::NT]) {
        check_s8(&gpu, &ways, &mut random, case);
        let plain = Case {
            rows: false,
            cols: false,
            alpha: 1.0,
            ..case
        };
        check_s8(&gpu, &ways, &mut random, plain);
    }
}

/// Longer sums, and grids of more than a band of tiles.
#[test]
fn larger_products() {
    let Some(gpu) = Gpu::for_test("larger_products") else {
        return;
    };
    let (mut random, ways) = (Random::new("larger"), ways(&gpu));
    let plain = Case {
        layout: Layout::NT,
        sizes: (0, 0, 0),
        kind: Kind::F32,
        rows: false,
        cols: false,
        alpha: 1.0,
        gap: 0,
        workspace: true,
    };
    let all = if gpu.properties().name.contains("emulated") {
        vec![(2200, 70, 40), (70, 72, 1500)]
    } else {
        vec![
            (512, 1408, 8192),
            (2048, 5632, 1024),
            (4100, 520, 2056),
            (72, 200, 16384),
        ]
    };
    for sizes in all {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            check_bf16(&gpu, &ways, &mut random, Case { layout, sizes, ..plain });
            let case = Case {
                layout,
                sizes,
                kind: Kind::Bf16,
                rows: true,
                cols: true,
                ..plain
            };
            check_bf16(&gpu, &ways, &mut random, case);
        }
        check_s8(&gpu, &ways, &mut random, Case { sizes, ..plain });
        let case = Case {
            sizes,
            kind: Kind::Bf16,
            cols: true,
            rows: true,
            alpha: 0.01,
            ..plain
        };
        check_s8(&gpu, &ways, &mut random, case);
    }
}

/// All bytes at their extremes: the largest sums that there are.
#[test]
fn extreme_bytes() {
    let Some(gpu) = Gpu::for_test("extreme_bytes") else {
        return;
    };
    let (m, n, k) = (70, 66, 1000);
    for (x, y) in [(-128i8, -128i8), (-128, 127), (127, 127)] {
        let (a, b) = (
            gpu.upload(&vec![x; m * 1008]).unwrap(),
            gpu.upload(&vec![y; n * 1008]).unwrap(),
        );
        let out = gpu.poisoned::<f32>(m * 68).unwrap();
        let operand = |array| Matrix { array, stride: 1008 };
        let to = Output::F32 {
            matrix: Matrix {
                array: &out,
                stride: 68,
            },
            accumulate: false,
        };
        let workspace = gpu.poisoned(workspace_len(&gpu, Layout::NT, (m, n, k), true)).unwrap();
        gemm_s8(&gpu, (m, n, k), operand(&a), operand(&b), to, Scales::NONE, &workspace).unwrap();
        let sum = (i32::from(x) * i32::from(y) * k as i32) as f32;
        let out = gpu.download(&out).unwrap();
        assert!(out.chunks(68).all(|row| row[..n].iter().all(|&v| v == sum)));
    }
}

#[test]
fn empty_sums_are_zero_and_empty_outputs_nothing() {
    let Some(gpu) = Gpu::for_test("empty products") else {
        return;
    };
    let none = gpu.zeros::<bf16>(0).unwrap();
    let workspace = gpu.zeros::<f32>(0).unwrap();
    let empty = Matrix {
        array: &none,
        stride: 8,
    };
    let out = gpu.poisoned::<f32>(5 * 8).unwrap();
    for accumulate in [false, true] {
        let matrix = Matrix { array: &out, stride: 8 };
        let to = Output::F32 { matrix, accumulate };
        gemm_bf16(&gpu, Layout::NT, (5, 8, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
        assert_eq!(gpu.download(&out).unwrap(), [0.0; 40]);
    }
    let to = Output::Bf16(empty);
    gemm_bf16(&gpu, Layout::NT, (0, 8, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
    gemm_bf16(&gpu, Layout::NT, (5, 0, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(gpu) = Gpu::for_test("what_does_not_fit_is_refused") else {
        return;
    };
    let array = gpu.zeros::<bf16>(64 * 64).unwrap();
    let result = gpu.zeros::<f32>(64 * 64).unwrap();
    let scale = gpu.zeros::<f32>(63).unwrap();
    let workspace = gpu.zeros::<f32>(0).unwrap();
    let good = Matrix {
        array: &array,
        stride: 64,
    };
    let to = |stride| Output::F32 {
        matrix: Matrix { array: &result, stride },
        accumulate: false,
    };
    let sizes = (64, 64, 64);
    let refused = |sizes, a: Matrix<bf16>, b: Matrix<bf16>, out, scales| {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            let answer = gemm_bf16(&gpu, layout, sizes, a, b, out, scales, &workspace);
            assert!(matches!(answer, Err(crate::CudaError::Shape { .. })), "{answer:?}");
        }
    };
    gemm_bf16(&gpu, Layout::NT, sizes, good, good, to(64), Scales::NONE, &workspace).unwrap();
    refused((65, 64, 64), good, good, to(64), Scales::NONE);
    refused((64, 65, 64), good, good, to(64), Scales::NONE);
    refused((64, 64, 65), good, good, to(64), Scales::NONE);
    refused(sizes, Matrix { stride: 60, ..good }, good, to(64), Scales::NONE);
    refused(sizes, good, Matrix { stride: 65, ..good }, to(64), Scales::NONE);
    refused(sizes, good, good, to(66), Scales::NONE);
    let short = array.slice(8..);
    refused(
        sizes,
        Matrix {
            array: &short,
            stride: 64,
        },
        good,
        to(64),
        Scales::NONE,
    );
    let odd = array.slice(1..);
    refused(
        (8, 8, 8),
        Matrix {
            array: &odd,
            stride: 64,
        },
        good,
        to(64),
        Scales::NONE,
    );
    for (rows, cols) in [(Some(&scale), None), (None, Some(&scale))] {
        refused(sizes, good, good, to(64), Scales { rows, cols, alpha: 1.0 });
    }
}

/// The comparison itself finds one element that is wrong by little.
#[test]
fn a_single_wrong_element_shows() {
    let mut random = Random::new("comparison");
    let expected: Vec<f64> = (0..10_000).map(|_| f64::from(random.float())).collect();
    let mut out: Vec<f64> = expected.iter().map(|&e| bf16::from_f64(e).to_f64()).collect();
    let (norm, near) = error(&out, &expected, 1.0 / 256.0);
    assert!(norm <= 1.0 / 256.0 && near);
    out[1234] += 0.02;
    assert!(!error(&out, &expected, 1.0 / 256.0).1);
}

#[test]
fn plans_fill_the_gpu_and_fit_the_workspace() {
    let gradient = (512, 1408, 8192);
    let plan = mma::plan(132, gradient, false, usize::MAX, 1);
    assert!(plan.splits > 1, "{plan:?}");
    assert_eq!(mma::plan(132, gradient, false, 0, 1).splits, 1);
    for workspace in [1 << 20, 3 << 20, 1 << 24] {
        let plan = mma::plan(132, gradient, false, workspace, 1);
        assert!(mma::workspace_len(gradient, plan.splits) <= workspace, "{plan:?}");
    }
    let large = mma::Plan { tile: 128, splits: 1 };
    assert_eq!(mma::plan(132, (16384, 2048, 2048), false, usize::MAX, 1), large);
    assert_eq!(mma::plan(132, (0, 0, 0), true, usize::MAX, 1).splits, 1);
}
