//! `out[t, r] = Σ_k w[r,k] · x[t,k]` for int4 weights with a step for each group of 32 columns: an int4 head, an int4 linear.
//!
//! `w = q · step`, `q` in −8..=7 and `step` an f16. The activations of a group are bytes with a step of their own, `x = p · max|x| / 127`, one f32 for
//! each token and group, so that an outlier costs its own group alone ([`quantize_input`]). A linear's input has bytes already, and one scale a token,
//! `x = xq / s` (ARCHITECTURE.md §2.1): there all groups of a token have the step `1/s` ([`input_of_bytes`]). Products are byte dot products, exact, and the sum has a fixed order:
//!
//! ```text
//! lane 4·(g mod 4) + s   s(g) = Σ q·p over columns 4s..4s+4 and 16+4s..16+4s+4 of group g       exact, i32
//!                        acc  = fma(s(g) as f32, step of w · step of x, acc)                    over g, g + 4, …
//! out                    the sixteen lanes folded 8-4-2-1
//! ```
//!
//! with the product of the two steps rounded to f32. Groups past the end have steps of 0. Hence the same bits on every path and however
//! tokens and rows are split over calls and threads.
//!
//! ```text
//! row      blocks of 128 columns, four groups: 64 bytes and four f16, 4.5 bits a weight; what is past the end is 0
//! byte j   q + 8 of column 32·⌊j/16⌋ + j mod 16 in the low half, of the column 16 further in the high half        codes [rows, blocks, 64]
//! step     finite, of either sign, in an array of its own                                                      steps [rows, blocks, 4]
//! input    the bytes of a block in the same order: 64 for the low halves, 64 for the high ones            [tokens, blocks] InputBlock
//! ```
//!
//! So 64-, 32- and 16-byte registers all read codes and input in order, one mask for the low halves and a shift for the high ones. Codes are
//! unsigned: `Σ q·p = Σ (q+8)·p − 8·Σ p`, and the last term, the same for all rows, is where the sums begin ([`InputBlock`] holds it).
//! Bytes may be any: eight products of at most `15 · 128` and an offset of `8 · 8 · 128` are far from the end of 32 bits, and where four of
//! them meet in 16 bits (`vpmaddubsw` of either half, added) or two (`smull`, `addp`), they are at most `4 · 15 · 128 = 7680`.
//!
//! **The step of a group of weights** is that of [`CANDIDATES`] which has the least sum of squared errors, of steps for which no error exceeds
//! half a step. −8 is on the side of the largest magnitude, so a step can be negative; the least candidate puts a weight half a step
//! beyond an end. The error is an eighth less than with codes of ±7 for the largest magnitude.
//!
//! Cost: 4.5 bits a weight (of a row of fewer than 128 columns, of 128); AVX-512 takes 10 instructions for 128 weights: it runs at the memory's speed. With several tokens a block's codes
//! are opened once for four of them (`panels.rs`). As in [`dense_gemv`](crate::dense_gemv), rows side by side hide the latency of the chains, and what follows is asked for in address order meanwhile.

#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod quantize;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::f16;

use crate::isa::Isa;
use crate::simd::{LANES, Simd};

use panels::panels;
pub use quantize::{CANDIDATES, dequantize, dequantize_input, input_of_bytes, is_padded, quantize, quantize_input};

/// Columns that share a step.
pub const GROUP: usize = 32;
/// Columns of a block.
pub const BLOCK: usize = 4 * GROUP;
/// Bytes of a block's codes.
pub const BLOCK_BYTES: usize = BLOCK / 2;
/// Groups of a block.
pub const BLOCK_STEPS: usize = BLOCK / GROUP;

/// Rows side by side for one token.
const ROWS: usize = 4;
/// Blocks between the rows that are worked on and what is asked for: short rows alone would not be far enough.
const AHEAD_BLOCKS: usize = 256;

/// Blocks of a row of `cols` columns.
pub const fn blocks(cols: usize) -> usize {
    cols.div_ceil(BLOCK)
}

/// Bytes of the codes of a row of `cols` columns.
pub const fn row_bytes(cols: usize) -> usize {
    blocks(cols) * BLOCK_BYTES
}

/// Steps of a row of `cols` columns.
pub const fn row_steps(cols: usize) -> usize {
    blocks(cols) * BLOCK_STEPS
}

/// A token's activations of 128 columns, as [`quantize_input`] or [`input_of_bytes`] makes them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct InputBlock {
    /// What the low halves of the codes are multiplied by.
    low: [i8; BLOCK_BYTES],
    /// What the high halves are multiplied by.
    high: [i8; BLOCK_BYTES],
    /// −8 times the sum of the bytes of each lane.
    offsets: [i32; LANES],
    /// The step of each group.
    steps: [f32; BLOCK_STEPS],
}

