use half::bf16;

use super::testing::*;
use super::*;

/// Rows and columns of each way in which threads lie over rows, at its limits and between them.
const SHAPES: [(usize, usize); 10] = [
    (1, 8),
    (9, 504),
    (8, 512),
    (3, 520),
    (17, 1024),
    (2, 1032),
    (3, 2048),
    (1, 6144),
    (2, 6152),
    (1, 16384),
];

#[test]
fn rows_are_quantised_as_on_the_cpu() {
    let Some(gpu) = Gpu::for_test("quantize") else { return };
    let mut random = Random::new();
    for (rows, cols) in SHAPES {
        let stride = cols + 16;
        let mut x = random.bf16s(rows * stride, 3.0);
        if rows > 2 {
            // A row of zeros, and one below the floor of the scale.
            x[..cols].fill(bf16::ZERO);
            x[stride..stride + cols].fill(bf16::from_f32(3e-6));
        }
        let y: Vec<f32> = x.chunks(stride).flat_map(|row| widen(&row[..cols])).collect();
        for anneal in [0.0, 0.3, 1.0] {
            let forms = Forms::new(&gpu, rows, cols, anneal);
            quantize(&gpu, &gpu.upload(&x).unwrap(), rows, cols, stride, &forms.outputs()).unwrap();
            forms.check(&gpu, &y, cols, false);
        }
    }
}

#[test]
fn a_nan_is_the_lower_end() {
    let Some(gpu) = Gpu::for_test("quantize, NaN") else {
        return;
    };
    let mut x = Random::new().bf16s(2 * 64, 1.0);
    x[70] = bf16::NAN;
    let forms = Forms::new(&gpu, 2, 64, 1.0);
    quantize(&gpu, &gpu.upload(&x).unwrap(), 2, 64, 64, &forms.codes_only()).unwrap();
    let (mut codes, mut scales) = ([0i8; 128], [0.0; 2]);
    let isa = onebit_kernels_cpu::isa::Isa::best();
    onebit_kernels_cpu::quantize::absmax_i8(isa, &widen(&x), 64, &mut codes, 64, &mut scales);
    assert_eq!(gpu.download(&forms.codes).unwrap(), codes);
    assert_eq!(codes[70], -128);
}

#[test]
fn codes_are_opened_as_on_the_cpu() {
    let Some(gpu) = Gpu::for_test("dequantize") else { return };
    let mut random = Random::new();
    for (rows, cols) in [(1, 16), (3, 48), (5, 1040), (257, 768), (0, 16)] {
        let codes: Vec<i8> = (0..rows * cols).map(|_| random.next() as i8).collect();
        let steps = random.f32s(rows, 0.1);
        let out = gpu.poisoned::<bf16>(rows * cols).unwrap();
        let values = Codes {
            values: &gpu.upload(&codes).unwrap(),
            steps: &gpu.upload(&steps).unwrap(),
        };
        dequantize(&gpu, &values, &out).unwrap();
        let expected = |i: usize| bf16::from_f32(f32::from(codes[i]) * steps[i / cols]);
        let found = gpu.download(&out).unwrap();
        assert!((0..rows * cols).all(|i| found[i] == expected(i)), "{rows} by {cols}");
    }
}

