//! Every path against an f64 oracle and, bit for bit, against the chain that the module promises.

use alloc::vec;
use alloc::vec::Vec;
use std::println;

use super::{KC, Layout, gemm, scratch_len};
use crate::isa::Isa;

const LAYOUTS: [Layout; 3] = [Layout::NN, Layout::NT, Layout::TN];

/// A matrix inside a larger buffer; what lies between its rows is NaN, so that reading it shows.
struct Matrix {
    data: Vec<f32>,
    stride: usize,
}

impl Matrix {
    fn new(rows: usize, cols: usize, gap: usize, seed: u32) -> Self {
        let stride = cols + gap;
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut data = vec![f32::NAN; (rows * stride).saturating_sub(gap)];
        for i in 0..rows {
            for j in 0..cols {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                data[i * stride + j] = (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
            }
        }
        Self { data, stride }
    }
}

struct Case {
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
}

impl Case {
    fn new(layout: Layout, m: usize, n: usize, k: usize, gap: usize) -> Self {
        let a = if layout == Layout::TN {
            Matrix::new(k, m, gap, 1)
        } else {
            Matrix::new(m, k, gap, 1)
        };
        let b = if layout == Layout::NT {
            Matrix::new(n, k, gap + 2, 2)
        } else {
            Matrix::new(k, n, gap + 2, 2)
        };
        Self {
            layout,
            m,
            n,
            k,
            a,
            b,
            c: Matrix::new(m, n, gap + 1, 3),
        }
    }

    fn a(&self, i: usize, p: usize) -> f32 {
        if self.layout == Layout::TN {
            self.a.data[p * self.a.stride + i]
        } else {
            self.a.data[i * self.a.stride + p]
        }
    }

    fn b(&self, p: usize, j: usize) -> f32 {
        if self.layout == Layout::NT {
            self.b.data[j * self.b.stride + p]
        } else {
            self.b.data[p * self.b.stride + j]
        }
    }

    fn run(&self, isa: Isa, accumulate: bool) -> Vec<f32> {
        self.run_part(isa, accumulate, 0..self.m, 0..self.n)
    }

    /// Rows and columns of C outside the ranges stay as they were.
    fn run_part(
        &self,
        isa: Isa,
        accumulate: bool,
        rows: core::ops::Range<usize>,
        cols: core::ops::Range<usize>,
    ) -> Vec<f32> {
        let mut c = self.c.data.clone();
        // What the scratch held before must not matter.
        let mut scratch = vec![f32::NAN; scratch_len()];
        self.run_into(isa, accumulate, rows, cols, &mut c, &mut scratch);
        c
    }

    fn run_into(
        &self,
        isa: Isa,
        accumulate: bool,
        rows: core::ops::Range<usize>,
        cols: core::ops::Range<usize>,
        c: &mut [f32],
        scratch: &mut [f32],
    ) {
        let a0 = if self.layout == Layout::TN {
            rows.start
        } else {
            rows.start * self.a.stride
        };
        let b0 = if self.layout == Layout::NT {
            cols.start * self.b.stride
        } else {
            cols.start
        };
        let c0 = rows.start * self.c.stride + cols.start;
        gemm(
            isa,
            self.layout,
            rows.len(),
            cols.len(),
            self.k,
            self.a.data.get(a0..).unwrap_or(&[]),
            self.a.stride,
            self.b.data.get(b0..).unwrap_or(&[]),
            self.b.stride,
            accumulate,
            c.get_mut(c0..).unwrap_or(&mut []),
            self.c.stride,
            scratch,
        );
    }

    /// The promise: fused chains within blocks of KC, blocks added in order.
    fn chains(&self, accumulate: bool) -> Vec<f32> {
        let mut c = self.c.data.clone();
        for i in 0..self.m {
            for j in 0..self.n {
                let to = &mut c[i * self.c.stride + j];
                if self.k == 0 && !accumulate {
                    *to = 0.0;
                }
                for p0 in (0..self.k).step_by(KC) {
                    let t = (p0..self.k.min(p0 + KC)).fold(0.0f32, |t, p| self.a(i, p).mul_add(self.b(p, j), t));
                    *to = if p0 == 0 && !accumulate { t } else { *to + t };
                }
            }
        }
        c
    }

    /// `|c - exact| <= (k + 2) · ε · (Σ|a·b| + |c0|)`, the bound of any order of summation, ε half a unit in the last place.
    fn assert_near_exact(&self, c: &[f32], accumulate: bool) {
        for i in 0..self.m {
            for j in 0..self.n {
                let start = if accumulate {
                    f64::from(self.c.data[i * self.c.stride + j])
                } else {
                    0.0
                };
                let (mut exact, mut size) = (start, start.abs());
                for p in 0..self.k {
                    let x = f64::from(self.a(i, p)) * f64::from(self.b(p, j));
                    exact += x;
                    size += x.abs();
                }
                let got = f64::from(c[i * self.c.stride + j]);
                let bound = (self.k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
                assert!(
                    (got - exact).abs() <= bound,
                    "({i}, {j}): {got} for {exact}, bound {bound}"
                );
            }
        }
    }
}

fn assert_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    // By bits, so that the NaN between rows compare too: nothing may be written there.
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.to_bits(), w.to_bits(), "{what}: element {i} is {g}, not {w}");
    }
}

