//! `out[r] = Σ_k w[r,k] · x[k]` for ternary weights that lie column by column: a column whose activation is 0 is not read.
//!
//! It is the input of `down_proj` under ReLU² that makes this worth while: most of its bytes are 0. The weights are those of
//! [`t2`], two bits a weight, code `w + 1`, in another order. A [`Line`] is 256 rows of one column, one line of the cache, and the
//! lines of a column lie one after the other, so that a thread with some hundreds of rows reads some hundreds of bytes in a row:
//!
//! ```text
//! column k:   [rows 0..256] [rows 256..512] …       column k + 1: …
//! a line:     byte 16·l + 4·t + m holds rows 64·f + 16·t + 4·l + m of the 256 at bits 2f and 2f + 1    (f, t, l, m in 0..4)
//! ```
//!
//! That order is what interleaving the bytes of four columns, in registers of any multiple of 16 bytes, brings back to the natural one: each
//! group of four bytes is then one row in four columns, which a byte dot product multiplies with four activations, and each register of sums
//! is adjacent rows.
//!
//! Columns are taken in batches of up to 64 that are not 0 ([`Batch`]): the sums of 256 rows are in registers over a batch, the lines of the
//! next batch are asked for meanwhile (into the second-level cache: asked for into the first they came at a third of the speed). Within
//! a batch a sum of masked fields is at most `64 · 192 · 128 ≈ 1.6e6`; the whole sums are exact for up to [`t2::MAX_COLS`] columns.
//!
//! Cost: 0.25 bytes and 1 multiply-add per weight whose activation is not 0. All vector paths share one driver ([`lanes`]). With 32 vector
//! registers and a dot product, all sums of a register's rows are in registers at a time; AVX2, AVX-VNNI and NEON walk through a batch twice.
//! AVX2 and NEON, which have no dot product into 32 bits, keep the sums of a batch in 16: that is what limits a batch to 64 columns.

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod lanes;
mod scalar;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::bytes::byte_kernel;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
use crate::simd::enter;
use crate::t2;
use crate::ternary::Layout;

/// Rows of a line.
pub const LINE_ROWS: usize = 256;
/// Columns of a batch.
const BATCH: usize = 64;

/// 256 rows of a column, aligned to a line of the cache. Any bytes are one: code 3, which no weight has, counts as 2 on every path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

// SAFETY: any 64 bytes are a line, and it has no padding: its size is its alignment.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above; it holds no pointer and nothing that changes.
unsafe impl bytemuck::Pod for Line {}

impl Line {
    /// All weights −1.
    pub const ZERO: Self = Self([0; 64]);
}

/// Lines of a column of `rows` rows.
pub const fn column_lines(rows: usize) -> usize {
    rows.div_ceil(LINE_ROWS)
}

/// Lines of a matrix `[rows, cols]`.
pub const fn lines(rows: usize, cols: usize) -> usize {
    column_lines(rows) * cols
}

/// Whether `isa` has a kernel of its own here: all have but the portable path, where [`ternary_gemv`](crate::ternary_gemv) is the faster,
/// whatever the activations are.
pub fn is_fast(isa: Isa) -> bool {
    !matches!(isa.ints(), IntIsa::Scalar)
}

/// The byte of row `row` (0..256) in its line, and the lowest of its two bits.
const fn place(row: usize) -> (usize, usize) {
    let (f, t, l, m) = (row / 64, row / 16 % 4, row / 4 % 4, row % 4);
    (16 * l + 4 * t + m, 2 * f)
}