impl InputBlock {
    /// Activations that are all 0.
    pub const ZERO: Self = Self {
        low: [0; BLOCK_BYTES],
        high: [0; BLOCK_BYTES],
        offsets: [0; LANES],
        steps: [0.0; BLOCK_STEPS],
    };
}

impl Default for InputBlock {
    fn default() -> Self {
        Self::ZERO
    }
}

/// What a path does for a block. Safe as the methods of [`Simd`] are: holding the token proves that the CPU has the instructions.
trait Dots: Copy {
    /// The sixteen lanes.
    type S: Simd;
    /// The codes of a block in registers.
    type Codes: Copy;

    /// The token of the lanes.
    fn simd(self) -> Self::S;
    /// Reads the codes of a block.
    fn open(self, codes: &[u8; BLOCK_BYTES]) -> Self::Codes;
    /// The integer sums of a block, as f32: at most `8 · 8 · 128`, so exact.
    fn sums(self, codes: Self::Codes, x: &InputBlock) -> <Self::S as Simd>::F;
    /// The steps of a block's weights, widened, each in its group's four lanes.
    fn weight_steps(self, w: &[f16; BLOCK_STEPS]) -> <Self::S as Simd>::F;
    /// Those of its activations, likewise.
    fn input_steps(self, x: &[f32; BLOCK_STEPS]) -> <Self::S as Simd>::F;
}

/// A row's blocks.
#[derive(Clone, Copy)]
struct Row<'a> {
    codes: &'a [[u8; BLOCK_BYTES]],
    steps: &'a [[f16; BLOCK_STEPS]],
}

/// Rows of `blocks` blocks.
#[derive(Clone, Copy)]
struct Rows<'a> {
    codes: &'a [[u8; BLOCK_BYTES]],
    steps: &'a [[f16; BLOCK_STEPS]],
    blocks: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn new(codes: &'a [u8], steps: &'a [f16], blocks: usize) -> Self {
        let (codes, more) = codes.as_chunks();
        let (steps, more_steps) = steps.as_chunks();
        let whole = more.is_empty() && more_steps.is_empty() && codes.len() == steps.len();
        assert!(
            whole && (blocks == 0 || codes.len().is_multiple_of(blocks)),
            "codes are [rows, blocks, 64], with a step for each group"
        );
        Self { codes, steps, blocks }
    }

    #[inline(always)]
    fn row(self, r: usize) -> Row<'a> {
        let at = r * self.blocks..(r + 1) * self.blocks;
        Row {
            codes: &self.codes[at.clone()],
            steps: &self.steps[at],
        }
    }
}

