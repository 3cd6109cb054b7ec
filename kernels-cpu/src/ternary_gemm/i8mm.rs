//! FEAT_I8MM: `smmla` multiplies two rows by two tokens over eight columns. Tiles of 16 rows by four tokens, 16 accumulators.
//!
//! A panel's step is eight columns of 16 rows, so that the operand of a pair of rows is one load:
//!
//! ```text
//! step s (columns 8s..8s+8):   [row 0: 8 codes][row 1: 8 codes] … [row 15: 8 codes]   128 bytes, eight registers
//! tokens t, t+1, step s:       [t: 8 activations][t+1: 8 activations]                  one register
//! acc[pair of rows][pair of tokens] = [row 0 · t, row 0 · t+1, row 1 · t, row 1 · t+1]  32 multiply-adds an instruction
//! ```

use core::arch::aarch64::*;
use core::arch::asm;

use super::open::{PANEL, open};
use super::{Job, PASS, sums_of};
use crate::t2::GROUP_ROWS;

/// Pairs of rows of a panel.
const ROW_PAIRS: usize = PANEL / 2;
/// Pairs of tokens of a tile.
const TOKEN_PAIRS: usize = 2;

/// `acc + a·bᵀ` of two rows of eight bytes each. The intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of this function's target feature, between registers.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    acc
}

/// See [`super::ternary_gemm`].
#[target_feature(enable = "neon,i8mm")]
pub(super) fn gemm(job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let steps = job.cols.div_ceil(8);
    let groups = PANEL / GROUP_ROWS * job.layout.group_bytes(job.cols);
    for (xq, out) in xq.chunks(PASS * job.stride).zip(out.chunks_mut(PASS * job.rows)) {
        let sums = sums_of(xq, job.stride, job.counted(8 * steps));
        for (p, groups) in w.chunks(groups).enumerate() {
            open(job, groups, scratch, |step, row| {
                (step / 2 * PANEL + row) * 2 + step % 2
            });
            let (panel, row0) = (&scratch.as_chunks::<2>().0[..steps], p * PANEL);
            tiles(job.stride, job.rows, panel, xq, &sums, out, row0);
        }
    }
}

/// Takes all tokens through an opened panel: `out[t, r] = Σ codes·x − sums[t]`, modulo 2^32, codes as signed bytes.
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn tiles(
    stride: usize,
    rows: usize,
    panel: &[[[u8; 64]; 2]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    row0: usize,
) {
    let tokens = 2 * TOKEN_PAIRS;
    for (t, (x, out)) in xq
        .chunks(tokens * stride)
        .zip(out.chunks_mut(tokens * rows))
        .enumerate()
    {
        tile(stride, rows, panel, x, &sums[tokens * t..], out, row0);
    }
}

/// Sixteen rows by up to four tokens, those of `xq`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn tile(
    stride: usize,
    all_rows: usize,
    panel: &[[[u8; 64]; 2]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    row0: usize,
) {
    let tokens = xq.len() / stride;
    let x: [&[[i8; 8]]; 2 * TOKEN_PAIRS] = core::array::from_fn(|t| {
        // Past the last token, its values again: nobody reads those sums.
        let t = t.min(tokens - 1);
        &xq[t * stride..(t + 1) * stride].as_chunks::<8>().0[..panel.len()]
    });
    let mut acc = [[vdupq_n_s32(0); ROW_PAIRS]; TOKEN_PAIRS];
    for (s, step) in panel.iter().enumerate() {
        let mut pairs = [vdupq_n_s8(0); TOKEN_PAIRS];
        for t in 0..TOKEN_PAIRS {
            // SAFETY: each of `x` was cut to the panel's length, so `s` lies inside it.
            pairs[t] = unsafe {
                let (a, b) = (x[2 * t].get_unchecked(s), x[2 * t + 1].get_unchecked(s));
                vcombine_s8(vld1_s8(a.as_ptr()), vld1_s8(b.as_ptr()))
            };
        }
        // Unrolled by hand: the compiler will not, and keeps the sums in memory.
        macro_rules! rows {
            ($($r:literal)*) => {
                $(
                    // SAFETY: sixteen of the 64 bytes of half `r / 4` of the step.
                    let rows = unsafe { vld1q_s8(step[$r / 4].as_ptr().cast::<i8>().add(16 * ($r % 4))) };
                    acc[0][$r] = smmla(acc[0][$r], rows, pairs[0]);
                    acc[1][$r] = smmla(acc[1][$r], rows, pairs[1]);
                )*
            };
        }
        rows!(0 1 2 3 4 5 6 7);
    }
    for (t, out) in out.chunks_exact_mut(all_rows).enumerate() {
        let mut lanes = [0i32; PANEL];
        for r in 0..ROW_PAIRS {
            let mut four = [0i32; 4];
            // SAFETY: `four` is sixteen bytes.
            unsafe { vst1q_s32(four.as_mut_ptr(), acc[t / 2][r]) };
            lanes[2 * r] = four[t % 2] - sums[t];
            lanes[2 * r + 1] = four[2 + t % 2] - sums[t];
        }
        let row = &mut out[row0..];
        let n = row.len().min(PANEL);
        row[..n].copy_from_slice(&lanes[..n]);
    }
}