/// From rows in `layout` to columns: the same weights. What is missing of a column's last line has code 0. `scratch` holds four rows,
/// `[4, cols]`.
///
/// # Panics
/// If a length does not belong to `[rows, cols]`.
pub fn from_rows(layout: Layout, packed: &[u8], rows: usize, cols: usize, out: &mut [Line], scratch: &mut [i8]) {
    assert_eq!(packed.len(), layout.bytes(rows, cols), "packed is [rows, cols]");
    assert_eq!(out.len(), lines(rows, cols), "out is [cols, lines of a column]");
    assert_eq!(scratch.len(), t2::GROUP_ROWS * cols, "scratch holds four rows");
    out.fill(Line::ZERO);
    if packed.is_empty() {
        return;
    }
    for (g, group) in packed.chunks_exact(layout.group_bytes(cols)).enumerate() {
        let row = g * t2::GROUP_ROWS;
        let count = t2::GROUP_ROWS.min(rows - row);
        layout.unpack(group, t2::GROUP_ROWS, cols, scratch);
        // The rows of a group are adjacent bytes of a line, at the same bits.
        let (byte, bit) = place(row % LINE_ROWS);
        let column = out.chunks_exact_mut(column_lines(rows)).enumerate();
        for (k, column) in column {
            let bytes = &mut column[row / LINE_ROWS].0[byte..byte + count];
            for (m, byte) in bytes.iter_mut().enumerate() {
                *byte |= ((scratch[m * cols + k] + 1) as u8) << bit;
            }
        }
    }
}

/// `out[r] += Σ_k w[r, k] · xq[k]` for `w`, `[xq.len(), lines of a column of out.len() rows]`. So the columns of a matrix may be taken in parts,
/// by several threads into sums of their own.
///
/// # Panics
/// If `xq.len() > t2::MAX_COLS` or `w.len() != lines(out.len(), xq.len())`. Sums of more than `t2::MAX_COLS` columns together may overflow.
pub fn ternary_columns(isa: Isa, w: &[Line], xq: &[i8], out: &mut [i32]) {
    assert!(xq.len() <= t2::MAX_COLS, "at most t2::MAX_COLS columns");
    assert_eq!(w.len(), lines(out.len(), xq.len()), "w is [cols, lines of a column]");
    let columns = Columns {
        xq,
        stride: column_lines(out.len()),
    };
    match isa.ints() {
        IntIsa::Scalar => scalar::multiply(w, columns, out),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        IntIsa::Bytes(isa) => over_bytes(isa, w, columns, out),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        IntIsa::Bytes(_) => scalar::multiply(w, columns, out),
        #[cfg(target_arch = "x86_64")]
        IntIsa::Avx2(token) => enter!(
            "avx2", Avx2, token, (), (w: &[Line], columns: Columns<'_>, out: &mut [i32]), (), lanes::multiply
        ),
        #[cfg(target_arch = "x86_64")]
        IntIsa::Avx512(token) => enter!(
            "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", Avx512, token, (),
            (w: &[Line], columns: Columns<'_>, out: &mut [i32]), (), lanes::multiply
        ),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
byte_kernel! {
    /// See [`ternary_columns`].
    fn over_bytes(w: &[Line], columns: Columns<'_>, out: &mut [i32]) = lanes::multiply;
}

/// Where the columns of a product lie.
#[derive(Clone, Copy)]
struct Columns<'a> {
    xq: &'a [i8],
    /// Lines of a column.
    stride: usize,
}

/// Up to 64 columns with an activation that is not 0, in groups of four.
#[derive(Clone, Copy)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
struct Batch {
    /// Where the first line of each column is.
    lines: [[usize; 4]; BATCH / 4],
    x: [[i8; 4]; BATCH / 4],
    groups: usize,
    /// The greatest of the first `groups` of `lines`.
    last: usize,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl Batch {
    const EMPTY: Self = Self {
        lines: [[0; 4]; BATCH / 4],
        x: [[0; 4]; BATCH / 4],
        groups: 0,
        last: 0,
    };

    /// The columns from `*next` on, which moves behind them. The last group is filled up with a column times 0.
    fn fill(&mut self, columns: Columns<'_>, next: &mut usize) {
        let (lines, x) = (self.lines.as_flattened_mut(), self.x.as_flattened_mut());
        let (mut count, mut k) = (0, *next);
        // No branch on the value, which cannot be foreseen.
        while k < columns.xq.len() && count < BATCH {
            lines[count] = k * columns.stride;
            x[count] = columns.xq[k];
            count += usize::from(columns.xq[k] != 0);
            k += 1;
        }
        *next = k;
        self.groups = count.div_ceil(4);
        self.last = if count > 0 { lines[count - 1] } else { 0 };
        for i in count..4 * self.groups {
            lines[i] = self.last;
            x[i] = 0;
        }
    }
}
