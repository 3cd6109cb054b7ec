//! Every path and every split of tokens and rows against the definition; and the quantisers against their bounds.

mod of_bytes;

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::Lcg;

const SIZES: [usize; 13] = [0, 1, 15, 31, 32, 33, 127, 128, 129, 256, 300, 529, 1021];
const SHAPES: [(usize, usize); 10] = [
    (1, 1),
    (3, 1),
    (4, 1),
    (9, 1),
    (5, 2),
    (2, 5),
    (3, 9),
    (0, 1),
    (0, 3),
    (3, 0),
];

/// Any codes, and steps of every size and either sign.
fn random(rng: &mut Lcg, rows: usize, n: usize) -> (Vec<u8>, Vec<f16>) {
    let codes = rng.bytes(rows * row_bytes(n)).into_iter().map(|b| b as u8).collect();
    let step = |b: &[i8]| f16::from_bits(u16::from_le_bytes([b[0] as u8, b[1] as u8]) & 0xbbff);
    let steps = rng.bytes(2 * rows * row_steps(n));
    (codes, steps.chunks(2).map(step).collect())
}

/// `q` of each column of a row, those past the end too.
fn integers(codes: &[u8]) -> Vec<i32> {
    let code = |k: usize| {
        let byte = codes[k / 32 * 16 + k % 16];
        if k % 32 < 16 { byte % 16 } else { byte / 16 }
    };
    (0..2 * codes.len()).map(|k| i32::from(code(k)) - 8).collect()
}

/// The definition, for one row and one token.
fn definition(codes: &[u8], steps: &[f16], x: &[InputBlock]) -> f32 {
    let q = integers(codes);
    let mut lanes = [0f32; 16];
    for (g, step) in steps.iter().enumerate() {
        let block = &x[g / 4];
        for s in 0..4 {
            let product = |column: usize| {
                let bytes = if column < 16 { &block.low } else { &block.high };
                q[32 * g + column] * i32::from(bytes[16 * (g % 4) + column % 16])
            };
            let sum: i32 = (4 * s..4 * s + 4).chain(16 + 4 * s..20 + 4 * s).map(product).sum();
            let lane = &mut lanes[4 * (g % 4) + s];
            *lane = (sum as f32).mul_add(step.to_f32() * block.steps[g % 4], *lane);
        }
    }
    for n in [8, 4, 2, 1] {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
    }
    lanes[0]
}

/// Which NaN a product of infinities is, is not promised.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

fn check(codes: &[u8], steps: &[f16], x: &[InputBlock], rows: usize, tokens: usize) {
    let blocks = x.len().checked_div(tokens).unwrap_or(0);
    let row = |r: usize| {
        (
            &codes[r * blocks * 64..][..blocks * 64],
            &steps[r * blocks * 4..][..blocks * 4],
        )
    };
    let want: Vec<f32> = (0..tokens * rows)
        .map(|i| definition(row(i % rows).0, row(i % rows).1, &x[i / rows * blocks..][..blocks]))
        .collect();
    for isa in Isa::available() {
        let mut out = vec![9.0; tokens * rows];
        gemv(isa, codes, steps, x, tokens, &mut out);
        let equal = out.iter().zip(&want).all(|(a, b)| same(*a, *b));
        assert!(equal, "{} {tokens} x {rows} x {blocks}: {out:?} {want:?}", isa.name());
        if tokens == 1 && rows > 0 {
            let some: Vec<u32> = (0..rows as u32).rev().chain((0..rows as u32).step_by(2)).collect();
            let mut picked = vec![9.0; some.len()];
            gather(isa, codes, steps, x, &some, &mut picked);
            let equal = some.iter().zip(&picked).all(|(r, v)| same(out[*r as usize], *v));
            assert!(equal, "{} {rows} x {blocks}", isa.name());
        }
    }
}

#[test]
fn every_path_is_the_definition() {
    let mut rng = Lcg(51);
    for isa in Isa::available() {
        std::println!("int4_gemv path: {}", isa.name());
    }
    for n in SIZES {
        for (rows, tokens) in SHAPES {
            let (codes, steps) = random(&mut rng, rows, n);
            // One byte of offset: kernels may not assume alignment.
            let mut moved = vec![0u8; codes.len() + 1];
            moved[1..].copy_from_slice(&codes);
            let mut x = vec![InputBlock::ZERO; tokens * blocks(n)];
            quantize_input(Isa::best(), &rng.floats(tokens * n), n, &mut x);
            let used = if tokens == 0 { 0 } else { rows };
            let (codes, steps) = (&moved[1..][..used * row_bytes(n)], &steps[..used * row_steps(n)]);
            check(codes, steps, &x, used, tokens);
        }
    }
}