/// `R` rows by the first `T` tokens of `x`. With `AHEAD` as many rows after the last are asked for meanwhile.
#[inline(always)]
fn dots<D: Dots, const R: usize, const T: usize, const AHEAD: bool>(
    d: D,
    w: [Row<'_>; R],
    x: &[InputBlock],
) -> [[f32; T]; R] {
    let s = d.simd();
    let blocks = w[0].codes.len();
    // Only hints: past the last row they point at nothing that is read.
    let last = w[R - 1];
    let next_codes = last.codes.as_ptr_range().end.wrapping_add(AHEAD_BLOCKS);
    let next_steps = last.steps.as_ptr_range().end.wrapping_add(AHEAD_BLOCKS);
    // Cut to one length, so that the compiler sees every index inside.
    let mut w = w;
    for r in 0..R {
        w[r].codes = &w[r].codes[..blocks];
        w[r].steps = &w[r].steps[..blocks];
    }
    let mut xs = [&x[..0]; T];
    for t in 0..T {
        xs[t] = &x[t * blocks..][..blocks];
    }
    let mut acc = [[s.splat(0.0); T]; R];
    for b in 0..blocks {
        if AHEAD {
            for r in 0..R {
                s.prefetch(next_codes.wrapping_add(b * R + r));
            }
            s.prefetch(next_steps.wrapping_add(b * R));
        }
        // What is of a row alone once for all tokens, what is of a token once for all rows.
        let mut codes = [d.open(&w[0].codes[b]); R];
        let mut steps = [d.weight_steps(&w[0].steps[b]); R];
        for r in 1..R {
            (codes[r], steps[r]) = (d.open(&w[r].codes[b]), d.weight_steps(&w[r].steps[b]));
        }
        for t in 0..T {
            let x = &xs[t][b];
            let by = d.input_steps(&x.steps);
            for r in 0..R {
                acc[r][t] = s.fma(d.sums(codes[r], x), s.mul(steps[r], by), acc[r][t]);
            }
        }
    }
    s.reduce_tile(acc)
}

#[inline(always)]
fn gemv_body<D: Dots>(d: D, codes: &[u8], steps: &[f16], x: &[InputBlock], tokens: usize, out: &mut [f32]) {
    let blocks = x.len().checked_div(tokens).unwrap_or(0);
    let rows = out.len().checked_div(tokens).unwrap_or(0);
    assert_eq!(x.len(), tokens * blocks, "x is [tokens, blocks]");
    assert_eq!(out.len(), tokens * rows, "out is [tokens, rows]");
    if out.is_empty() {
        return;
    }
    let w = Rows::new(codes, steps, blocks);
    assert_eq!(w.codes.len(), rows * blocks, "codes are [rows, blocks, 64]");
    match tokens {
        1 => panels::<D, ROWS, 1>(d, w, x, rows, out),
        _ if <D::S as Simd>::REGISTERS >= 32 => panels::<D, 3, 4>(d, w, x, rows, out),
        _ => panels::<D, 1, 4>(d, w, x, rows, out),
    }
}

#[inline(always)]
fn gather_body<D: Dots>(d: D, codes: &[u8], steps: &[f16], x: &[InputBlock], rows: &[u32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len(), "out is [rows.len()]");
    let w = Rows::new(codes, steps, x.len());
    let (fours, rest) = rows.as_chunks::<ROWS>();
    let (out_fours, out_rest) = out.as_chunks_mut::<ROWS>();
    for (rows, out) in fours.iter().zip(out_fours) {
        let mut side = [w.row(rows[0] as usize); ROWS];
        for i in 1..ROWS {
            side[i] = w.row(rows[i] as usize);
        }
        let sums = dots::<D, ROWS, 1, false>(d, side, x);
        out.copy_from_slice(sums.as_flattened());
    }
    for (&row, out) in rest.iter().zip(out_rest) {
        *out = dots::<D, 1, 1, false>(d, [w.row(row as usize)], x)[0][0];
    }
}

/// Makes the public entry of a kernel, which calls `body(token, args…)` under the `#[target_feature]` of each path's token.
macro_rules! int4_kernel {
    ($(#[$meta:meta])* pub fn $name:ident ($($arg:ident : $ty:ty),* $(,)?) = $body:path;) => {
        $(#[$meta])*
        pub fn $name(isa: Isa, $($arg: $ty),*) {
            match isa {
                Isa::Scalar(d) => $body(d, $($arg),*),
                #[cfg(arm_dsp)]
                Isa::Dsp(_) => $body(crate::isa::Scalar, $($arg),*),
                #[cfg(target_feature = "simd128")]
                Isa::Simd128(_) => $body(crate::isa::Scalar, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2(d) => crate::simd::enter!(
                    "avx2,fma,f16c", crate::isa::Avx2, d, (), ($($arg: $ty),*), (), $body
                ),
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni(token) => match x86::of(token) {
                    x86::Encoding::Vex(d) => crate::simd::enter!(
                        "avx2,fma,f16c,avxvnni", x86::Vex, d, (), ($($arg: $ty),*), (), $body
                    ),
                    x86::Encoding::Evex(d) => crate::simd::enter!(
                        "avx2,fma,f16c,avx512f,avx512vl,avx512vnni", x86::Evex, d, (), ($($arg: $ty),*), (), $body
                    ),
                },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512(d) => crate::simd::enter!(
                    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
                    crate::isa::Avx512, d, (), ($($arg: $ty),*), (), $body
                ),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon(d) => crate::simd::enter!(
                    "neon", crate::isa::Neon, d, (), ($($arg: $ty),*), (), $body
                ),
                #[cfg(target_arch = "aarch64")]
                Isa::Dotprod(d) => crate::simd::enter!(
                    "neon,dotprod", crate::isa::Dotprod, d, (), ($($arg: $ty),*), (), $body
                ),
                #[cfg(target_arch = "aarch64")]
                Isa::I8mm(token) => {
                    let d = token.dotprod();
                    crate::simd::enter!(
                        "neon,dotprod", crate::isa::Dotprod, d, (), ($($arg: $ty),*), (), $body
                    )
                }
            }
        }
    };
}

int4_kernel! {
    /// `out[t, r] = Σ_k w[r,k] · x[t,k]`: `codes` `[rows, blocks, 64]`, `steps` `[rows, blocks, 4]`, `x` `[tokens, blocks]`, `out` `[tokens, rows]`.
    /// Steps are finite; codes may be any.
    ///
    /// # Panics
    /// If `x.len()` or `out.len()` is not a multiple of `tokens`, or `codes` and `steps` are not of `rows` rows of as many blocks.
    pub fn gemv(codes: &[u8], steps: &[f16], x: &[InputBlock], tokens: usize, out: &mut [f32]) = gemv_body;
}

int4_kernel! {
    /// `out[i] = Σ_k w[rows[i], k] · x[k]`: some rows of `codes` `[rows, blocks, 64]` and `steps` `[rows, blocks, 4]`, `x` `[blocks]`, one token.
    ///
    /// The sums are those of all rows at once, bit for bit.
    ///
    /// # Panics
    /// If `codes` and `steps` are not of whole rows of as many blocks or have no such row, or `out` is not as long as `rows`.
    pub fn gather(codes: &[u8], steps: &[f16], x: &[InputBlock], rows: &[u32], out: &mut [f32]) = gather_body;
}
