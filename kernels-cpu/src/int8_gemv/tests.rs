//! Every path against an i64 oracle.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg};

/// Runs every path on operands placed off alignment.
fn check(w: &[i8], rows: usize, x: &[i8], rng: &mut Lcg) {
    let cols = x.len();
    let want: Vec<i64> = w
        .chunks_exact(cols)
        .map(|row| row.iter().zip(x).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum())
        .collect();
    let offset = 1 + rng.below(63) as usize;
    let (mut wo, mut xo) = (vec![99; offset], vec![99; offset]);
    wo.extend(w);
    xo.extend(x);
    for isa in Isa::available() {
        let mut out = vec![77; rows];
        int8_gemv(isa, &wo[offset..], cols, &xo[offset..], &mut out);
        let got: Vec<i64> = out.iter().map(|v| i64::from(*v)).collect();
        assert_eq!(got, want, "{} {rows} x {cols}", isa.name());
    }
}

#[test]
fn every_path_is_exact_on_random_values() {
    let mut rng = Lcg(21);
    for isa in Isa::available() {
        std::println!("int8_gemv path: {}", isa.name());
    }
    for cols in COLS {
        for rows in 1..10 {
            let (w, x) = (rng.bytes(rows * cols), rng.bytes(cols));
            check(&w, rows, &x, &mut rng);
        }
    }
}

#[test]
fn every_path_is_exact_on_extremes_up_to_the_widest_row() {
    let mut rng = Lcg(22);
    for cols in [1, 15, 16, 63, 64, 255, 256, 2560, MAX_COLS] {
        for weight in [-128i8, -127, 0, 127] {
            for value in [-128i8, -127, 127] {
                check(&vec![weight; 2 * cols], 2, &vec![value; cols], &mut rng);
            }
        }
    }
}

#[test]
fn no_rows_and_no_columns() {
    for isa in Isa::available() {
        int8_gemv(isa, &[], 3, &[1; 3], &mut []);
        let mut out = [5; 3];
        int8_gemv(isa, &[], 0, &[], &mut out);
        assert_eq!(out, [0; 3]);
    }
}

#[test]
#[should_panic(expected = "MAX_COLS")]
fn a_row_that_could_overflow_is_refused() {
    int8_gemv(
        Isa::best(),
        &vec![0; MAX_COLS + 1],
        MAX_COLS + 1,
        &vec![0; MAX_COLS + 1],
        &mut [0],
    );
}