#[test]
fn extremes_of_codes_steps_and_activations() {
    let smallest = f16::from_bits(1);
    for byte in [0x00, 0xff, 0x88, 0x08, 0xf0] {
        for step in [f16::MAX, -f16::MAX, smallest, -smallest, f16::ZERO, -f16::ZERO] {
            for (p, x_step) in [
                (-128, 1.0),
                (127, 1e-30),
                (-127, 3e38),
                (0, 1.0),
                (127, f32::INFINITY),
                (1, f32::NAN),
            ] {
                let x = InputBlock {
                    low: [p; 64],
                    high: [p; 64],
                    offsets: [-64 * i32::from(p); 16],
                    steps: [x_step; 4],
                };
                for blocks in [1, 5] {
                    check(
                        &vec![byte; 5 * 64 * blocks],
                        &vec![step; 5 * 4 * blocks],
                        &vec![x; blocks],
                        5,
                        1,
                    );
                }
            }
        }
    }
}

/// Against the product in f64 of the weights that the codes stand for and the activations before they were rounded.
#[test]
fn the_product_is_that_of_the_weights() {
    let mut rng = Lcg(52);
    for cols in [1, 37, 128, 777] {
        let (rows, tokens) = (6, 3);
        let (w, mut x) = (rng.floats(rows * cols), rng.floats(tokens * cols));
        x[0] = 50.0;
        let (mut codes, mut steps) = (vec![0; rows * row_bytes(cols)], vec![f16::ZERO; rows * row_steps(cols)]);
        quantize(Isa::best(), &w, cols, &mut codes, &mut steps);
        let mut wide = vec![0.0; w.len()];
        dequantize(&codes, &steps, cols, &mut wide);
        let mut blocks = vec![InputBlock::ZERO; tokens * blocks(cols)];
        quantize_input(Isa::best(), &x, cols, &mut blocks);
        let mut rounded = vec![0.0; x.len()];
        dequantize_input(&blocks, cols, &mut rounded);
        let mut out = vec![0.0; tokens * rows];
        gemv(Isa::best(), &codes, &steps, &blocks, tokens, &mut out);
        for (i, got) in out.iter().enumerate() {
            let (w, at) = (&wide[i % rows * cols..][..cols], i / rows * cols);
            let pairs =
                |x: &[f32]| -> Vec<f64> { w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).collect() };
            let (exact, size) = (
                pairs(&rounded[at..]),
                pairs(&rounded[at..]).iter().map(|v| v.abs()).sum::<f64>(),
            );
            let error = (f64::from(*got) - exact.iter().sum::<f64>()).abs();
            assert!(
                error <= size * f64::from(f32::EPSILON) * (cols as f64 / 128.0 + 6.0),
                "{cols}: {error}"
            );
            let before: f64 = pairs(&x[at..]).iter().sum();
            let room: f64 = w
                .iter()
                .enumerate()
                .map(|(k, w)| {
                    let largest = x[at..][k / 32 * 32..cols.min(k / 32 * 32 + 32)]
                        .iter()
                        .fold(0f32, |a, b| a.max(b.abs()));
                    f64::from(w.abs()) * f64::from(largest) / 254.0
                })
                .sum();
            assert!((f64::from(*got) - before).abs() <= 1.001 * room + error, "{cols}");
        }
    }
}

#[test]
fn activations_are_rounded_group_by_group() {
    let mut rng = Lcg(55);
    for cols in [1, 16, 17, 33, 128, 200] {
        let mut x = rng.floats(2 * cols);
        x[cols - 1] *= 1000.0;
        x[cols] = 0.0;
        let mut want = vec![InputBlock::ZERO; 2 * blocks(cols)];
        quantize_input(Isa::SCALAR, &x, cols, &mut want);
        for isa in Isa::available() {
            let mut got = vec![
                InputBlock {
                    low: [1; 64],
                    ..InputBlock::ZERO
                };
                want.len()
            ];
            quantize_input(isa, &x, cols, &mut got);
            assert_eq!(got, want, "{}", isa.name());
        }
        let mut back = vec![9.0; x.len()];
        dequantize_input(&want, cols, &mut back);
        for (i, (x, got)) in x.iter().zip(&back).enumerate() {
            let step = want[i / cols * blocks(cols) + i % cols / 128].steps[i % cols / 32 % 4];
            assert!((x - got).abs() <= 0.5001 * step, "{x} became {got}");
        }
        for block in &want {
            let sum: i32 = block.low.iter().chain(&block.high).map(|b| i32::from(*b)).sum();
            assert_eq!(block.offsets.iter().sum::<i32>(), -8 * sum);
        }
        // What is not a number may not become one.
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[cols] = bad;
            quantize_input(Isa::best(), &x, cols, &mut want);
            let steps = |t: usize| want[t * blocks(cols)].steps[0];
            assert!(steps(1).is_nan() && steps(0).is_finite());
        }
    }
}

