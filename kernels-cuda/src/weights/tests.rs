mod bench;
mod groups;

use half::{bf16, f16};
use onebit_kernels_cpu::int4_gemv;
use onebit_kernels_cpu::isa::Isa;
use onebit_kernels_cpu::quantize as cpu;

use super::WeightMode::{Binary, Full, Int4, Int8, Ternary};
use super::*;
use crate::quantize::testing::*;

/// Lays matrices out in the arenas, with gaps between them.
fn layout(matrices: &[(usize, usize, WeightMode)]) -> Vec<WeightTensor> {
    let (mut master, mut codes, mut dense, mut scales) = (8, 0, 4, 3);
    let place = |&(rows, cols, mode): &(usize, usize, WeightMode)| {
        let tensor = WeightTensor {
            master,
            rows,
            cols,
            mode,
            codes,
            dense,
            scales,
        };
        master += rows * cols + 4;
        dense += rows * cols + 8;
        if mode != Full {
            codes += rows * cols + 12;
            scales += mode.scales(rows, cols) + 1;
        }
        tensor
    };
    matrices.iter().map(place).collect()
}

struct Case {
    gpu: Gpu,
    table: WeightTable,
    weights: Vec<f32>,
    master: DeviceArray<f32>,
    scales: DeviceArray<f32>,
    codes: DeviceArray<i8>,
    dense: DeviceArray<bf16>,
}

/// Codes and steps of int4 as the CPU has them, without what is behind the last column.
fn int4(w: &[f32], cols: usize) -> (Vec<i8>, Vec<f32>) {
    let rows = w.len() / cols;
    let (row_bytes, row_steps) = (int4_gemv::row_bytes(cols), int4_gemv::row_steps(cols));
    let (mut packed, mut steps) = (vec![0u8; rows * row_bytes], vec![f16::ZERO; rows * row_steps]);
    int4_gemv::quantize(Isa::best(), w, cols, &mut packed, &mut steps);
    let code = |i: usize| {
        let (row, column) = (i / cols, i % cols);
        let byte = packed[row * row_bytes + column / 32 * 16 + column % 16];
        (byte >> (column % 32 / 16 * 4) & 15) as i8 - 8
    };
    let groups = steps
        .chunks(row_steps)
        .flat_map(|row| &row[..cols.div_ceil(int4_gemv::GROUP)]);
    (
        (0..w.len()).map(code).collect(),
        groups.map(|step| step.to_f32()).collect(),
    )
}

/// What the CPU makes of tensor `t`: γ, scales of rows or groups, codes.
fn quantised(t: &WeightTensor, w: &[f32]) -> (f32, Vec<f32>, Vec<i8>) {
    let isa = Isa::best();
    let (mut codes, mut steps) = (vec![0i8; w.len()], vec![0.0; t.rows]);
    // The engine's blocks.
    let sum = w.chunks(1 << 16).map(|b| cpu::abs_sum(isa, b)).sum();
    let gamma = cpu::absmean_scale(sum, w.len());
    match t.mode {
        Full => return (1.0, Vec::new(), Vec::new()),
        Ternary => cpu::ternary_i8(isa, w, gamma, &mut codes),
        Binary => cpu::binary_i8(isa, w, &mut codes),
        Int8 => cpu::int8_rowwise(isa, w, t.cols, &mut codes, &mut steps),
        Int4 => (codes, steps) = int4(w, t.cols),
    }
    match t.mode {
        Ternary | Binary => (gamma, vec![gamma; t.rows], codes),
        _ => (1.0, steps, codes),
    }
}

