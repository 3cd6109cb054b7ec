//! The code is a bijection, packing is undone by unpacking, and `t2` and `t5` turn into each other.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg};

#[test]
fn each_quintuple_has_a_byte_and_each_byte_digits_in_range() {
    let mut seen = [0; 243];
    for byte in 0..=255u8 {
        let d = digits(byte);
        assert!(d.iter().all(|d| (1..=3).contains(d)), "{byte:#x} {d:?}");
        seen[d.iter().rev().fold(0, |n, &d| 3 * n + usize::from(d) - 1)] += 1;
    }
    assert!(seen.iter().all(|&n| n > 0));
    // The canonical byte of each quintuple follows the table of the module's documentation.
    let mut kinds = [0; 4];
    for byte in BYTES {
        kinds[match byte & 31 {
            0..=26 => 0,
            28..=30 => 1,
            31 => 2,
            _ => 3,
        }] += 1;
    }
    assert_eq!(kinds, [216, 24, 2, 1]);
    for (index, byte) in BYTES.into_iter().enumerate() {
        let d = digits(byte);
        assert_eq!(index, d.iter().rev().fold(0, |n, &d| 3 * n + usize::from(d) - 1));
    }
}

#[test]
fn unpack_undoes_pack_and_digits_lie_as_the_picture_says() {
    let mut rng = Lcg(11);
    for cols in [0, 319, 321, 639, 640, 641].into_iter().chain(COLS) {
        for rows in 0..10 {
            let w = rng.trits(rows * cols);
            let mut packed = vec![0; bytes(rows, cols)];
            pack(&w, rows, cols, &mut packed);
            let mut back = vec![9; rows * cols];
            unpack(&packed, rows, cols, &mut back);
            assert_eq!(back, w, "{rows} x {cols}");
            for (at, byte) in packed.iter().enumerate() {
                let (g, rest) = (at / group_bytes(cols), at % group_bytes(cols));
                let (b, r, j) = (rest / 256, rest / 64 % 4, rest % 64);
                for (i, d) in digits(*byte).into_iter().enumerate() {
                    let (r, k) = (4 * g + r, BLOCK * b + 64 * i + j);
                    let weight = if r < rows && k < cols { w[r * cols + k] } else { 0 };
                    assert_eq!(d as i8 - 2, weight);
                }
            }
        }
    }
}

#[test]
fn t2_and_t5_turn_into_each_other() {
    let mut rng = Lcg(12);
    for cols in COLS {
        for rows in 1..6 {
            let w = rng.trits(rows * cols);
            let mut two: Vec<u8> = vec![0; t2::bytes(rows, cols)];
            t2::pack(&w, rows, cols, &mut two);
            let mut five = vec![0; bytes(rows, cols)];
            let (mut converted, mut back) = (five.clone(), vec![0; two.len()]);
            pack(&w, rows, cols, &mut five);
            let mut scratch = vec![0; 4 * cols];
            from_t2(&two, rows, cols, &mut converted, &mut scratch);
            assert_eq!(converted, five);
            to_t2(&five, rows, cols, &mut back, &mut scratch);
            assert_eq!(back, two);
        }
    }
}

#[test]
#[should_panic(expected = "weights are -1, 0 or 1")]
fn a_weight_of_two_is_refused() {
    pack(&[2], 1, 1, &mut [0; 256]);
}
