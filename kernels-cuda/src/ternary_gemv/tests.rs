//! Against the CPU's kernels: integers and floats bit for bit.

use onebit_kernels_cpu::{Isa, activation, elementwise, quantize, rms_norm};

use super::normed::normed_bytes;
use super::*;

pub(crate) use super::testing::{Both, CODES, Random, bits, layout_of, microseconds, small};

#[test]
fn products_are_those_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("ternary_gemv") else {
        return;
    };
    let mut random = Random::seeded("ternary_gemv");
    let mut sizes = vec![
        (1, 1),
        (7, 255),
        (8, 256),
        (9, 257),
        (4, 320),
        (17, 321),
        (40, 513),
        (67, 961),
        (100, 1300),
        // Sixteen tokens do not fit in shared memory.
        (9, 20_001),
    ];
    if small(&gpu) {
        // Long shares of the emulator's four multiprocessors.
        sizes.push((633, 3500));
    } else {
        sizes.extend([(2560, 2560), (3840, 2560), (2560, 6912), (1003, 27_648), (13_824, 2560)]);
    }
    for (rows, cols) in sizes {
        for code in CODES {
            let both = Both::new(&mut random, code, rows, cols);
            let matrix = TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap();
            let stride = matrix.padded_cols();
            if let Some(layout) = layout_of(code) {
                // The kernels' blocks of `b1` are four of the runtime's.
                assert_eq!(layout.padded_cols(cols).next_multiple_of(code.block()), stride);
            }
            let most = if small(&gpu) && rows > 600 { 2 } else { 16 };
            for tokens in [1, 2, 3, 4, 5, 8, 9, 13, 16]
                .into_iter()
                .filter(|&tokens| tokens <= most)
            {
                // Tokens may lie further apart.
                let stride = stride + 16 * (tokens % 3);
                let mut xq = both.tokens(&mut random, tokens, stride);
                if tokens == 2 {
                    xq.fill(-128);
                    both.clear_padding(&mut xq, stride);
                }
                let scales: Vec<f32> = (0..tokens).map(|_| 0.5 + random.float().abs()).collect();
                let (x, s) = (gpu.upload(&xq).unwrap(), gpu.upload(&scales).unwrap());
                let y = gpu.poisoned::<f32>(tokens * rows).unwrap();
                ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Store(&y)).unwrap();
                let found = gpu.download(&y).unwrap();
                for (t, found) in found.chunks_exact(rows).enumerate() {
                    let want = both.product(&xq[t * stride..][..stride], scales[t]);
                    assert_eq!(
                        bits(found),
                        bits(&want),
                        "{rows} x {cols} {code:?}, token {t} of {tokens}"
                    );
                }
            }
        }
    }
}

