//! Against the CPU's kernels: bit for bit.

use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::{Isa, activation, elementwise};

use super::testing::{Chains, KINDS};
use super::*;
use crate::ternary_gemv::tests::{Random, bits, microseconds, small};

fn sizes(gpu: &Gpu) -> Vec<(usize, usize)> {
    let mut sizes = vec![
        (1, 1),
        (7, 15),
        (8, 16),
        (9, 17),
        (13, 127),
        (65, 130),
        (70, 1023),
        (33, 1024),
        // Several chunks of columns, of eight tokens and of one.
        (67, 2053),
        (9, 3412),
        (3, 25_001),
    ];
    if !small(gpu) {
        sizes.extend([(2560, 2560), (13_824, 2560), (2560, 6912), (640, 27_648)]);
    }
    sizes
}

#[test]
fn products_of_floats_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("chains of floats") else {
        return;
    };
    let mut random = Random::seeded("chains of floats");
    for (rows, cols) in sizes(&gpu) {
        for kind in KINDS.into_iter().filter(|kind| kind.takes_floats()) {
            let both = Chains::new(&mut random, kind, rows, cols);
            let matrix = ChainMatrix::new(&gpu, both.part()).unwrap();
            assert_eq!(matrix.bytes(), kind.bytes_needed([rows, cols]));
            for tokens in [1, 2, 8, 9, 25] {
                let mut values = random.floats(tokens * cols);
                if tokens == 2 {
                    // Products that are too small for a float: their sign is all that is left of them.
                    values[..cols].fill(-1e-45);
                }
                let x = gpu.upload(&values).unwrap();
                let y = gpu.poisoned::<f32>(tokens * rows).unwrap();
                chain_gemv(&gpu, &matrix, ChainInput::Floats(&x), tokens, Epilogue::Store(&y)).unwrap();
                let found = gpu.download(&y).unwrap();
                for (t, found) in found.chunks_exact(rows).enumerate() {
                    let want = both.product(&values[t * cols..][..cols]);
                    assert_eq!(bits(found), bits(&want), "{kind:?} {rows} x {cols}, {t} of {tokens}");
                }
            }
        }
    }
}

#[test]
fn products_of_half_bytes_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("chains of half bytes") else {
        return;
    };
    let mut random = Random::seeded("chains of half bytes");
    for (rows, cols) in sizes(&gpu) {
        let both = Chains::new(&mut random, ChainKind::Int4, rows, cols);
        let matrix = ChainMatrix::new(&gpu, both.part()).unwrap();
        assert_eq!(matrix.bytes(), ChainKind::Int4.bytes_needed([rows, cols]));
        let padded = 32 * groups(cols);
        for tokens in [1, 2, 8, 9, 25] {
            let what = format!("{rows} x {cols}, {tokens} tokens");
            // As a head.
            let mut values = random.floats(tokens * cols);
            values[0] = 1e9;
            if tokens == 2 {
                values[..cols].fill(0.0);
            }
            let x = gpu.upload(&values).unwrap();
            let xq = gpu.poisoned::<i8>(tokens * padded).unwrap();
            let steps = gpu.poisoned::<f32>(tokens * groups(cols)).unwrap();
            let y = gpu.poisoned::<f32>(tokens * rows).unwrap();
            quantize_groups(&gpu, &x, cols, &xq, &steps).unwrap();
            let mut blocks = vec![InputBlock::ZERO; tokens * int4_gemv::blocks(cols)];
            int4_gemv::quantize_input(Isa::best(), &values, cols, &mut blocks);
            let mut rounded = vec![0.0; values.len()];
            int4_gemv::dequantize_input(&blocks, cols, &mut rounded);
            let (found, found_steps) = (gpu.download(&xq).unwrap(), gpu.download(&steps).unwrap());
            for (i, want) in rounded.iter().enumerate() {
                let (token, column) = (i / cols, i % cols);
                let byte = f32::from(found[token * padded + column]);
                let value = byte * found_steps[token * groups(cols) + column / 32];
                assert_eq!(value.to_bits(), want.to_bits(), "{what}, input {i}");
            }
            let input = ChainInput::Groups(&xq, &steps);
            chain_gemv(&gpu, &matrix, input, tokens, Epilogue::Store(&y)).unwrap();
            let found = gpu.download(&y).unwrap();
            for (t, found) in found.chunks_exact(rows).enumerate() {
                let want = both.product(&values[t * cols..][..cols]);
                assert_eq!(bits(found), bits(&want), "{what}, head, {t}");
            }
            // As a linear, whose tokens may lie further apart.
            let stride = padded + 64 * (tokens % 2);
            let mut values = random.bytes(tokens * stride);
            values[..stride].fill(-128);
            values.chunks_exact_mut(stride).for_each(|xq| xq[cols..].fill(0));
            let scales: Vec<f32> = (0..tokens).map(|_| 0.5 + random.float().abs()).collect();
            let (xq, s) = (gpu.upload(&values).unwrap(), gpu.upload(&scales).unwrap());
            let input = ChainInput::Bytes(&xq, &s);
            chain_gemv(&gpu, &matrix, input, tokens, Epilogue::Store(&y)).unwrap();
            let found = gpu.download(&y).unwrap();
            for (t, found) in found.chunks_exact(rows).enumerate() {
                let want = both.product_of_bytes(&values[t * stride..][..stride], scales[t]);
                assert_eq!(bits(found), bits(&want), "{what}, linear, {t}");
            }
        }
    }
}