/// What weights `w` of tensor `t` are at an annealing value, before they are rounded to bf16.
fn effective(t: &WeightTensor, w: &[f32], anneal: f32) -> Vec<f32> {
    let (gamma, scales, codes) = quantised(t, w);
    let groups = t.cols.div_ceil(int4_gemv::GROUP);
    let scale = |k: usize| match t.mode {
        Int4 => scales[k / t.cols * groups + k % t.cols / int4_gemv::GROUP],
        _ => scales[k / t.cols],
    };
    let hard = |k: usize| f32::from(codes[k]) * scale(k);
    match t.mode {
        _ if anneal <= 0.0 || t.mode == Full => w.to_vec(),
        _ if anneal >= 1.0 => (0..w.len()).map(hard).collect(),
        Ternary => {
            let mut soft = vec![0.0; w.len()];
            cpu::soft_ternary(Isa::best(), w, gamma, anneal, &mut soft);
            soft
        }
        _ => (0..w.len())
            .map(|k| anneal.mul_add(hard(k), (1.0 - anneal) * w[k]))
            .collect(),
    }
}

impl Case {
    fn new(gpu: &Gpu, matrices: &[(usize, usize, WeightMode)]) -> Self {
        let tensors = layout(matrices);
        let mut random = Random::new();
        let last = *tensors.last().unwrap();
        let len = last.master + last.len() + 4;
        let mut weights = random.f32s(len, 0.02);
        weights[tensors[0].master] = -0.0;
        Case {
            table: WeightTable::new(gpu, &tensors).unwrap(),
            master: gpu.upload(&weights).unwrap(),
            scales: gpu.poisoned(len).unwrap(),
            codes: gpu.poisoned(2 * len).unwrap(),
            dense: gpu.poisoned(2 * len).unwrap(),
            gpu: gpu.clone(),
            weights,
        }
    }

    fn run(&self, which: Range<usize>, codes: bool, dense: bool, anneal: f32) {
        let (gpu, table) = (&self.gpu, &self.table);
        let anneal = gpu.upload(&[anneal]).unwrap();
        table.measure(gpu, which.clone(), &self.master, &self.scales).unwrap();
        let (codes, dense) = (codes.then_some(&self.codes), dense.then_some(&self.dense));
        table
            .write(gpu, which, &self.master, &self.scales, codes, dense, &anneal)
            .unwrap();
    }

    fn weights_of(&self, t: &WeightTensor) -> &[f32] {
        &self.weights[t.master..t.master + t.len()]
    }

    /// Compares tensors `which` with the CPU's, and sees that nothing else was written.
    fn check(&self, which: Range<usize>, with_codes: bool, with_dense: bool, anneal: f32) {
        let gpu = &self.gpu;
        let gammas = gpu.download(self.table.gammas()).unwrap();
        let mut scales = gpu.download(&self.scales).unwrap();
        let mut codes = gpu.download(&self.codes).unwrap();
        let mut dense = gpu.download(&self.dense).unwrap();
        for i in which {
            let t = self.table.tensors()[i];
            let w = self.weights_of(&t);
            let (gamma, expected_scales, expected_codes) = quantised(&t, w);
            assert_eq!(gammas[i].to_bits(), gamma.to_bits(), "γ of {t:?}");
            let found = &mut scales[t.scales..t.scales + expected_scales.len()];
            assert_eq!(found, expected_scales, "scales of {t:?}");
            found.fill(f32::NAN);
            if with_codes {
                let found = &mut codes[t.codes..t.codes + expected_codes.len()];
                assert!(*found == expected_codes, "codes of {t:?}");
                found.fill(-1);
            }
            if with_dense {
                let expected = effective(&t, w, anneal);
                let found = &mut dense[t.dense..t.dense + w.len()];
                if t.mode == Ternary && 0.0 < anneal && anneal < 1.0 {
                    for (f, e) in found.iter().zip(&expected) {
                        let bound = e.abs() / 128.0 + 1e-6 * gamma;
                        assert!((f.to_f32() - e).abs() <= bound, "soft {f}, not {e}");
                    }
                    let expected: Vec<f64> = expected.iter().map(|&e| f64::from(e)).collect();
                    assert!(distance(widen(found), &expected) < 1.1 * BF16);
                } else {
                    assert!(
                        found
                            .iter()
                            .zip(expected)
                            .all(|(f, e)| f.to_bits() == bf16::from_f32(e).to_bits() || f.is_nan() && e.is_nan()),
                        "dense {t:?}"
                    );
                }
                found.fill(bf16::from_bits(0xffff));
            }
        }
        assert!(scales.iter().all(|s| s.is_nan()), "scales outside");
        assert!(codes.iter().all(|&c| c == -1), "codes outside");
        assert!(dense.iter().all(|d| d.to_bits() == 0xffff), "dense weights outside");
    }
}