#[test]
fn stacks_and_epilogues() {
    let Some(gpu) = Gpu::for_test("stacks of ternary matrices") else {
        return;
    };
    let mut random = Random::seeded("stacks");
    let isa = Isa::best();
    for code in CODES {
        for (cols, rows) in [(300, [37, 9, 16]), (640, [8, 12, 3])] {
            let parts = rows.map(|rows| Both::new(&mut random, code, rows, cols));
            let matrix = TernaryMatrix::stacked(&gpu, &parts.each_ref().map(Both::part)).unwrap();
            let (total, stride) = (rows.iter().sum::<usize>(), matrix.padded_cols());
            let gate = Both::new(&mut random, code, 43, cols);
            let up = Both::new(&mut random, code, 43, cols);
            let pair = TernaryMatrix::paired(&gpu, gate.part(), up.part()).unwrap();
            for tokens in [1, 3, 6, 16] {
                let (xq, scales) = (gate.tokens(&mut random, tokens, stride), vec![1.25; tokens]);
                let before = random.floats(tokens * total);
                let (x, s) = (gpu.upload(&xq).unwrap(), gpu.upload(&scales).unwrap());
                let (added, relu) = (
                    gpu.upload(&before).unwrap(),
                    gpu.poisoned::<f32>(tokens * total).unwrap(),
                );
                ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Add(&added, 0.7)).unwrap();
                ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Relu2(&relu)).unwrap();
                let (gated, silu) = (
                    gpu.poisoned::<f32>(tokens * 43).unwrap(),
                    gpu.poisoned::<f32>(tokens * 43).unwrap(),
                );
                ternary_gemv(&gpu, &pair, &x, &s, Epilogue::GatedRelu2(&gated)).unwrap();
                ternary_gemv(&gpu, &pair, &x, &s, Epilogue::GatedSilu(&silu)).unwrap();
                // Two products of their own, of which the second finds what the first has put.
                let [gate_alone, up_alone] =
                    [&gate, &up].map(|both| TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap());
                let by_gate = [(); 2].map(|()| gpu.poisoned::<f32>(tokens * 43).unwrap());
                let [a, b] = &by_gate;
                for (out, epilogue) in [(a, Epilogue::ByGateRelu2(a)), (b, Epilogue::ByGateSilu(b))] {
                    ternary_gemv(&gpu, &gate_alone, &x, &s, Epilogue::Store(out)).unwrap();
                    ternary_gemv(&gpu, &up_alone, &x, &s, epilogue).unwrap();
                }
                let by_gate = by_gate.map(|array| gpu.download(&array).unwrap());
                let found = [added, relu, gated, silu].map(|array| gpu.download(&array).unwrap());
                for i in 0..2 {
                    assert_eq!(bits(&by_gate[i]), bits(&found[2 + i]), "{code:?} by gate, {tokens}");
                }
                for t in 0..tokens {
                    let xq = &xq[t * stride..][..stride];
                    let y: Vec<f32> = parts.iter().flat_map(|part| part.product(xq, scales[t])).collect();
                    let mut want = before[t * total..][..total].to_vec();
                    elementwise::axpy(isa, 0.7, &y, &mut want);
                    assert_eq!(
                        bits(&found[0][t * total..][..total]),
                        bits(&want),
                        "{code:?} added, {tokens}"
                    );
                    activation::relu2(isa, &y, &mut want);
                    assert_eq!(
                        bits(&found[1][t * total..][..total]),
                        bits(&want),
                        "{code:?} relu2, {tokens}"
                    );
                    let (g, u) = (gate.product(xq, scales[t]), up.product(xq, scales[t]));
                    let mut want = vec![0.0; 43];
                    activation::relu2_gate(isa, &g, &u, &mut want);
                    assert_eq!(bits(&found[2][t * 43..][..43]), bits(&want), "{code:?} gated, {tokens}");
                    activation::swiglu(isa, &g, &u, &mut want);
                    assert_eq!(bits(&found[3][t * 43..][..43]), bits(&want), "{code:?} silu, {tokens}");
                }
            }
        }
    }
}

