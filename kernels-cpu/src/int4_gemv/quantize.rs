//! From floats to codes and steps, and back.

use half::f16;

use super::{BLOCK, BLOCK_BYTES, BLOCK_STEPS, GROUP, InputBlock, blocks, row_bytes, row_steps};
use crate::simd::{LANES, Simd, simd_kernel};

/// Steps that are tried for a group: the least of which no error exceeds a half, up to an eighth or a quarter more.
pub const CANDIDATES: usize = 9;
/// The code of 0.
const ZERO_CODE: u8 = 8;
/// Bytes of a group's codes.
const GROUP_BYTES: usize = GROUP / 2;
/// Activations below it count as zero: its reciprocal is a number.
const LEAST_INPUT: f32 = 1e-30;

impl InputBlock {
    /// Where the sums of each lane begin: −8 times the bytes that it is multiplied by.
    fn set_offsets(&mut self) {
        let (low, high) = (self.low.as_chunks::<4>().0, self.high.as_chunks::<4>().0);
        for (offset, (low, high)) in self.offsets.iter_mut().zip(low.iter().zip(high)) {
            let sum: i32 = low.iter().chain(high).map(|byte| i32::from(*byte)).sum();
            *offset = -8 * sum;
        }
    }
}

/// The steps to try for a group whose least step is `least`: that one, not rounded down, and further ones a thirty-second to a sixty-fourth
/// apart, which are 32 apart in the bits of an f16. Those that are not finite are infinite.
#[inline(always)]
fn candidates(least: f32, sign: f32) -> [f16; LANES] {
    let near = f16::from_f32_const(least);
    let first = near.to_bits() + u16::from(near.to_f32_const() < least);
    let sign = if sign < 0.0 { 1 << 15 } else { 0 };
    let mut steps = [f16::INFINITY; LANES];
    for i in 0..CANDIDATES {
        let bits = (first + 32 * i as u16).min(f16::INFINITY.to_bits());
        steps[i] = f16::from_bits(bits | sign);
    }
    steps
}

/// The group of a row that begins at column `32 · g`, filled up with zeros.
#[inline(always)]
fn group(row: &[f32], g: usize) -> [f32; GROUP] {
    let mut full = [0.0; GROUP];
    let part = &row[row.len().min(g * GROUP)..row.len().min((g + 1) * GROUP)];
    full[..part.len()].copy_from_slice(part);
    full
}

/// The two halves of a group, each in sixteen lanes.
#[inline(always)]
fn load<S: Simd>(s: S, w: &[f32; GROUP]) -> [S::F; 2] {
    let (halves, _) = w.as_chunks::<LANES>();
    [s.load(&halves[0]), s.load(&halves[1])]
}

/// Quantises a group: its step and the sixteen bytes of its codes.
#[inline(always)]
fn quantize_group<S: Simd>(s: S, w: &[f32; GROUP]) -> (f16, [u8; GROUP_BYTES]) {
    let (v, zero) = (load(s, w), s.splat(0.0));
    let above = s.reduce_max(s.max(v[0], v[1]));
    let below = s.reduce_max(s.max(s.sub(zero, v[0]), s.sub(zero, v[1])));
    let (sign, large, small) = if above > below {
        (-1.0, above, below)
    } else {
        (1.0, below, above)
    };
    let least = (large / 8.5).max(small / 7.5);
    if least == 0.0 {
        return (f16::ZERO, [ZERO_CODE | ZERO_CODE << 4; GROUP_BYTES]);
    }
    let steps = candidates(least, sign);
    let (mut wide, mut inverse) = ([0.0; LANES], [0.0; LANES]);
    s.store(s.load_f16(&steps), &mut wide);
    s.store(s.div(s.splat(1.0), s.load_f16(&steps)), &mut inverse);
    let (lowest, highest) = (s.splat(-8.0), s.splat(7.0));
    // An infinite step makes no number, which is never the least.
    let mut best = (f32::INFINITY, f16::INFINITY, [zero; 2]);
    for i in 0..CANDIDATES {
        let mut q = [zero; 2];
        let mut squares = zero;
        for h in 0..2 {
            q[h] = s.round(s.mul(v[h], s.splat(inverse[i])));
            q[h] = s.min(s.max(q[h], lowest), highest);
            let error = s.fnma(q[h], s.splat(wide[i]), v[h]);
            squares = s.fma(error, error, squares);
        }
        let squares = s.reduce_sum(squares);
        if squares < best.0 {
            best = (squares, steps[i], q);
        }
    }
    let mut q = [[0i8; LANES]; 2];
    s.store_i8(best.2[0], &mut q[0]);
    s.store_i8(best.2[1], &mut q[1]);
    let mut codes = [0; GROUP_BYTES];
    for j in 0..GROUP_BYTES {
        codes[j] = (q[0][j] + 8) as u8 | ((q[1][j] + 8) as u8) << 4;
    }
    (best.1, codes)
}