/// Around the sizes of the sums' blocks (4096, 65536), of the vectors, and more chunks than `gammas` stages at once is left to the bench.
const MATRICES: [(usize, usize, WeightMode); 18] = [
    (1, 4, Ternary),
    (3, 20, Ternary),
    (64, 64, Ternary),
    (17, 244, Ternary),
    (256, 256, Ternary),
    (257, 256, Ternary),
    (37, 1284, Binary),
    (5, 36, Full),
    (13, 52, Int8),
    (301, 256, Int8),
    (3, 516, Int4),
    (0, 64, Ternary),
    (1, 65600, Int4),
    (2, 8, Full),
    (1, 4, Int4),
    (301, 228, Int4),
    (7, 64, Int4),
    (5, 132, Int4),
];

#[test]
fn weights_are_the_cpus() {
    let Some(gpu) = Gpu::for_test("weights") else { return };
    for anneal in [0.0, 0.4, 0.97, 1.0] {
        let case = Case::new(&gpu, &MATRICES);
        case.run(0..MATRICES.len(), true, true, anneal);
        case.check(0..MATRICES.len(), true, true, anneal);
    }
}

/// Weights within a few steps of f32 of where codes change: whether a reciprocal or a division rounds shows there alone.
#[test]
fn codes_at_their_borders_are_the_cpus() {
    let Some(gpu) = Gpu::for_test("weights, borders") else {
        return;
    };
    let mut matrices = vec![(32, 128, Int8), (32, 128, Int4)];
    matrices.resize(34, (8, 64, Ternary));
    let mut case = Case::new(&gpu, &matrices);
    let mut random = Random::new();
    let near = |x: f32, by: u64| f32::from_bits(x.to_bits() + (by % 9) as u32 - 4);
    for t in case.table.tensors().to_vec() {
        let half_gamma = random.f32s(1, 1.0)[0].abs() + 0.1;
        for row in case.weights[t.master..t.master + t.len()].chunks_mut(t.cols) {
            let most = if t.mode == Int8 { 127 } else { 7 };
            let (unit, top) = (
                if t.mode == Ternary {
                    half_gamma
                } else {
                    random.f32s(1, 1.0)[0].abs() + 0.1
                },
                most as f32,
            );
            for (i, w) in row.iter_mut().enumerate() {
                *w = match t.mode {
                    // Half of them at γ/2, the others at 3γ/2, so that their mean is γ.
                    Ternary => near([unit, 3.0 * unit][i % 2], random.next()),
                    _ if i == 0 => unit,
                    _ => near((unit / top) * ((random.next() % most) as f32 + 0.5), random.next()),
                };
            }
        }
    }
    gpu.write(&case.master, &case.weights).unwrap();
    case.run(0..34, true, true, 1.0);
    case.check(0..34, true, true, 1.0);
}

#[test]
fn some_tensors_and_some_forms() {
    let Some(gpu) = Gpu::for_test("weights, ranges") else {
        return;
    };
    for (which, codes, dense) in [
        (0..0, true, true),
        (2..6, true, false),
        (5..10, false, true),
        (13..14, true, true),
        (14..18, true, true),
    ] {
        let case = Case::new(&gpu, &MATRICES);
        case.run(which.clone(), codes, dense, 1.0);
        case.check(which, codes, dense, 1.0);
    }
}

#[test]
fn many_chunks_are_added_in_order() {
    let Some(gpu) = Gpu::for_test("weights, large") else {
        return;
    };
    let rows = if emulated(&gpu) { 200 } else { 20_000 };
    let case = Case::new(&gpu, &[(rows, 1000, Ternary), (rows, 1004, Binary)]);
    case.run(0..2, true, false, 1.0);
    case.check(0..2, true, false, 1.0);
}