#[test]
fn norm_and_quantiser_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("normed products") else {
        return;
    };
    let mut random = Random::seeded("normed products");
    let isa = Isa::best();
    // Of one token up to 3,072 values, up to 7,168, and beyond or no multiple of 4 take forms of their own.
    let mut sizes = vec![
        (5, 1),
        (9, 15),
        (16, 17),
        (24, 130),
        (33, 641),
        (20, 1000),
        (12, 3076),
        (11, 7300),
    ];
    if !small(&gpu) {
        sizes.extend([(3840, 2560), (40, 3072), (2560, 6912), (40, 7168), (640, 10_242)]);
    }
    for (rows, cols) in sizes {
        for code in CODES {
            let both = Both::new(&mut random, code, rows, cols);
            let matrix = TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap();
            let stride = matrix.padded_cols();
            for (tokens, normed) in [(1, true), (1, false), (2, true), (4, true), (4, false)] {
                let (mut values, w) = (random.floats(tokens * cols), random.floats(cols));
                if tokens == 2 {
                    values[..cols].fill(0.0);
                }
                let mut xq = vec![0; tokens * stride];
                let mut scales = vec![0.0; tokens];
                if normed {
                    rms_norm::rms_norm_i8(isa, &values, &w, 1e-5, &mut xq, stride, &mut scales);
                } else {
                    quantize::absmax_i8(isa, &values, cols, &mut xq, stride, &mut scales);
                }
                let mut rows_normed = values.clone();
                if normed {
                    rms_norm::rms_norm(isa, &values, &w, 1e-5, &mut rows_normed);
                }
                let (x, w) = (gpu.upload(&values).unwrap(), gpu.upload(&w).unwrap());
                let w = normed.then_some(&w);
                let (q, s) = (
                    gpu.poisoned::<i8>(tokens * stride).unwrap(),
                    gpu.poisoned::<f32>(tokens).unwrap(),
                );
                norm_quantize(&gpu, &x, cols, w, 1e-5, &q, &s).unwrap();
                assert_eq!(
                    bits(&gpu.download(&s).unwrap()),
                    bits(&scales),
                    "{cols}, {tokens} tokens"
                );
                assert_eq!(gpu.download(&q).unwrap(), xq, "{cols}, {tokens} tokens");
                // With the floats, and the floats alone.
                for both in [true, false] {
                    gpu.fill_bytes(&q, 0xff).unwrap();
                    let floats = gpu.poisoned::<f32>(tokens * cols).unwrap();
                    let quantized = both.then_some((&q, &s));
                    norm_rows(&gpu, &x, cols, w, 1e-5, quantized, Some(&floats)).unwrap();
                    assert_eq!(
                        bits(&gpu.download(&floats).unwrap()),
                        bits(&rows_normed),
                        "{cols}, {tokens} tokens"
                    );
                    let want = if both { xq.clone() } else { vec![-1; xq.len()] };
                    assert_eq!(gpu.download(&q).unwrap(), want, "{cols}, {tokens} tokens");
                }
                if !norms_itself(&gpu, &matrix, tokens) {
                    continue;
                }
                let y = gpu.poisoned::<f32>(tokens * rows).unwrap();
                normed_ternary_gemv(&gpu, &matrix, &x, w, 1e-5, Epilogue::Store(&y)).unwrap();
                let found = gpu.download(&y).unwrap();
                for (t, found) in found.chunks_exact(rows).enumerate() {
                    let want = both.product(&xq[t * stride..][..stride], scales[t]);
                    assert_eq!(
                        bits(found),
                        bits(&want),
                        "{rows} x {cols} {code:?}, token {t} of {tokens}"
                    );
                }
            }
        }
    }
}

#[test]
fn shapes_are_compared() {
    let Some(gpu) = Gpu::for_test("shapes of ternary_gemv") else {
        return;
    };
    let both = Both::new(&mut Random(1), TernaryCode::T2, 8, 256);
    let matrix = TernaryMatrix::stacked(&gpu, &[both.part()]).unwrap();
    let short = TernaryPart {
        packed: &both.packed[1..],
        ..both.part()
    };
    assert!(TernaryMatrix::stacked(&gpu, &[short]).is_err());
    assert!(TernaryMatrix::stacked(&gpu, &[]).is_err());
    let array = |len| gpu.zeros::<f32>(len).unwrap();
    let (x, s, y) = (gpu.zeros::<i8>(256).unwrap(), array(1), array(8));
    assert!(ternary_gemv(&gpu, &matrix, &x.slice(1..), &s, Epilogue::Store(&y)).is_err());
    assert!(ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Store(&y.slice(1..))).is_err());
    assert!(ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::GatedRelu2(&y)).is_err());
    assert!(ternary_gemv(&gpu, &matrix, &x, &array(17), Epilogue::Store(&y)).is_err());
    assert!(normed_ternary_gemv(&gpu, &matrix, &array(255), None, 0.0, Epilogue::Store(&y)).is_err());
    assert!(normed_ternary_gemv(&gpu, &matrix, &array(256), Some(&array(3)), 0.0, Epilogue::Store(&y)).is_err());
    assert!(norm_quantize(&gpu, &array(256), 256, None, 0.0, &x.slice(..255), &s).is_err());
    ternary_gemv(&gpu, &matrix, &x, &s, Epilogue::Store(&y)).unwrap();
    gpu.synchronize().unwrap();
}