#[test]
fn groups_are_rounded_as_on_the_cpu() {
    use onebit_kernels_cpu::int4_gemv as cpu;
    let Some(gpu) = Gpu::for_test("blend groups") else {
        return;
    };
    let mut random = Random::new();
    for (rows, cols) in [(1, 8), (3, 32), (9, 40), (17, 768), (2, 2064), (0, 32)] {
        let mut x = random.bf16s(rows * cols, 3.0);
        if rows > 2 {
            x[..cols].fill(bf16::ZERO);
            x[cols + 5] = bf16::from_f32(300.0);
            x[2 * cols + 1] = bf16::NAN;
        }
        let y = widen(&x);
        let mut blocks = vec![cpu::InputBlock::ZERO; rows * cpu::blocks(cols)];
        cpu::quantize_input(onebit_kernels_cpu::isa::Isa::best(), &y, cols, &mut blocks);
        let mut hard = vec![0.0; rows * cols];
        cpu::dequantize_input(&blocks, cols, &mut hard);
        for anneal in [0.0f32, 0.3, 1.0] {
            let out = gpu.poisoned::<bf16>(rows * cols).unwrap();
            let there = gpu.upload(&[anneal]).unwrap();
            blend_groups(&gpu, &gpu.upload(&x).unwrap(), rows, &there, &out).unwrap();
            for ((found, hard), y) in gpu.download(&out).unwrap().iter().zip(&hard).zip(&y) {
                let wanted = match anneal >= 1.0 {
                    true => *hard,
                    false => anneal.mul_add(*hard, (1.0 - anneal) * y),
                };
                let wanted = bf16::from_f32(wanted);
                assert!(
                    *found == wanted || found.is_nan() && wanted.is_nan(),
                    "{rows} by {cols} at {anneal}: {found}, not {wanted}"
                );
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let Some(gpu) = Gpu::for_test("quantize, shapes") else {
        return;
    };
    let x = gpu.zeros::<bf16>(64).unwrap();
    let forms = Forms::new(&gpu, 4, 16, 0.0);
    assert!(quantize(&gpu, &x, 4, 16, 16, &forms.outputs()).is_ok());
    assert!(quantize(&gpu, &x, 4, 16, 12, &forms.outputs()).is_err());
    assert!(quantize(&gpu, &x, 4, 16, 24, &forms.outputs()).is_err());
    assert!(quantize(&gpu, &x, 4, 12, 16, &forms.outputs()).is_err());
    assert!(quantize(&gpu, &x, 3, 16, 16, &forms.outputs()).is_err());
    assert!(quantize(&gpu, &x.slice(1..), 3, 16, 16, &Forms::new(&gpu, 3, 16, 0.0).outputs()).is_err());
    let codes = forms.outputs().codes.unwrap();
    assert!(dequantize(&gpu, &codes, &forms.plain).is_ok());
    assert!(dequantize(&gpu, &codes, &forms.plain.slice(..48)).is_err());
    let anneal = gpu.zeros::<f32>(1).unwrap();
    assert!(blend_groups(&gpu, &x, 4, &anneal, &forms.plain).is_ok());
    assert!(blend_groups(&gpu, &x, 3, &anneal, &forms.plain).is_err());
    assert!(blend_groups(&gpu, &x, 16, &anneal, &forms.plain).is_err());
    assert!(blend_groups(&gpu, &x.slice(..48), 4, &anneal, &forms.plain).is_err());
    let steps = &gpu.zeros::<f32>(3).unwrap();
    assert!(dequantize(&gpu, &Codes { steps, ..codes }, &forms.plain).is_err());
}

#[test]
#[ignore = "a bench"]
fn bench_quantize() {
    let Some(gpu) = Gpu::for_test("bench") else { return };
    for (rows, cols) in [(65536, 768), (16384, 2048), (16384, 5632)] {
        let (codes, steps) = (filled(&gpu, rows * cols), filled(&gpu, rows));
        let codes = Codes {
            values: &codes,
            steps: &steps,
        };
        let out = filled(&gpu, rows * cols);
        bench(&gpu, &format!("dequantize {rows}x{cols}"), 3 * rows * cols, || {
            dequantize(&gpu, &codes, &out).unwrap()
        });
        let outputs = RowOutputs {
            codes: Some(codes),
            ..RowOutputs::default()
        };
        bench(&gpu, &format!("quantize {rows}x{cols}"), 3 * rows * cols, || {
            quantize(&gpu, &out, rows, cols, cols, &outputs).unwrap()
        });
    }
}
