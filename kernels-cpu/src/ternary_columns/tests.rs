//! Every path against an i64 oracle on the unpacked weights, at every share of zeros.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::t2::tests::Lcg;

/// The matrix by columns, made from rows in `layout`.
fn columns(layout: Layout, w: &[i8], rows: usize, cols: usize) -> Vec<Line> {
    let mut packed = vec![0; layout.bytes(rows, cols)];
    layout.pack(w, rows, cols, &mut packed);
    // Rubbish, which must not stay.
    let mut out = vec![Line([0xa6; 64]); lines(rows, cols)];
    let mut scratch = vec![0; t2::GROUP_ROWS * cols];
    from_rows(layout, &packed, rows, cols, &mut out, &mut scratch);
    out
}

/// Activations of which `percent` in a hundred are not 0.
fn sparse(cols: usize, percent: u32, rng: &mut Lcg) -> Vec<i8> {
    let mut x = rng.bytes(cols);
    for x in &mut x {
        if rng.below(100) >= percent {
            *x = 0;
        }
    }
    x
}

fn check(w: &[Line], weights: &[i8], rows: usize, x: &[i8]) {
    let want: Vec<i64> = weights
        .chunks_exact(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| i64::from(*w) * i64::from(*x)).sum())
        .collect();
    for isa in Isa::available() {
        // In one part, and in two that add up.
        for cut in [0, 1, x.len() / 3] {
            let cut = cut.min(x.len());
            let (left, right) = w.split_at(cut * column_lines(rows));
            let mut out: Vec<i32> = (0..rows as i32).map(|r| 77 - r).collect();
            ternary_columns(isa, left, &x[..cut], &mut out);
            ternary_columns(isa, right, &x[cut..], &mut out);
            let same = out
                .iter()
                .zip(&want)
                .enumerate()
                .all(|(r, (a, b))| i64::from(*a) == *b + 77 - r as i64);
            assert!(same, "{}: {rows} x {} in parts of {cut}", isa.name(), x.len());
        }
    }
}

#[test]
fn every_path_is_exact_at_every_share_of_zeros() {
    let mut rng = Lcg(5);
    for isa in Isa::available() {
        std::println!("ternary_columns path: {}", isa.name());
    }
    for (i, rows) in [1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 511, 512, 513, 700]
        .into_iter()
        .enumerate()
    {
        for cols in [1, 3, 4, 5, 63, 64, 65, 127, 129, 256, 321] {
            let weights = rng.trits(rows * cols);
            let w = columns(Layout::TERNARY[i % 2], &weights, rows, cols);
            for percent in [0, 1, 10, 35, 60, 99, 100] {
                check(&w, &weights, rows, &sparse(cols, percent, &mut rng));
            }
        }
    }
}

#[test]
fn every_path_is_exact_on_extremes() {
    for (rows, cols) in [(260, 6912), (513, 64), (5, 2561)] {
        for weight in [-1i8, 0, 1] {
            let weights = vec![weight; rows * cols];
            let w = columns(Layout::T5, &weights, rows, cols);
            for value in [-128i8, -127, 127] {
                check(&w, &weights, rows, &vec![value; cols]);
            }
        }
    }
}

#[test]
fn all_layouts_of_rows_give_the_same_columns() {
    let mut rng = Lcg(6);
    for (rows, cols) in [(4, 1), (257, 320), (300, 641)] {
        let weights = rng.trits(rows * cols);
        let [a, b] = Layout::TERNARY.map(|layout| columns(layout, &weights, rows, cols));
        assert_eq!(a, b);
        let signs = rng.signs(rows * cols);
        assert_eq!(
            columns(Layout::B1, &signs, rows, cols),
            columns(Layout::T2, &signs, rows, cols)
        );
        for (r, row) in weights.chunks_exact(cols).enumerate() {
            let (byte, bit) = place(r % LINE_ROWS);
            for (k, w) in row.iter().enumerate() {
                let line = a[k * column_lines(rows) + r / LINE_ROWS];
                assert_eq!((line.0[byte] >> bit & 3) as i8 - 1, *w);
            }
        }
    }
}

#[test]
fn the_widest_matrix_does_not_overflow() {
    let cols = t2::MAX_COLS;
    for (byte, weight) in [(0x00u8, -1), (0xaa, 1)] {
        let w = vec![Line([byte; 64]); cols];
        for value in [-128i8, 127] {
            let x = vec![value; cols];
            for isa in Isa::available().filter(|isa| is_fast(*isa)) {
                let mut out = [0; LINE_ROWS];
                ternary_columns(isa, &w, &x, &mut out);
                assert_eq!(out, [weight * i32::from(value) * cols as i32; LINE_ROWS]);
            }
        }
    }
}

/// Lines may come from a file that nobody has checked: whatever they hold, every path gives what the formula does.
#[test]
fn any_bytes_are_codes() {
    let mut rng = Lcg(7);
    for (rows, cols) in [(256, 64), (300, 129)] {
        for byte in [None, Some(0xff)] {
            let mut w = vec![Line::ZERO; lines(rows, cols)];
            for line in &mut w {
                for b in &mut line.0 {
                    *b = byte.unwrap_or(rng.below(256) as u8);
                }
            }
            for x in [vec![-128; cols], vec![127; cols], rng.bytes(cols)] {
                let mut want = vec![0; rows];
                ternary_columns(Isa::SCALAR, &w, &x, &mut want);
                for isa in Isa::available() {
                    let mut out = vec![0; rows];
                    ternary_columns(isa, &w, &x, &mut out);
                    assert_eq!(out, want, "{}", isa.name());
                }
            }
        }
    }
}

#[test]
fn no_rows_and_no_columns() {
    for isa in Isa::available() {
        ternary_columns(isa, &[], &[1; 5], &mut []);
        let mut out = [5; 300];
        ternary_columns(isa, &[], &[], &mut out);
        assert_eq!(out, [5; 300]);
    }
    assert_eq!(columns(Layout::T2, &[], 0, 7), []);
}

#[test]
#[should_panic(expected = "w is [cols, lines of a column]")]
fn lines_are_those_of_the_rows() {
    ternary_columns(Isa::best(), &[Line::ZERO; 2], &[1], &mut [0; 256]);
}