#[test]
fn what_does_not_fit_in_shared_memory_is_known() {
    // An H100's room, and the share of each of its 132 multiprocessors.
    let fits = |[rows, cols]: [usize; 2], tokens: usize| {
        let most = rows.div_ceil(TILE).div_ceil(132);
        let bytes = |code| normed_bytes(code, cols, most, tokens);
        CODES
            .map(bytes)
            .into_iter()
            .all(|bytes| bytes <= (227 << 10) - RESERVED)
    };
    // 2B-4T: down, and gate and up.
    for tokens in 1..=MOST_NORMED {
        assert!(fits([2560, 6912], tokens) && fits([13_824, 2560], tokens));
    }
    // 8B: down fits for two tokens, all else always.
    assert!(fits([4096, 14_336], 1) && fits([4096, 14_336], 2));
    assert!(!fits([4096, 14_336], 3) && !fits([4096, 14_336], 4));
    assert!(fits([28_672, 4096], MOST_NORMED) && fits([6144, 4096], MOST_NORMED));

    let Some(gpu) = Gpu::for_test("normed products that do not fit") else {
        return;
    };
    let matrix = TernaryMatrix::synthetic(&gpu, TernaryCode::T2, 16, 14_336, false).unwrap();
    for tokens in 1..=MOST_NORMED + 1 {
        let [x, y] = [14_336, 16].map(|width| gpu.zeros::<f32>(tokens * width).unwrap());
        let done = normed_ternary_gemv(&gpu, &matrix, &x, None, 1e-5, Epilogue::Store(&y));
        assert_eq!(done.is_ok(), norms_itself(&gpu, &matrix, tokens), "{tokens}");
    }
    gpu.synchronize().unwrap();
}

/// Microseconds of a launch in a recording of many, each over another copy of the weights, so that they come from memory.
#[test]
#[ignore = "a bench"]
fn bench_ternary_gemv() {
    let Some(gpu) = Gpu::for_test("bench_ternary_gemv") else {
        return;
    };
    let mut random = Random(7);
    for (rows, cols) in [
        (2560, 2560),
        (3840, 2560),
        (13_824, 2560),
        (2560, 6912),
        (55_296, 5120),
        (5120, 27_648),
    ] {
        for code in CODES {
            let matrix = || TernaryMatrix::synthetic(&gpu, code, rows, cols, false).unwrap();
            let bytes = matrix().weights.len();
            // More than four second-level caches.
            let copies = (256usize << 20).div_ceil(bytes).max(2);
            let copies: Vec<_> = (0..copies).map(|_| matrix()).collect();
            for tokens in [1, 2, 4, 8, 16] {
                let x = gpu.upload(&random.bytes(tokens * copies[0].padded_cols())).unwrap();
                let (s, y) = (
                    gpu.upload(&vec![1.0f32; tokens]).unwrap(),
                    gpu.zeros::<f32>(tokens * rows).unwrap(),
                );
                let plain = microseconds(&gpu, copies.len(), |i| {
                    ternary_gemv(&gpu, &copies[i], &x, &s, Epilogue::Store(&y))
                });
                let speed = bytes as f64 / plain / 1e3;
                print!("ternary_gemv {rows} x {cols} {code:?} {tokens} tokens: {plain:.2} us, {speed:.0} GB/s");
                if tokens <= 4 && cols < 10_000 {
                    let (x, w) = (
                        gpu.zeros::<f32>(tokens * cols).unwrap(),
                        gpu.zeros::<f32>(cols).unwrap(),
                    );
                    let run = |i: usize| normed_ternary_gemv(&gpu, &copies[i], &x, Some(&w), 1e-5, Epilogue::Store(&y));
                    print!("; with the norm {:.2} us", microseconds(&gpu, copies.len(), run));
                }
                println!();
            }
        }
    }
}