/// Some step of which no error exceeds half, and less error than ±7 of the largest magnitude.
#[test]
fn no_weight_is_off_by_more_than_half_its_step() {
    let mut rng = Lcg(53);
    let (mut squares, mut by_seven) = (0.0, 0.0);
    for (case, cols) in [1, 16, 31, 32, 33, 64, 95, 200]
        .into_iter()
        .cycle()
        .take(160)
        .enumerate()
    {
        let rows = 3;
        let mut w = rng.floats(rows * cols);
        let scale = [1.0, 1e-3, 1e-6, 3e-8, 1e4][case % 5];
        for (i, w) in w.iter_mut().enumerate() {
            *w *= scale * if i % 37 == 5 { 6.0 } else { 1.0 };
        }
        // All on one side, all zeros, one value alone.
        match case % 7 {
            0 => w.iter_mut().for_each(|w| *w = w.abs()),
            1 => w.iter_mut().for_each(|w| *w = -w.abs()),
            2 => w[..cols].fill(0.0),
            3 => w[1..].fill(0.0),
            _ => {}
        }
        let (mut codes, mut steps) = (vec![1; rows * row_bytes(cols)], vec![f16::NAN; rows * row_steps(cols)]);
        quantize(Isa::SCALAR, &w, cols, &mut codes, &mut steps);
        for isa in Isa::available() {
            let (mut c, mut s) = (vec![1; codes.len()], vec![f16::NAN; steps.len()]);
            quantize(isa, &w, cols, &mut c, &mut s);
            assert_eq!((&c, &s), (&codes, &steps), "{}", isa.name());
        }
        assert!(is_padded(&codes, cols) && steps.iter().all(|step| step.is_finite()));
        let mut wide = vec![9.0; w.len()];
        dequantize(&codes, &steps, cols, &mut wide);
        for (i, (w, got)) in w.iter().zip(&wide).enumerate() {
            let (r, k) = (i / cols, i % cols);
            let step = steps[r * row_steps(cols) + k / 32];
            let q = integers(&codes[r * row_bytes(cols)..(r + 1) * row_bytes(cols)])[k];
            assert_eq!(*got, q as f32 * step.to_f32());
            let error = (f64::from(*w) - f64::from(*got)).abs();
            assert!(
                error <= 0.5 * step.to_f64().abs() * (1.0 + 1e-6),
                "{w} became {got}, step {step}"
            );
            squares += if scale < 1e-3 {
                0.0
            } else {
                (error / f64::from(scale)).powi(2)
            };
        }
        if scale < 1e-3 {
            // Where f16 is coarse there is nothing to compare.
            continue;
        }
        for group in w.chunks(cols).flat_map(|row| row.chunks(32)) {
            let step = group.iter().fold(0.0f64, |most, w| most.max(f64::from(w.abs()))) / 7.0;
            for w in group.iter().filter(|_| step > 0.0).map(|w| f64::from(*w)) {
                by_seven += ((w - (w / step).round() * step) / f64::from(scale)).powi(2);
            }
        }
    }
    std::println!("error of codes to −8: {:.3} of that of ±7", (squares / by_seven).sqrt());
    assert!(squares < 0.85 * by_seven);
}

#[test]
fn weights_too_large_for_a_step_are_seen_in_it() {
    let (mut codes, mut steps) = (vec![0; 64], vec![f16::ZERO; 4]);
    for (w, finite) in [
        (4.9e5, true),
        (-5.5e5, true),
        (6e5, false),
        (-1e30, false),
        (f32::MAX, false),
    ] {
        quantize(Isa::best(), &[w, 0.0, 1.0], 3, &mut codes, &mut steps);
        assert_eq!(steps[0].is_finite(), finite, "{w}");
    }
}

#[test]
fn padding_is_told_from_weights() {
    for (cols, columns, padding) in [
        (3, 0..3, false),
        (3, 3..128, true),
        (20, 0..20, false),
        (20, 20..128, true),
        (100, 99..100, false),
        (100, 100..101, true),
        (128, 0..128, false),
        (130, 128..130, false),
        (130, 130..131, true),
    ] {
        for column in columns {
            let mut codes = vec![0x88u8; 2 * row_bytes(cols)];
            let byte = row_bytes(cols) + column / 32 * 16 + column % 16;
            codes[byte] ^= if column % 32 < 16 { 1 } else { 0x10 };
            assert_eq!(is_padded(&codes, cols), !padding, "{cols} columns, {column}");
        }
    }
    assert!(is_padded(&[], 0) && is_padded(&[], 5));
}

#[test]
#[should_panic(expected = "with a step for each group")]
fn missing_steps_are_refused() {
    gemv(
        Isa::best(),
        &[0; 128],
        &[f16::ONE; 4],
        &[InputBlock::ZERO],
        1,
        &mut [0.0; 2],
    );
}

#[test]
#[should_panic(expected = "codes are [rows, blocks, 64]")]
fn a_short_matrix_is_refused() {
    gemv(
        Isa::best(),
        &[0; 64],
        &[f16::ONE; 4],
        &[InputBlock::ZERO],
        1,
        &mut [0.0; 2],
    );
}
