//! Blocks of bytes that have one scale a token: the input of a linear.

use alloc::vec;
use alloc::vec::Vec;

use super::super::*;
use super::{SIZES, check, integers, random};
use crate::t2::tests::Lcg;

/// Bytes with both ends among them, in rows of `stride` with rubbish behind the columns.
fn bytes(rng: &mut Lcg, tokens: usize, stride: usize) -> Vec<i8> {
    let mut xq = rng.bytes(tokens * stride);
    for (i, x) in xq.iter_mut().enumerate() {
        match i % 5 {
            0 => *x = -128,
            1 => *x = 127,
            _ => {}
        }
    }
    xq
}

#[test]
fn every_byte_is_in_its_place() {
    let mut rng = Lcg(61);
    for cols in SIZES {
        for tokens in [0, 1, 3] {
            let stride = cols + rng.below(70) as usize;
            let xq = bytes(&mut rng, tokens, stride);
            let scales: Vec<f32> = (0..tokens).map(|t| 0.3 + 7.0 * t as f32).collect();
            let rubbish = InputBlock {
                low: [1; 64],
                high: [1; 64],
                offsets: [1; 16],
                steps: [1.0; 4],
            };
            let mut got = vec![rubbish; tokens * blocks(cols)];
            input_of_bytes(&xq, stride, cols, &scales, &mut got);
            for (i, block) in got.iter().enumerate() {
                let (t, first) = (i / blocks(cols), i % blocks(cols) * BLOCK);
                assert_eq!(block.steps, [1.0 / scales[t]; 4]);
                let mut offsets = [0; 16];
                for k in 0..BLOCK {
                    let column = first + k;
                    let want = if column < cols { xq[t * stride + column] } else { 0 };
                    let (g, j) = (k / 32, k % 32);
                    let half = if j < 16 { &block.low } else { &block.high };
                    assert_eq!(half[16 * g + j % 16], want, "{cols} columns, column {column}");
                    offsets[4 * g + j % 16 / 4] -= 8 * i32::from(want);
                }
                assert_eq!(block.offsets, offsets);
            }
        }
    }
}

/// Every path is the definition, and that is `Σ w·xq / s` in f64 but for the roundings of the chains.
#[test]
fn the_product_is_that_of_the_bytes() {
    let mut rng = Lcg(62);
    for cols in SIZES.into_iter().filter(|cols| *cols > 0) {
        for (rows, tokens) in [(5, 1), (3, 6)] {
            let (codes, steps) = random(&mut rng, rows, cols);
            let stride = cols + 13;
            let xq = bytes(&mut rng, tokens, stride);
            let scales: Vec<f32> = (0..tokens).map(|t| [0.9, 127.0 / 1e-5, 3e-4][t % 3]).collect();
            let mut x = vec![InputBlock::ZERO; tokens * blocks(cols)];
            input_of_bytes(&xq, stride, cols, &scales, &mut x);
            check(&codes, &steps, &x, rows, tokens);
            let mut out = vec![0.0; tokens * rows];
            gemv(Isa::best(), &codes, &steps, &x, tokens, &mut out);
            for (i, got) in out.iter().enumerate() {
                let (t, r) = (i / rows, i % rows);
                let q = integers(&codes[r * row_bytes(cols)..(r + 1) * row_bytes(cols)]);
                let (mut want, mut size) = (0.0, 0.0);
                for k in 0..cols {
                    let step = steps[r * row_steps(cols) + k / 32].to_f64();
                    let product = f64::from(q[k]) * step * f64::from(xq[t * stride + k]) / f64::from(scales[t]);
                    want += product;
                    size += product.abs();
                }
                let room = size * f64::from(f32::EPSILON) * (cols as f64 / 128.0 + 6.0);
                assert!(
                    (f64::from(*got) - want).abs() <= room,
                    "{cols} columns: {got} for {want}"
                );
            }
        }
    }
}

#[test]
fn a_scale_that_is_no_number_reaches_the_output() {
    let mut x = [InputBlock::ZERO];
    input_of_bytes(&[1, 2], 2, 2, &[f32::NAN], &mut x);
    let mut out = [0.0];
    gemv(Isa::best(), &[0x88; 64], &[f16::ONE; 4], &x, 1, &mut out);
    assert!(out[0].is_nan());
}

#[test]
#[should_panic(expected = "out is [tokens, blocks]")]
fn blocks_are_those_of_the_columns() {
    input_of_bytes(&[1; 129], 129, 129, &[1.0], &mut [InputBlock::ZERO]);
}
