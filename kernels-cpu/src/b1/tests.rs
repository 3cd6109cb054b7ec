//! Round trips, the picture of the module's documentation, and what is past the end.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg};

fn packed(w: &[i8], rows: usize, cols: usize) -> Vec<u8> {
    let mut out = vec![0xee; bytes(rows, cols)];
    pack(w, rows, cols, &mut out);
    out
}

#[test]
fn unpack_undoes_pack_and_bits_lie_as_the_picture_says() {
    let mut rng = Lcg(31);
    for cols in [0, 127, 128, 129, 383, 384, 385].into_iter().chain(COLS) {
        for rows in 0..10 {
            let w = rng.signs(rows * cols);
            let p = packed(&w, rows, cols);
            assert!(is_padded(&p, rows, cols));
            let mut back = vec![9; rows * cols];
            unpack(&p, rows, cols, &mut back);
            assert_eq!(back, w, "{rows} x {cols}");
            for (at, byte) in p.iter().enumerate() {
                let (g, rest) = (at / group_bytes(cols), at % group_bytes(cols));
                let (b, r, j) = (rest / 64, rest / 16 % 4, rest % 16);
                for f in 0..FIELDS {
                    let (r, k) = (4 * g + r, BLOCK * b + 16 * f + j);
                    let one = r < rows && k < cols && w[r * cols + k] == 1;
                    assert_eq!(byte >> f & 1 == 1, one, "{rows} x {cols}, byte {at}, bit {f}");
                }
            }
        }
    }
}

#[test]
fn padding_is_told_from_weights() {
    for (rows, cols) in [(1, 1), (3, 127), (4, 128), (5, 129), (6, 300)] {
        let clean = packed(&vec![-1; rows * cols], rows, cols);
        for at in 0..clean.len() {
            let (g, rest) = (at / group_bytes(cols), at % group_bytes(cols));
            let (b, r, j) = (rest / 64, rest / 16 % 4, rest % 16);
            for f in 0..FIELDS {
                let weight = 4 * g + r < rows && BLOCK * b + 16 * f + j < cols;
                let mut bytes = clean.clone();
                bytes[at] |= 1 << f;
                assert_eq!(
                    is_padded(&bytes, rows, cols),
                    weight,
                    "{rows} x {cols}, byte {at}, bit {f}"
                );
            }
        }
    }
    assert!(is_padded(&[], 0, 5) && is_padded(&[], 5, 0));
}

#[test]
#[should_panic(expected = "weights are -1 or 1")]
fn a_zero_is_refused() {
    packed(&[1, -1, 0], 1, 3);
}

#[test]
#[should_panic(expected = "weights are -1 or 1")]
fn a_weight_of_two_is_refused() {
    packed(&[2], 1, 1);
}