const SHAPES: [(usize, usize, usize); 30] = [
    (0, 5, 7),
    (5, 0, 7),
    (5, 7, 0),
    (1, 1, 1),
    (1, 16, 15),
    (1, 33, 300),
    (2, 17, 16),
    (3, 15, 17),
    (4, 31, 31),
    (5, 32, 8),
    (6, 16, 64),
    (7, 48, 33),
    (8, 13, 255),
    (9, 37, 256),
    (10, 29, 257),
    (11, 64, 64),
    (12, 32, 65),
    (13, 33, 19),
    (14, 32, 512),
    (15, 31, 513),
    (16, 7, 32),
    (27, 64, 47),
    (28, 40, 16),
    (29, 41, 17),
    (31, 1, 100),
    (43, 47, 53),
    (61, 67, 71),
    (64, 32, 64),
    (251, 19, 23),
    (17, 521, 29),
];

#[test]
fn every_path_equals_the_chains_and_the_exact_product() {
    for isa in Isa::available() {
        println!("gemm path run: {}", isa.name());
    }
    for (number, &(m, n, k)) in SHAPES.iter().enumerate() {
        for layout in LAYOUTS {
            let accumulate = number % 2 == 1;
            let case = Case::new(layout, m, n, k, number % 3 * 5);
            let want = case.chains(accumulate);
            case.assert_near_exact(&want, accumulate);
            for isa in Isa::available() {
                let what = std::format!("{} {layout:?} {m}x{n}x{k} accumulate {accumulate}", isa.name());
                assert_bits(&case.run(isa, accumulate), &want, &what);
                assert_bits(&case.run(isa, !accumulate), &case.chains(!accumulate), &what);
            }
        }
    }
}

/// Odd splits of m and n over several calls (as over threads) leave the bits of one call.
#[test]
fn splits_of_rows_and_columns_do_not_change_a_bit() {
    let (m, n, k) = (83, 101, 389);
    for layout in LAYOUTS {
        let case = Case::new(layout, m, n, k, 3);
        let want = case.run(Isa::SCALAR, true);
        for isa in Isa::available() {
            let mut scratch = vec![f32::NAN; scratch_len()];
            for (row_cuts, col_cuts) in [
                (vec![0, 1, 30, 83], vec![0, 33, 34, 101]),
                (vec![0, 15, 83], vec![0, 101]),
                (vec![0, 83], vec![0, 7, 101]),
            ] {
                let mut c = case.c.data.clone();
                for r in row_cuts.windows(2) {
                    for s in col_cuts.windows(2) {
                        case.run_into(isa, true, r[0]..r[1], s[0]..s[1], &mut c, &mut scratch);
                    }
                }
                assert_bits(
                    &c,
                    &want,
                    &std::format!("{} {layout:?} {row_cuts:?} {col_cuts:?}", isa.name()),
                );
            }
        }
    }
}

/// More columns and rows than one block holds, on the vector paths against each other and the chains.
#[test]
fn several_blocks_of_rows_and_columns() {
    for layout in LAYOUTS {
        let case = Case::new(layout, 263, 531, 37, 0);
        let want = case.chains(false);
        for isa in Isa::available() {
            assert_bits(&case.run(isa, false), &want, isa.name());
        }
    }
}

/// A misaligned scratch changes nothing.
#[test]
fn scratch_alignment_does_not_matter() {
    let case = Case::new(Layout::NT, 33, 65, 70, 0);
    let want = case.chains(false);
    for isa in Isa::available() {
        let mut scratch = vec![f32::NAN; scratch_len() + 16];
        for shift in 0..16 {
            let mut c = case.c.data.clone();
            case.run_into(isa, false, 0..33, 0..65, &mut c, &mut scratch[shift..][..scratch_len()]);
            assert_bits(&c, &want, isa.name());
        }
    }
}

/// Infinities and NaN go where the formula sends them, and nowhere else.
#[test]
fn special_values_stay_in_their_row_and_column() {
    for layout in LAYOUTS {
        let mut case = Case::new(layout, 29, 35, 18, 0);
        case.a.data[0] = f32::INFINITY;
        case.b.data[0] = f32::NAN;
        let want = case.chains(false);
        assert!(want[case.c.stride + 1].is_finite() && want[0].is_nan() && want[1].is_infinite());
        for isa in Isa::available() {
            let got = case.run(isa, false);
            for (g, w) in got.iter().zip(&want) {
                assert!(
                    g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(),
                    "{}: {g}, not {w}",
                    isa.name()
                );
            }
        }
    }
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
