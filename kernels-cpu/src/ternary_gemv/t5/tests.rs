//! What `t5` has that `t2` has not: bytes that stand for no five weights of their own. The products themselves are tested with those of `t2`.

use alloc::vec;
use alloc::vec::Vec;

use super::super::ternary_gemv;
use crate::isa::Isa;
use crate::t2::tests::Lcg;
use crate::t5;
use crate::ternary::Layout;

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
