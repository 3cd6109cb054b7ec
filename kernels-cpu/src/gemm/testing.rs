//! Matrices with gaps, and a product run on them: what the tests of both precisions share.

use alloc::vec;
use alloc::vec::Vec;

use std::println;

use super::{Layout, scratch_len};
use crate::isa::Isa;

/// A matrix product and what it promises.
#[derive(Clone, Copy)]
pub(crate) struct Product<U> {
    pub(crate) name: &'static str,
    pub(crate) gemm:
        fn(Isa, Layout, usize, usize, usize, &[f32], usize, &[f32], usize, bool, &mut [f32], usize, &mut [U]),
    /// What the scratch held before, which must not matter.
    pub(crate) stale: U,
    /// Values of k in a block.
    pub(crate) block: usize,
    /// The sum of products of a block.
    pub(crate) chain: fn(&[f32], &[f32]) -> f32,
    /// Relative error of a product from rounding its factors.
    pub(crate) rounding: f64,
}

pub(crate) const LAYOUTS: [Layout; 3] = [Layout::NN, Layout::NT, Layout::TN];

/// A matrix inside a larger buffer; what lies between its rows is NaN, so that reading it shows.
pub(crate) struct Matrix {
    pub(crate) data: Vec<f32>,
    pub(crate) stride: usize,
}

impl Matrix {
    pub(crate) fn new(rows: usize, cols: usize, gap: usize, seed: u32) -> Self {
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

pub(crate) struct Case {
    pub(crate) layout: Layout,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) c: Matrix,
}

impl Case {
    pub(crate) fn new(layout: Layout, m: usize, n: usize, k: usize, gap: usize) -> Self {
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

    pub(crate) fn a(&self, i: usize, p: usize) -> f32 {
        if self.layout == Layout::TN {
            self.a.data[p * self.a.stride + i]
        } else {
            self.a.data[i * self.a.stride + p]
        }
    }

    pub(crate) fn b(&self, p: usize, j: usize) -> f32 {
        if self.layout == Layout::NT {
            self.b.data[j * self.b.stride + p]
        } else {
            self.b.data[p * self.b.stride + j]
        }
    }

    pub(crate) fn run<U: Copy>(&self, product: &Product<U>, isa: Isa, accumulate: bool) -> Vec<f32> {
        let mut c = self.c.data.clone();
        let mut scratch = vec![product.stale; scratch_len()];
        self.run_into(product, isa, accumulate, 0..self.m, 0..self.n, &mut c, &mut scratch);
        c
    }

    /// Rows and columns of C outside the ranges stay as they were.
    pub(crate) fn run_into<U>(
        &self,
        product: &Product<U>,
        isa: Isa,
        accumulate: bool,
        rows: core::ops::Range<usize>,
        cols: core::ops::Range<usize>,
        c: &mut [f32],
        scratch: &mut [U],
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
        (product.gemm)(
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

    /// The promise: chains within blocks, blocks added in order.
    pub(crate) fn chains<U>(&self, product: &Product<U>, accumulate: bool) -> Vec<f32> {
        let mut c = self.c.data.clone();
        for i in 0..self.m {
            let row: Vec<f32> = (0..self.k).map(|p| self.a(i, p)).collect();
            for j in 0..self.n {
                let column: Vec<f32> = (0..self.k).map(|p| self.b(p, j)).collect();
                let to = &mut c[i * self.c.stride + j];
                if self.k == 0 && !accumulate {
                    *to = 0.0;
                }
                let blocks = row.chunks(product.block).zip(column.chunks(product.block));
                for (number, (a, b)) in blocks.enumerate() {
                    let t = (product.chain)(a, b);
                    *to = if number == 0 && !accumulate { t } else { *to + t };
                }
            }
        }
        c
    }

    /// `|c - exact| <= ((k + 2) · ε + rounding) · (Σ|a·b| + |c0|)`, the bound of any order of summation, ε half a unit in the last place.
    pub(crate) fn assert_near_exact<U>(&self, product: &Product<U>, c: &[f32], accumulate: bool) {
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
                let bound = ((self.k + 2) as f64 * f64::from(f32::EPSILON) / 2.0 + product.rounding) * size;
                assert!(
                    (got - exact).abs() <= bound,
                    "({i}, {j}): {got} for {exact}, bound {bound}"
                );
            }
        }
    }
}

pub(crate) fn assert_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    // By bits, so that the NaN between rows compare too: nothing may be written there.
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.to_bits(), w.to_bits(), "{what}: element {i} is {g}, not {w}");
    }
}

