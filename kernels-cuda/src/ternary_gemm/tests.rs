//! Against the CPU's kernels and the product of few tokens: bit for bit.

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, activation, elementwise};

use super::*;
use crate::ternary_gemv::TernaryPart;
use crate::ternary_gemv::tests::{Both, CODES, Random, bits, microseconds, small};

/// Memory for `matrix` and so many tokens, with `more` sums left.
fn memory(gpu: &Gpu, matrix: &TernaryMatrix, tokens: usize, more: usize) -> Opened {
    Opened {
        weights: gpu.poisoned(matrix.opened()).unwrap(),
        sums: gpu.poisoned(tokens * matrix.sums() + more).unwrap(),
    }
}

#[test]
fn weights_open_to_what_was_packed() {
    let Some(gpu) = Gpu::for_test("unpacking") else { return };
    let mut random = Random::seeded("unpacking");
    for (rows, cols) in [(1, 1), (7, 63), (8, 256), (9, 257), (20, 641), (83, 1300)] {
        for code in CODES {
            let both = Both::new(&mut random, code, rows, cols);
            let matrix = TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap();
            let to = gpu.poisoned::<i8>(matrix.opened() + 16).unwrap();
            let found = gpu.download(&open(&gpu, &matrix, &to).unwrap()).unwrap();
            for (row, want) in both.weights.chunks_exact(cols).enumerate() {
                let found = &found[row * matrix.padded_cols()..][..cols];
                assert_eq!(found, want, "{rows} x {cols} {code:?}, row {row}");
            }
            let behind = gpu.download(&to.slice(matrix.opened()..)).unwrap();
            assert_eq!(behind, [-1; 16], "{rows} x {cols} {code:?}");
            assert!(open(&gpu, &matrix, &to.slice(17..)).is_err());
        }
    }
}

