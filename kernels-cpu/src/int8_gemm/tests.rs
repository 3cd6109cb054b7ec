//! Every path against an i64 oracle.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg};

/// Runs every path on operands placed off alignment, with rubbish in the padding of `x` and in the scratch.
fn check(w: &[i8], rows: usize, cols: usize, x: &[i8], tokens: usize, rng: &mut Lcg) {
    let mut want = Vec::new();
    for x in x.chunks_exact(cols) {
        for w in w.chunks_exact(cols) {
            let sum: i64 = w.iter().zip(x).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            want.push(i32::try_from(sum).unwrap());
        }
    }
    let offset = 1 + rng.below(63) as usize;
    let stride = padded_cols(cols) + rng.below(3) as usize;
    let (mut wo, mut xo) = (vec![99; offset], vec![99; offset]);
    wo.extend(w);
    for x in x.chunks_exact(cols) {
        xo.extend(x);
        xo.extend(rng.bytes(stride - cols));
    }
    for isa in Isa::available() {
        let mut out = vec![77; tokens * rows];
        // Few tokens need none.
        let room = if tokens > FEW { scratch_len(cols) } else { 0 };
        let mut scratch = vec![0xee; room + offset];
        let (w, x) = (&wo[offset..], &xo[offset..]);
        int8_gemm(isa, w, rows, cols, x, tokens, &mut out, &mut scratch[offset..]);
        assert_eq!(out, want, "{} {rows} x {cols}, {tokens} tokens", isa.name());
    }
}

#[test]
fn every_path_is_exact_on_random_values() {
    let mut rng = Lcg(71);
    for isa in Isa::available() {
        std::println!("int8_gemm path: {}", isa.name());
    }
    for cols in COLS.into_iter().chain([2, 3, 4, 5, 8, 9]) {
        for rows in [1, 3, 5, 16, 17] {
            let tokens = 1 + rng.below(12) as usize;
            let (w, x) = (rng.bytes(rows * cols), rng.bytes(tokens * cols));
            check(&w, rows, cols, &x, tokens, &mut rng);
        }
    }
}

#[test]
fn every_tile_shape() {
    let mut rng = Lcg(72);
    for rows in [15, 16, 31, 33, 48, 63, 64, 65, 79, 127, 131] {
        for tokens in [1, FEW, FEW + 1, FEW + 2, FEW + 3, FEW + 4, FEW + 5, 12, 13] {
            let cols = 1 + rng.below(300) as usize;
            let (w, x) = (rng.bytes(rows * cols), rng.bytes(tokens * cols));
            check(&w, rows, cols, &x, tokens, &mut rng);
        }
    }
}

#[test]
fn more_tokens_than_one_pass() {
    let mut rng = Lcg(73);
    let (rows, cols, tokens) = (20, 70, 2 * PASS + 3);
    let (w, x) = (rng.bytes(rows * cols), rng.bytes(tokens * cols));
    check(&w, rows, cols, &x, tokens, &mut rng);
}

#[test]
fn every_path_is_exact_on_extremes_up_to_the_widest_row() {
    let mut rng = Lcg(74);
    let (rows, tokens) = (2, FEW + 2);
    for cols in [1, 63, 64, 65, 256, 2560, MAX_COLS] {
        for weight in [-128i8, -127, 0, 127] {
            for value in [-128i8, 127] {
                let (w, x) = (vec![weight; rows * cols], vec![value; tokens * cols]);
                check(&w, rows, cols, &x, tokens, &mut rng);
            }
        }
    }
}

#[test]
fn nothing_to_do() {
    for isa in Isa::available() {
        let mut scratch = vec![0; scratch_len(300)];
        int8_gemm(isa, &[], 0, 300, &[1; 9 * 304], 9, &mut [], &mut scratch);
        int8_gemm(isa, &[1; 300], 1, 300, &[], 0, &mut [], &mut scratch);
        let mut out = [5; 27];
        int8_gemm(isa, &[], 3, 0, &[], 9, &mut out, &mut scratch);
        assert_eq!(out, [0; 27]);
    }
}

#[test]
#[should_panic(expected = "xq is padded")]
fn activations_must_be_padded() {
    int8_gemm(Isa::best(), &[1; 5], 1, 5, &[1; 25], 5, &mut [0; 5], &mut [0; 1024]);
}

#[test]
#[should_panic(expected = "scratch holds")]
fn scratch_must_be_large_enough() {
    int8_gemm(Isa::best(), &[1; 8], 1, 8, &[1; 40], 5, &mut [0; 5], &mut []);
}