#[test]
fn trits_are_counted() {
    let Some(gpu) = Gpu::for_test("weights, statistics") else {
        return;
    };
    let case = Case::new(&gpu, &MATRICES);
    case.run(0..MATRICES.len(), true, false, 1.0);
    let mut before = gpu.download(&case.codes).unwrap();
    let mut random = Random::new();
    for code in &mut before {
        if random.next().is_multiple_of(7) {
            *code = (random.next() % 3) as i8 - 1;
        }
    }
    let previous = gpu.upload(&before).unwrap();
    for previous in [Some(&previous), None] {
        let counts = gpu.poisoned::<u32>(COUNTS * MATRICES.len()).unwrap();
        case.table
            .statistics(&gpu, 1..MATRICES.len(), &case.master, previous, &counts)
            .unwrap();
        let counts = gpu.download(&counts).unwrap();
        assert_eq!(counts[..COUNTS], [u32::MAX; COUNTS]);
        for (i, t) in case.table.tensors().iter().enumerate().skip(1) {
            let w = case.weights_of(t);
            let (gamma, _, codes) = quantised(t, w);
            let count = |f: &dyn Fn(usize) -> bool| (0..w.len()).filter(|&k| f(k)).count() as u32;
            let expected = match t.mode {
                Ternary => [
                    count(&|k| codes[k] == 0),
                    count(&|k| w[k].abs() >= 1.5 * gamma),
                    count(&|k| previous.is_some() && before[t.codes + k] != codes[k]),
                ],
                _ => [0; COUNTS],
            };
            assert_eq!(counts[COUNTS * i..][..COUNTS], expected, "{t:?}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("weights, shapes") else {
        return;
    };
    let case = Case::new(&gpu, &[(4, 8, Ternary), (4, 8, Int8)]);
    let (table, anneal) = (&case.table, gpu.zeros::<f32>(1).unwrap());
    let short = case.master.slice(..60);
    assert!(table.measure(&gpu, 0..1, &short, &case.scales).is_ok());
    assert!(table.measure(&gpu, 0..2, &short, &case.scales).is_err());
    assert!(table.measure(&gpu, 0..3, &case.master, &case.scales).is_err());
    assert!(
        table
            .measure(&gpu, 0..2, &case.master, &case.scales.slice(..6))
            .is_err()
    );
    let codes = case.codes.slice(..40);
    let write = |which, codes| table.write(&gpu, which, &case.master, &case.scales, Some(codes), None, &anneal);
    assert!(write(0..1, &codes).is_ok());
    assert!(write(0..2, &codes).is_err());
    assert!(write(0..2, &case.codes.slice(1..)).is_err());
    let counts = gpu.zeros::<u32>(5).unwrap();
    assert!(table.statistics(&gpu, 0..2, &case.master, None, &counts).is_err());
    // Of int4 a scale for each group of 32 columns, not for each row.
    let groups = WeightTable::new(&gpu, &layout(&[(4, 64, Int4)])).unwrap();
    let (weights, scales) = (gpu.zeros::<f32>(300).unwrap(), gpu.zeros::<f32>(11).unwrap());
    assert!(groups.measure(&gpu, 0..1, &weights, &scales).is_ok());
    assert!(groups.measure(&gpu, 0..1, &weights, &scales.slice(1..)).is_err());
    let (ids, x) = (gpu.zeros::<u32>(2).unwrap(), gpu.zeros::<f32>(128).unwrap());
    let rows = |tensor, x: DeviceArray<f32>| groups.rows(&gpu, tensor, &ids, &weights, &scales, &anneal, &x);
    assert!(rows(0, x.clone()).is_ok());
    assert!(rows(0, x.slice(4..)).is_err());
    assert!(rows(1, x).is_err());
    let odd = WeightTensor {
        cols: 6,
        ..table.tensors()[0]
    };
    assert!(WeightTable::new(&gpu, &[odd]).is_err());
}