pub(crate) const SHAPES: [(usize, usize, usize); 30] = [
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

fn every_path_equals_the_chains_and_the_exact_product<U: Copy>(product: &Product<U>) {
    for isa in Isa::available() {
        println!("{} path run: {}", product.name, isa.name());
    }
    for (number, &(m, n, k)) in SHAPES.iter().enumerate() {
        for layout in LAYOUTS {
            let accumulate = number % 2 == 1;
            let case = Case::new(layout, m, n, k, number % 3 * 5);
            let want = case.chains(product, accumulate);
            case.assert_near_exact(product, &want, accumulate);
            for isa in Isa::available() {
                let what = std::format!("{} {layout:?} {m}x{n}x{k} accumulate {accumulate}", isa.name());
                assert_bits(&case.run(product, isa, accumulate), &want, &what);
                assert_bits(
                    &case.run(product, isa, !accumulate),
                    &case.chains(product, !accumulate),
                    &what,
                );
            }
        }
    }
}

/// Odd splits of m and n over several calls (as over threads) leave the bits of one call.
fn splits_of_rows_and_columns_do_not_change_a_bit<U: Copy>(product: &Product<U>) {
    let (m, n, k) = (83, 101, 389);
    for layout in LAYOUTS {
        let case = Case::new(layout, m, n, k, 3);
        let want = case.run(product, Isa::SCALAR, true);
        for isa in Isa::available() {
            let mut scratch = vec![product.stale; scratch_len()];
            for (row_cuts, col_cuts) in [
                (vec![0, 1, 30, 83], vec![0, 33, 34, 101]),
                (vec![0, 15, 83], vec![0, 101]),
                (vec![0, 83], vec![0, 7, 101]),
            ] {
                let mut c = case.c.data.clone();
                for r in row_cuts.windows(2) {
                    for s in col_cuts.windows(2) {
                        case.run_into(product, isa, true, r[0]..r[1], s[0]..s[1], &mut c, &mut scratch);
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
fn several_blocks_of_rows_and_columns<U: Copy>(product: &Product<U>) {
    for layout in LAYOUTS {
        let case = Case::new(layout, 263, 531, 37, 0);
        let want = case.chains(product, false);
        for isa in Isa::available() {
            assert_bits(&case.run(product, isa, false), &want, isa.name());
        }
    }
}

/// A misaligned scratch changes nothing.
fn scratch_alignment_does_not_matter<U: Copy>(product: &Product<U>) {
    let case = Case::new(Layout::NT, 33, 65, 70, 0);
    let want = case.chains(product, false);
    for isa in Isa::available() {
        let mut scratch = vec![product.stale; scratch_len() + 16];
        for shift in 0..16 {
            let mut c = case.c.data.clone();
            case.run_into(
                product,
                isa,
                false,
                0..33,
                0..65,
                &mut c,
                &mut scratch[shift..][..scratch_len()],
            );
            assert_bits(&c, &want, isa.name());
        }
    }
}

/// Infinities and NaN go where the formula sends them, and nowhere else.
fn special_values_stay_in_their_row_and_column<U: Copy>(product: &Product<U>) {
    for layout in LAYOUTS {
        let mut case = Case::new(layout, 29, 35, 18, 0);
        case.a.data[0] = f32::INFINITY;
        case.b.data[0] = f32::NAN;
        let want = case.chains(product, false);
        assert!(want[case.c.stride + 1].is_finite() && want[0].is_nan() && want[1].is_infinite());
        for isa in Isa::available() {
            let got = case.run(product, isa, false);
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

/// All of the above.
pub(crate) fn suite<U: Copy>(product: &Product<U>) {
    every_path_equals_the_chains_and_the_exact_product(product);
    splits_of_rows_and_columns_do_not_change_a_bit(product);
    several_blocks_of_rows_and_columns(product);
    scratch_alignment_does_not_matter(product);
    special_values_stay_in_their_row_and_column(product);
}