#[inline(always)]
fn quantize_body<S: Simd>(s: S, w: &[f32], cols: usize, codes: &mut [u8], steps: &mut [f16]) {
    let rows = w.len().checked_div(cols).unwrap_or(0);
    assert_eq!(w.len(), rows * cols, "w is [rows, cols]");
    assert_eq!(codes.len(), rows * row_bytes(cols), "codes are [rows, blocks, 64]");
    assert_eq!(steps.len(), rows * row_steps(cols), "steps are [rows, blocks, 4]");
    let (codes, _) = codes.as_chunks_mut::<GROUP_BYTES>();
    let groups = row_steps(cols);
    for r in 0..rows {
        let row = &w[r * cols..(r + 1) * cols];
        for g in 0..groups {
            (steps[r * groups + g], codes[r * groups + g]) = quantize_group(s, &group(row, g));
        }
    }
}

simd_kernel! {
    /// Quantises `w`, `[rows, cols]`, to `codes` `[rows, blocks, 64]` and `steps` `[rows, blocks, 4]`: no weight is off by more than half its
    /// step. Weights are finite; beyond ±491,000 a step may not be.
    ///
    /// # Panics
    /// If the lengths do not fit one another.
    pub fn quantize(w: &[f32], cols: usize, codes: &mut [u8], steps: &mut [f16]) = quantize_body;
}

#[inline(always)]
fn quantize_input_body<S: Simd>(s: S, x: &[f32], cols: usize, out: &mut [InputBlock]) {
    let tokens = x.len().checked_div(cols).unwrap_or(0);
    assert_eq!(x.len(), tokens * cols, "x is [tokens, cols]");
    assert_eq!(out.len(), tokens * blocks(cols), "out is [tokens, blocks]");
    let (lowest, highest) = (s.splat(-127.0), s.splat(127.0));
    for t in 0..tokens {
        let row = &x[t * cols..(t + 1) * cols];
        for b in 0..blocks(cols) {
            let out = &mut out[t * blocks(cols) + b];
            for i in 0..BLOCK_STEPS {
                let v = load(s, &group(row, b * BLOCK_STEPS + i));
                let most = s.reduce_max(s.max(s.abs(v[0]), s.abs(v[1]))).max(LEAST_INPUT);
                // 0, or NaN where a value is not finite: that must not be lost in a byte.
                let rest = s.reduce_sum(s.add(s.sub(v[0], v[0]), s.sub(v[1], v[1])));
                out.steps[i] = most / 127.0 + rest;
                let scale = s.splat(127.0 / most);
                let (low, _) = out.low.as_chunks_mut::<LANES>();
                let (high, _) = out.high.as_chunks_mut::<LANES>();
                s.store_i8(s.min(s.max(s.round(s.mul(v[0], scale)), lowest), highest), &mut low[i]);
                s.store_i8(s.min(s.max(s.round(s.mul(v[1], scale)), lowest), highest), &mut high[i]);
            }
            out.set_offsets();
        }
    }
}

simd_kernel! {
    /// Quantises each group of each token of `x`, `[tokens, cols]`, by its own largest magnitude, into `out`, `[tokens, blocks]`:
    /// `p = clamp(round(x · 127/max|x|), −127, 127)`, the step `max|x| / 127`, or NaN in a group with a value that is not finite.
    ///
    /// # Panics
    /// If the lengths do not fit one another.
    pub fn quantize_input(x: &[f32], cols: usize, out: &mut [InputBlock]) = quantize_input_body;
}

