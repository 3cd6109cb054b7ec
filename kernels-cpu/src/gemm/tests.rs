//! Every path against an f64 oracle and, bit for bit, against the chain that the module promises.

use alloc::vec;

use super::testing::{Product, suite};
use super::{KC, Layout, gemm, scratch_len};
use crate::isa::Isa;

#[test]
fn every_path_keeps_the_promise() {
    suite(&Product {
        name: "gemm",
        gemm,
        stale: f32::NAN,
        block: KC,
        chain: |a, b| a.iter().zip(b).fold(0.0, |t, (a, b)| a.mul_add(*b, t)),
        rounding: 0.0,
    });
}

#[test]
#[should_panic(expected = "B: 11 elements for [4, 3]")]
fn a_short_matrix_is_refused() {
    let mut scratch = vec![0.0; scratch_len()];
    gemm(
        Isa::best(),
        Layout::NN,
        2,
        3,
        4,
        &[0.0; 8],
        4,
        &[0.0; 11],
        3,
        false,
        &mut [0.0; 6],
        3,
        &mut scratch,
    );
}

#[test]
#[should_panic(expected = "C: row stride 2 is below the row length 3")]
fn overlapping_rows_are_refused() {
    let mut scratch = vec![0.0; scratch_len()];
    gemm(
        Isa::best(),
        Layout::NN,
        2,
        3,
        4,
        &[0.0; 8],
        4,
        &[0.0; 12],
        3,
        false,
        &mut [0.0; 6],
        2,
        &mut scratch,
    );
}