#[test]
fn products_and_epilogues_are_those_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("ternary_gemm") else {
        return;
    };
    let mut random = Random::seeded("ternary_gemm");
    let isa = Isa::best();
    let mut sizes = vec![(300, [37, 9, 16]), (641, [8, 12, 3]), (65, [1, 1, 1])];
    if !small(&gpu) {
        sizes.extend([(2560, [2560, 640, 640]), (6912, [1003, 555, 2])]);
    }
    for (cols, rows) in sizes {
        for code in CODES {
            let parts = rows.map(|rows| Both::new(&mut random, code, rows, cols));
            let matrix = TernaryMatrix::stacked(&gpu, &parts.each_ref().map(Both::part)).unwrap();
            let (total, stride) = (rows.iter().sum::<usize>(), matrix.padded_cols());
            let [gate, up] = [(); 2].map(|()| Both::new(&mut random, code, rows[0], cols));
            let pair = TernaryMatrix::paired(&gpu, gate.part(), up.part()).unwrap();
            for tokens in [1, 17, 33, 130] {
                let mut xq = gate.tokens(&mut random, tokens, stride);
                xq[..stride].fill(-128);
                gate.clear_padding(&mut xq, stride);
                let scales: Vec<f32> = (0..tokens).map(|_| 0.5 + random.float().abs()).collect();
                let before = random.floats(tokens * total);
                let (x, s) = (gpu.upload(&xq).unwrap(), gpu.upload(&scales).unwrap());
                let outputs = [total, total, rows[0], rows[0]];
                let [stored, relu, gated, silu] = outputs.map(|rows| gpu.poisoned::<f32>(tokens * rows).unwrap());
                let added = gpu.upload(&before).unwrap();
                let room = memory(&gpu, &matrix, tokens, (tokens % 2) * 5000);
                for epilogue in [
                    Epilogue::Store(&stored),
                    Epilogue::Add(&added, 0.7),
                    Epilogue::Relu2(&relu),
                ] {
                    ternary_gemm(&gpu, &matrix, &x, &s, epilogue, &room).unwrap();
                }
                let room = memory(&gpu, &pair, tokens, (tokens % 2) * 5000);
                for epilogue in [Epilogue::GatedRelu2(&gated), Epilogue::GatedSilu(&silu)] {
                    ternary_gemm(&gpu, &pair, &x, &s, epilogue, &room).unwrap();
                }
                let found = [stored, added, relu, gated, silu].map(|array| gpu.download(&array).unwrap());
                for t in 0..tokens {
                    let xq = &xq[t * stride..][..stride];
                    let y: Vec<f32> = parts.iter().flat_map(|part| part.product(xq, scales[t])).collect();
                    let (g, u) = (gate.product(xq, scales[t]), up.product(xq, scales[t]));
                    let mut want = [
                        y.clone(),
                        before[t * total..][..total].to_vec(),
                        y.clone(),
                        g.clone(),
                        g.clone(),
                    ];
                    elementwise::axpy(isa, 0.7, &y, &mut want[1]);
                    activation::relu2(isa, &y, &mut want[2]);
                    activation::relu2_gate(isa, &g, &u, &mut want[3]);
                    activation::swiglu(isa, &g, &u, &mut want[4]);
                    for (i, (found, want)) in found.iter().zip(&want).enumerate() {
                        let found = &found[t * want.len()..][..want.len()];
                        assert_eq!(
                            bits(found),
                            bits(want),
                            "{rows:?} x {cols} {code:?}, {i}, token {t} of {tokens}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn sums_beyond_what_a_float_holds_are_rounded_once() {
    let Some(gpu) = Gpu::for_test("long sums") else { return };
    let cols = 140_001;
    let mut packed = vec![0; Layout::T2.bytes(3, cols)];
    Layout::T2.pack(&vec![1; 3 * cols], 3, cols, &mut packed);
    let part = TernaryPart {
        code: TernaryCode::T2,
        rows: 3,
        cols,
        packed: &packed,
        gamma: 0.3,
        steps: &[],
    };
    let matrix = TernaryMatrix::stacked(&gpu, &[part]).unwrap();
    let mut xq = vec![127i8; 2 * matrix.padded_cols()];
    xq[..2].copy_from_slice(&[1, 3]);
    let (x, s) = (gpu.upload(&xq).unwrap(), gpu.upload(&[0.7f32, 1.9]).unwrap());
    let [few, many] = [(); 2].map(|()| gpu.poisoned::<f32>(6).unwrap());
    crate::ternary_gemv::ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Store(&few)).unwrap();
    let room = memory(&gpu, &matrix, 2, 4096);
    ternary_gemm(&gpu, &matrix, &x, &s, Epilogue::Store(&many), &room).unwrap();
    let (few, many) = (gpu.download(&few).unwrap(), gpu.download(&many).unwrap());
    assert_eq!(bits(&few), bits(&many));
    let sum = (127 * (cols - 2) + 4) as f32;
    assert_eq!(many[0], sum * (0.3 / 0.7));
}

#[test]
fn shapes_are_compared() {
    let Some(gpu) = Gpu::for_test("shapes of ternary_gemm") else {
        return;
    };
    let both = Both::new(&mut Random(1), TernaryCode::T2, 8, 256);
    let matrix = TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap();
    let (x, s, y) = (
        gpu.zeros::<i8>(20 * 256).unwrap(),
        gpu.upload(&[1.0f32; 20]).unwrap(),
        gpu.zeros::<f32>(160).unwrap(),
    );
    let room = memory(&gpu, &matrix, 20, 0);
    let run = |x: &_, s: &_, y: Epilogue<'_>, room: &_| ternary_gemm(&gpu, &matrix, x, s, y, room);
    run(&x, &s, Epilogue::Store(&y), &room).unwrap();
    assert!(run(&x.slice(1..), &s, Epilogue::Store(&y), &room).is_err());
    assert!(run(&x, &s.slice(1..), Epilogue::Store(&y), &room).is_err());
    assert!(run(&x, &s, Epilogue::Store(&y.slice(1..)), &room).is_err());
    assert!(run(&x, &s, Epilogue::GatedSilu(&y), &room).is_err());
    let short = |weights: usize, sums: usize| Opened {
        weights: room.weights.slice(weights..),
        sums: room.sums.slice(sums..),
    };
    assert!(run(&x, &s, Epilogue::Store(&y), &short(1, 0)).is_err());
    assert!(run(&x, &s, Epilogue::Store(&y), &short(0, 1)).is_err());
    gpu.synchronize().unwrap();
}

/// Microseconds of each step, in recordings of launches over other copies of the weights.
#[test]
#[ignore = "a bench"]
fn bench_ternary_gemm() {
    let Some(gpu) = Gpu::for_test("bench_ternary_gemm") else {
        return;
    };
    for (rows, cols, paired) in [
        (3840, 2560, false),
        (2560, 2560, false),
        (6912, 2560, true),
        (2560, 6912, false),
    ] {
        for code in CODES {
            let matrix = || TernaryMatrix::synthetic(&gpu, code, rows, cols, paired).unwrap();
            let copies: Vec<_> = (0..8).map(|_| matrix()).collect();
            let tokens = 512;
            let room = memory(&gpu, &copies[0], tokens, 0);
            let opening = microseconds(&gpu, 8, |i| open(&gpu, &copies[i], &room.weights).map(|_| ()));
            let (x, s, y) = (
                gpu.zeros::<i8>(tokens * copies[0].padded_cols()).unwrap(),
                gpu.upload(&vec![1.0f32; tokens]).unwrap(),
                gpu.zeros::<f32>(tokens * rows).unwrap(),
            );
            let all = microseconds(&gpu, 8, |i| {
                let epilogue = match paired {
                    true => Epilogue::GatedRelu2(&y),
                    false => Epilogue::Add(&y, 1.0),
                };
                ternary_gemm(&gpu, &copies[i], &x, &s, epilogue, &room)
            });
            let ops = 2.0 * (tokens * copies[0].sums() * cols) as f64;
            println!(
                "ternary_gemm {rows} x {cols} {code:?} paired {paired}, {tokens} tokens: {all:.1} us, {:.0} TOP/s, of it unpacking {opening:.1} us, {:.0} GB/s",
                ops / all / 1e6,
                (copies[0].bytes() + copies[0].opened()) as f64 / opening / 1e3
            );
        }
    }
}
