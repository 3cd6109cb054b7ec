//! What `b1` has that the others have not: bits past the end. The products themselves are tested with those of `t2`.

use alloc::vec;
use alloc::vec::Vec;

use super::super::ternary_gemv;
use crate::b1;
use crate::isa::Isa;
use crate::t2::tests::Lcg;
use crate::ternary::Layout;

/// Bits past the end that no packing sets mean the same on every path.
#[test]
fn every_byte_means_the_same_on_every_path() {
    let mut rng = Lcg(33);
    for cols in [1, 70, 127, 128, 129, 300, 1000] {
        let w: Vec<u8> = rng.bytes(b1::bytes(7, cols)).into_iter().map(|b| b as u8).collect();
        let x = rng.bytes(b1::padded_cols(cols));
        let mut want = [0; 7];
        ternary_gemv(Isa::SCALAR, Layout::B1, &w, cols, &x, &mut want);
        for isa in Isa::available() {
            let mut out = [0; 7];
            ternary_gemv(isa, Layout::B1, &w, cols, &x, &mut out);
            assert_eq!(out, want, "{}, {cols} columns", isa.name());
        }
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let cols = b1::MAX_COLS;
    for (byte, weight) in [(0x00u8, -1), (0xff, 1)] {
        let w = vec![byte; b1::bytes(1, cols)];
        for value in [-128i8, 127] {
            let x = vec![value; cols];
            for isa in Isa::available() {
                let mut out = [0];
                ternary_gemv(isa, Layout::B1, &w, cols, &x, &mut out);
                assert_eq!(
                    i64::from(out[0]),
                    weight * i64::from(value) * cols as i64,
                    "{}",
                    isa.name()
                );
            }
        }
    }
}
