//! Every path and layout against an i64 oracle on the unpacked weights.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::{COLS, Lcg, packed};
use crate::ternary::tests::held_by;

fn oracle(w: &[i8], cols: usize, x: &[i8]) -> Vec<i32> {
    w.chunks_exact(cols)
        .map(|row| {
            row.iter()
                .zip(x)
                .map(|(a, b)| i64::from(*a) * i64::from(*b))
                .sum::<i64>() as i32
        })
        .collect()
}

/// Runs every path on `w`, in every layout, and `x` placed off alignment, with rubbish in the padding of `x`.
fn check(w: &[i8], rows: usize, cols: usize, x: &[i8], rng: &mut Lcg) {
    for layout in Layout::ALL {
        let w = &held_by(layout, w);
        let want = oracle(w, cols, x);
        let offset = 1 + rng.below(63) as usize;
        let mut bytes = vec![0; offset + layout.bytes(rows, cols)];
        layout.pack(w, rows, cols, &mut bytes[offset..]);
        let mut xq = vec![0; offset];
        xq.extend(x);
        xq.extend(rng.bytes(layout.padded_cols(cols) - cols));
        for isa in Isa::available() {
            let mut out = vec![77; rows];
            ternary_gemv(isa, layout, &bytes[offset..], cols, &xq[offset..], &mut out);
            assert_eq!(out, want, "{} {} {rows} x {cols}", isa.name(), layout.name());
        }
    }
}

#[test]
fn every_path_is_exact_on_random_values() {
    let mut rng = Lcg(3);
    for isa in Isa::available() {
        std::println!("ternary_gemv path: {}", isa.name());
    }
    // The boundaries of t2's blocks, then of t5's and b1's; more rows than are taken together.
    for cols in COLS
        .into_iter()
        .chain([319, 321, 640, 641, 128, 129, 383, 384, 385, 1600, 6912])
    {
        for rows in 1..14 {
            let (w, x) = (rng.trits(rows * cols), rng.bytes(cols));
            check(&w, rows, cols, &x, &mut rng);
        }
    }
}

#[test]
fn every_path_is_exact_on_extremes() {
    let mut rng = Lcg(4);
    for cols in [1, 64, 128, 255, 256, 319, 320, 1280, 1281, 1536, 1600, 2560, 6912] {
        for weight in [-1i8, 0, 1] {
            for value in [-128i8, -127, 127] {
                check(&vec![weight; 5 * cols], 5, cols, &vec![value; cols], &mut rng);
                // Signs that agree everywhere give the largest sums that mixed signs can.
                let w: Vec<i8> = (0..5 * cols)
                    .map(|i| if i % cols % 3 == 0 { weight } else { -weight })
                    .collect();
                let x: Vec<i8> = (0..cols)
                    .map(|i| if i % 3 == 0 { value } else { value.saturating_neg() })
                    .collect();
                check(&w, 5, cols, &x, &mut rng);
            }
        }
    }
}

#[test]
fn no_rows_and_no_columns() {
    for (isa, layout) in Isa::available().flat_map(|isa| Layout::ALL.map(|layout| (isa, layout))) {
        ternary_gemv(isa, layout, &[], 300, &[1; 512], &mut []);
        let mut out = [5; 3];
        ternary_gemv(isa, layout, &[], 0, &[], &mut out);
        assert_eq!(out, [0; 3]);
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let cols = t2::MAX_COLS;
    // The fourth code counts as weight 2 on every path: it is the largest that bytes from a file can hold.
    for (byte, weight) in [(0x00u8, -1), (0xaa, 1), (0xff, 2)] {
        let w = vec![byte; t2::bytes(1, cols)];
        for value in [-128i8, 127] {
            let x = vec![value; cols];
            for isa in Isa::available() {
                let mut out = [0];
                ternary_gemv(isa, Layout::T2, &w, cols, &x, &mut out);
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

#[test]
#[should_panic(expected = "xq is padded")]
fn activations_must_be_padded() {
    ternary_gemv(
        Isa::best(),
        Layout::T2,
        &packed(&[1; 10], 1, 10),
        10,
        &[1; 10],
        &mut [0],
    );
}