#[test]
fn inputs_that_are_no_numbers_stay_none() {
    let Some(gpu) = Gpu::for_test("groups that are no numbers") else {
        return;
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0f32; 70];
        values[40] = bad;
        let x = gpu.upload(&values).unwrap();
        let (xq, steps) = (gpu.zeros::<i8>(128).unwrap(), gpu.zeros::<f32>(4).unwrap());
        quantize_groups(&gpu, &x, 70, &xq, &steps).unwrap();
        let steps = gpu.download(&steps).unwrap();
        assert!(
            steps[1].is_nan() && [0, 2, 3].iter().all(|&i: &usize| steps[i].is_finite()),
            "{bad}: {steps:?}"
        );
    }
}

#[test]
fn parts_write_their_rows_and_no_others() {
    let Some(gpu) = Gpu::for_test("parts of chains") else {
        return;
    };
    let mut random = Random::seeded("parts of chains");
    let (isa, cols, rows) = (Isa::best(), 100, 50);
    for kind in [ChainKind::F16, ChainKind::Int8] {
        let parts = [11, 20].map(|rows| Chains::new(&mut random, kind, rows, cols));
        let matrix = ChainMatrix::within(&gpu, &[(3, parts[0].part()), (25, parts[1].part())], rows).unwrap();
        for tokens in [1, 10] {
            let (values, before) = (random.floats(tokens * cols), random.floats(tokens * rows));
            let x = gpu.upload(&values).unwrap();
            let outs = [(); 5].map(|()| gpu.upload(&before).unwrap());
            for epilogue in [
                Epilogue::Store(&outs[0]),
                Epilogue::Add(&outs[1], 0.7),
                Epilogue::Relu2(&outs[2]),
                Epilogue::ByGateRelu2(&outs[3]),
                Epilogue::ByGateSilu(&outs[4]),
            ] {
                chain_gemv(&gpu, &matrix, ChainInput::Floats(&x), tokens, epilogue).unwrap();
            }
            let found = outs.map(|out| gpu.download(&out).unwrap());
            for t in 0..tokens {
                let before = &before[t * rows..][..rows];
                let mut want = [(); 5].map(|()| before.to_vec());
                for (first, part) in [(3, &parts[0]), (25, &parts[1])] {
                    let y = part.product(&values[t * cols..][..cols]);
                    let at = first..first + part.rows;
                    want[0][at.clone()].copy_from_slice(&y);
                    elementwise::axpy(isa, 0.7, &y, &mut want[1][at.clone()]);
                    activation::relu2(isa, &y, &mut want[2][at.clone()]);
                    activation::relu2_gate(isa, &before[at.clone()], &y, &mut want[3][at.clone()]);
                    activation::swiglu(isa, &before[at.clone()], &y, &mut want[4][at]);
                }
                for (i, want) in want.iter().enumerate() {
                    let found = &found[i][t * rows..][..rows];
                    assert_eq!(bits(found), bits(want), "{kind:?}, epilogue {i}, {t} of {tokens}");
                }
            }
        }
    }
}