/// Activations that are bytes already, a scale a token (`x = xq / s`, ARCHITECTURE.md §2.1), as blocks whose groups all have the step `1 / s`: `xq` `[tokens, stride]`, of which the
/// first `cols` of each row count, `scales` `[tokens]`, `out` `[tokens, blocks]`.
///
/// The bytes may be any and stay what they are, so [`gemv`](super::gemv) is `Σ_g step_w · (1/s) · Σ q·xq` in its fixed order. Portable: they change their
/// places, once for all rows.
///
/// # Panics
/// If the lengths do not fit one another, or rows are shorter than `cols`.
pub fn input_of_bytes(xq: &[i8], stride: usize, cols: usize, scales: &[f32], out: &mut [InputBlock]) {
    assert!(cols <= stride, "rows of xq hold cols");
    assert_eq!(xq.len(), scales.len() * stride, "xq is [tokens, stride]");
    assert_eq!(out.len(), scales.len() * blocks(cols), "out is [tokens, blocks]");
    let rows = xq.chunks_exact(stride.max(1)).zip(scales);
    for ((xq, s), out) in rows.zip(out.chunks_exact_mut(blocks(cols).max(1))) {
        for (xq, block) in xq[..cols].chunks(BLOCK).zip(out) {
            *block = InputBlock::ZERO;
            block.steps = [1.0 / s; BLOCK_STEPS];
            // A group is 16 bytes of the low halves and then 16 of the high ones.
            for (g, xq) in xq.chunks(GROUP).enumerate() {
                let (low, high) = xq.split_at(xq.len().min(LANES));
                block.low[g * LANES..][..low.len()].copy_from_slice(low);
                block.high[g * LANES..][..high.len()].copy_from_slice(high);
            }
            block.set_offsets();
        }
    }
}

/// The activations `[tokens, cols]` that the blocks stand for, rounded to f32.
///
/// # Panics
/// If the lengths do not fit one another.
pub fn dequantize_input(x: &[InputBlock], cols: usize, out: &mut [f32]) {
    let tokens = out.len().checked_div(cols).unwrap_or(0);
    assert_eq!(out.len(), tokens * cols, "out is [tokens, cols]");
    assert_eq!(x.len(), tokens * blocks(cols), "x is [tokens, blocks]");
    for (out, x) in out.chunks_mut(cols.max(1)).zip(x.chunks(blocks(cols).max(1))) {
        for (out, x) in out.chunks_mut(BLOCK).zip(x) {
            for (i, out) in out.chunks_mut(LANES).enumerate() {
                let bytes = if i % 2 == 0 { &x.low } else { &x.high };
                for (out, byte) in out.iter_mut().zip(&bytes[i / 2 * LANES..]) {
                    *out = f32::from(*byte) * x.steps[i / 2];
                }
            }
        }
    }
}

/// The weights `[rows, cols]` as f32, exactly.
///
/// # Panics
/// If the lengths do not fit one another.
pub fn dequantize(codes: &[u8], steps: &[f16], cols: usize, out: &mut [f32]) {
    let rows = out.len().checked_div(cols).unwrap_or(0);
    assert_eq!(out.len(), rows * cols, "out is [rows, cols]");
    assert_eq!(codes.len(), rows * row_bytes(cols), "codes are [rows, blocks, 64]");
    assert_eq!(steps.len(), rows * row_steps(cols), "steps are [rows, blocks, 4]");
    for r in 0..rows {
        let codes = codes[r * row_bytes(cols)..].chunks(GROUP_BYTES);
        let groups = out[r * cols..(r + 1) * cols].chunks_mut(GROUP);
        for ((out, codes), step) in groups.zip(codes).zip(&steps[r * row_steps(cols)..]) {
            let step = step.to_f32_const();
            for (k, out) in out.iter_mut().enumerate() {
                let code = (codes[k % GROUP_BYTES] >> (k / GROUP_BYTES * 4)) & 15;
                *out = f32::from(code as i8 - ZERO_CODE as i8) * step;
            }
        }
    }
}

/// Whether the codes `[rows, blocks, 64]` of `cols` columns are those of 0 past the end of each row.
pub fn is_padded(codes: &[u8], cols: usize) -> bool {
    let tail = cols % BLOCK;
    tail == 0
        || codes.chunks(row_bytes(cols)).all(|row| {
            let last = &row[row.len().saturating_sub(BLOCK_BYTES)..];
            last.iter().enumerate().all(|(j, byte)| {
                let column = j / GROUP_BYTES * GROUP + j % GROUP_BYTES;
                let low = column < tail || byte & 15 == ZERO_CODE;
                low && (column + GROUP_BYTES < tail || byte >> 4 == ZERO_CODE)
            })
        })
}
