//! Every path against the `t2` product of the same weights, which has an oracle of its own, and on bytes that no packing makes.

use alloc::vec;
use alloc::vec::Vec;

use super::super::ternary_gemv;
use crate::isa::Isa;
use crate::t2::tests::{COLS, Lcg, packed};
use crate::ternary::Layout;
use crate::{t2, t5};

/// Runs every path on `w` and `x` placed off alignment, with rubbish in the padding of `x`.
fn check(w: &[i8], rows: usize, cols: usize, x: &[i8], rng: &mut Lcg) {
    let mut want = vec![0; rows];
    let mut padded = x.to_vec();
    padded.resize(t2::padded_cols(cols), 0);
    ternary_gemv(
        Isa::SCALAR,
        Layout::T2,
        &packed(w, rows, cols),
        cols,
        &padded,
        &mut want,
    );
    let offset = 1 + rng.below(63) as usize;
    let mut bytes = vec![0; offset + t5::bytes(rows, cols)];
    t5::pack(w, rows, cols, &mut bytes[offset..]);
    let mut xq = vec![0; offset];
    xq.extend(x);
    xq.extend(rng.bytes(t5::padded_cols(cols) - cols));
    for isa in Isa::available() {
        let mut out = vec![77; rows];
        ternary_gemv(isa, Layout::T5, &bytes[offset..], cols, &xq[offset..], &mut out);
        assert_eq!(out, want, "{} {rows} x {cols}", isa.name());
    }
}

#[test]
fn every_path_is_exact_on_random_values() {
    let mut rng = Lcg(21);
    for cols in [319, 321, 640, 641, 1600, 6912].into_iter().chain(COLS) {
        for rows in 1..10 {
            let (w, x) = (rng.trits(rows * cols), rng.bytes(cols));
            check(&w, rows, cols, &x, &mut rng);
        }
    }
}

#[test]
fn every_path_is_exact_on_extremes() {
    let mut rng = Lcg(22);
    for cols in [1, 64, 319, 320, 1280, 1281, 1600, 2560, 6912] {
        for weight in [-1i8, 0, 1] {
            for value in [-128i8, -127, 127] {
                check(&vec![weight; 5 * cols], 5, cols, &vec![value; cols], &mut rng);
                let w: Vec<i8> = (0..5 * cols)
                    .map(|i| if i % cols % 3 == 0 { weight } else { -weight })
                    .collect();
                check(&w, 5, cols, &vec![value; cols], &mut rng);
            }
        }
    }
}

/// Bytes that no packing makes mean the same on every path.
#[test]
fn every_byte_means_the_same_on_every_path() {
    let mut rng = Lcg(23);
    let cols = 4 * t5::BLOCK;
    let w: Vec<u8> = (0..t5::bytes(4, cols)).map(|i| (i * 37 % 256) as u8).collect();
    let x = rng.bytes(cols);
    let mut want = [0; 4];
    ternary_gemv(Isa::SCALAR, Layout::T5, &w, cols, &x, &mut want);
    for isa in Isa::available() {
        let mut out = [0; 4];
        ternary_gemv(isa, Layout::T5, &w, cols, &x, &mut out);
        assert_eq!(out, want, "{}", isa.name());
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let cols = t5::MAX_COLS;
    let mut byte = [0; 256];
    for weight in [-1i8, 1] {
        t5::pack(&[weight; 320], 1, 320, &mut byte);
        let w = vec![byte[0]; t5::bytes(1, cols)];
        for value in [-128i8, 127] {
            let x = vec![value; t5::padded_cols(cols)];
            for isa in Isa::available() {
                let mut out = [0];
                ternary_gemv(isa, Layout::T5, &w, cols, &x, &mut out);
                let want = i64::from(weight) * i64::from(value) * t5::padded_cols(cols) as i64;
                assert_eq!(i64::from(out[0]), want, "{}", isa.name());
            }
        }
    }
}