#[test]
fn shapes_are_compared() {
    let Some(gpu) = Gpu::for_test("shapes of chain_gemv") else {
        return;
    };
    let mut random = Random(1);
    let [floats, halves] = [ChainKind::F32, ChainKind::Int4].map(|kind| Chains::new(&mut random, kind, 8, 100));
    let [matrix, int4] = [&floats, &halves].map(|both| ChainMatrix::new(&gpu, both.part()).unwrap());
    assert!(ChainMatrix::within(&gpu, &[], 8).is_err());
    assert!(ChainMatrix::within(&gpu, &[(1, floats.part())], 8).is_err());
    assert!(ChainMatrix::within(&gpu, &[(0, floats.part()), (8, halves.part())], 16).is_err());
    for part in [
        ChainPart {
            rows: 9,
            ..floats.part()
        },
        ChainPart {
            rows: 9,
            ..halves.part()
        },
        ChainPart {
            cols: 0,
            values: ChainValues::F32(&[]),
            ..floats.part()
        },
    ] {
        assert!(ChainMatrix::new(&gpu, part).is_err());
    }
    let array = |len| gpu.zeros::<f32>(len).unwrap();
    let (x, y, s, q) = (array(200), array(16), array(2), gpu.zeros::<i8>(256).unwrap());
    let run = |matrix: &_, input: ChainInput<'_>, y: Epilogue<'_>| chain_gemv(&gpu, matrix, input, 2, y);
    run(&matrix, ChainInput::Floats(&x), Epilogue::Store(&y)).unwrap();
    run(&int4, ChainInput::Bytes(&q, &s), Epilogue::Store(&y)).unwrap();
    run(&int4, ChainInput::Groups(&q, &array(8)), Epilogue::Store(&y)).unwrap();
    assert!(run(&matrix, ChainInput::Floats(&x.slice(1..)), Epilogue::Store(&y)).is_err());
    assert!(run(&matrix, ChainInput::Floats(&x), Epilogue::Store(&y.slice(1..))).is_err());
    assert!(run(&matrix, ChainInput::Floats(&x), Epilogue::GatedSilu(&y)).is_err());
    assert!(run(&matrix, ChainInput::Bytes(&q, &s), Epilogue::Store(&y)).is_err());
    assert!(run(&int4, ChainInput::Floats(&x), Epilogue::Store(&y)).is_err());
    assert!(run(&int4, ChainInput::Bytes(&q.slice(2..), &s), Epilogue::Store(&y)).is_err());
    assert!(run(&int4, ChainInput::Bytes(&q, &s.slice(1..)), Epilogue::Store(&y)).is_err());
    assert!(run(&int4, ChainInput::Groups(&q, &s), Epilogue::Store(&y)).is_err());
    assert!(
        chain_gemv(
            &gpu,
            &matrix,
            ChainInput::Floats(&x.slice(..0)),
            0,
            Epilogue::Store(&y.slice(..0))
        )
        .is_err()
    );
    assert!(quantize_groups(&gpu, &x, 100, &q.slice(1..), &array(8)).is_err());
    assert!(quantize_groups(&gpu, &x, 100, &q, &s).is_err());
    gpu.synchronize().unwrap();
}

/// Microseconds of a launch in a recording of many, each over another copy of the weights, so that they come from memory.
#[test]
#[ignore = "a bench"]
fn bench_chain_gemv() {
    let Some(gpu) = Gpu::for_test("bench_chain_gemv") else {
        return;
    };
    let mut random = Random(7);
    for (rows, cols) in [(2560, 2560), (13_824, 2560), (2560, 6912)] {
        for kind in KINDS {
            let both = Chains::new(&mut random, kind, rows, cols);
            let bytes = kind.bytes_needed([rows, cols]);
            let copies = (256usize << 20).div_ceil(bytes).max(2);
            let copies: Vec<_> = (0..copies)
                .map(|_| ChainMatrix::new(&gpu, both.part()).unwrap())
                .collect();
            for tokens in [1, 8, 16, 512] {
                let (x, xq) = (
                    gpu.zeros::<f32>(tokens * cols).unwrap(),
                    gpu.zeros::<i8>(tokens * 32 * groups(cols)).unwrap(),
                );
                let (s, y) = (
                    gpu.upload(&vec![1.0f32; tokens]).unwrap(),
                    gpu.zeros::<f32>(tokens * rows).unwrap(),
                );
                let input = match kind.takes_floats() {
                    true => ChainInput::Floats(&x),
                    false => ChainInput::Bytes(&xq, &s),
                };
                let time = microseconds(&gpu, copies.len(), |i| {
                    chain_gemv(&gpu, &copies[i], input, tokens, Epilogue::Store(&y))
                });
                println!(
                    "chain_gemv {rows} x {cols} {kind:?} {tokens} tokens: {time:.2} us, {:.0} GB/s",
                    bytes as f64 / time / 1e3
                );
            }
        }
    }
}
