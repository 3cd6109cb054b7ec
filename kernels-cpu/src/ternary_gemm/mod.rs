//! `out[t, r] = Σ_k x[t,k] · w[r,k]` for packed ternary or binary weights and byte activations of many tokens, exact `i32`.
//!
//! Weights are in the [`t2`] layout, or in [`t5`](crate::t5) or [`b1`](crate::b1), which differ in how a panel is opened. A panel of up to 64 rows is opened once into `scratch` and then meets all
//! tokens (up to [`PASS`] at a time). In the panel a lane is a row, so sums need no fold at the end:
//!
//! ```text
//! panel step s (columns 4s..4s+4):   [row 0: 4 codes] [row 1: 4 codes] … [row 15: 4 codes]   64 bytes, × vectors of rows
//! token t, step s:                   4 activations, broadcast to every lane
//! acc[t][row] += codes · activations                     (one byte dot product: 64 multiply-adds)
//! ```
//!
//! The tile is 64 rows by 6 tokens in registers (24 accumulators): 10 loads feed 24 dot products, which leaves the dot
//! product unit as the only limit. Codes are `w + 1`; each accumulator starts at `−Σ x` of its token (see
//! [`ternary_gemv`](crate::ternary_gemv)). Opening a panel is a 16 × 16 transposition of packed words, then shift and
//! mask: about the cost of six tokens, so up to [`FEW`] tokens go through the GEMV instead.
//!
//! Past the last column the code is 1, weight 0, so what `x` is there does not matter. `b1` has no such code: its codes are 0 and 2, 0 past the
//! last column, and `Σ x` is taken over the columns alone.
//!
//! AVX2 has no such dot product: there `maddubs` sums pairs in 16 bits, widened every 32 steps, and is limited to about a
//! sixth of the rate. AVX-VNNI, NEON and its dot product share a body ([`Bytes`](crate::bytes::Bytes)) with tiles of 16 rows by six tokens.
//! FEAT_I8MM multiplies pairs of rows by pairs of tokens, at twice the rate of its dot product, from panels of its own form. The portable
//! path opens one row at a time.
//!
//! Sums are taken of the input once for all panels. [`ternary_gemm_scaled`] goes on to the linear's output, in the registers on AVX-512.
//!
//! Cost: `tokens · rows · cols` multiply-adds; the panel and six tokens stay in the caches.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;
pub(crate) mod bytes;
#[cfg(target_arch = "aarch64")]
pub(crate) mod i8mm;
mod open;
mod scalar;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
use crate::isa::Isa;
use crate::t2;
use crate::ternary::{Layout, padded_cols};
use crate::ternary_gemv::ternary_gemv;

/// Rows of a panel.
const PANEL_ROWS: usize = 64;
/// Tokens that a panel meets before the next one is opened: their sums fit on the stack, their activations in L3.
const PASS: usize = 1024;
/// Up to this many tokens the GEMV is faster.
const FEW: usize = 12;
/// Most columns: the portable path and the GEMV are exact up to here, and so is a 32-bit lane of any path, which holds
/// at most `3 · 128 · cols` in magnitude.
const MAX_COLS: usize = t2::MAX_COLS;

/// Bytes of scratch that [`ternary_gemm`] needs for every layout: an opened panel and room to align it.
pub const fn scratch_len(cols: usize) -> usize {
    PANEL_ROWS * padded_cols(cols) + 63
}

/// `out[t, r] = Σ_k xq[t,k] · w[r,k]`: `w` packed `[rows, cols]`, `xq` `[tokens, stride]` with a stride of at least
/// `layout.padded_cols(cols)`, `out` `[tokens, rows]`. The values of `xq` beyond column `cols` do not count. The result does not depend on how tokens are split over calls.
///
/// # Panics
/// If `cols > t2::MAX_COLS`, `w.len() != layout.bytes(rows, cols)`, `xq` is not `[tokens, stride]`,
/// `out.len() != tokens * rows` or `scratch.len() < scratch_len(cols)`.
pub fn ternary_gemm(
    isa: Isa,
    layout: Layout,
    w: &[u8],
    rows: usize,
    cols: usize,
    xq: &[i8],
    tokens: usize,
    out: &mut [i32],
    scratch: &mut [u8],
) {
    run(isa, layout, w, rows, cols, xq, tokens, None, out, scratch);
}

/// `out[t, r] = factors[t] · Σ_k xq[t,k] · w[r,k]`, the output of a linear with `factors[t] = γ/s_t` (ARCHITECTURE.md §2.1): as
/// [`ternary_gemm`], with the sums scaled as they leave the registers where a path can, else in place.
///
/// # Panics
/// As [`ternary_gemm`], and if `factors.len() != tokens`.
pub fn ternary_gemm_scaled(
    isa: Isa,
    layout: Layout,
    w: &[u8],
    rows: usize,
    cols: usize,
    xq: &[i8],
    factors: &[f32],
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let words = as_words(out);
    run(
        isa,
        layout,
        w,
        rows,
        cols,
        xq,
        factors.len(),
        Some(factors),
        words,
        scratch,
    );
}

/// The same memory as words, whose bits are floats when a scaled product is done.
fn as_words(out: &mut [f32]) -> &mut [i32] {
    // SAFETY: f32 and i32 have the same size and alignment, and every bit pattern is a value of both.
    unsafe { core::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) }
}

/// Sums, `[tokens, rows]`, become the bits of `factor · sum`.
fn scale_in_place(factors: &[f32], rows: usize, words: &mut [i32]) {
    for (words, factor) in words.chunks_exact_mut(rows.max(1)).zip(factors) {
        for word in words {
            *word = (*word as f32 * factor).to_bits() as i32;
        }
    }
}

fn run(
    isa: Isa,
    layout: Layout,
    w: &[u8],
    rows: usize,
    cols: usize,
    xq: &[i8],
    tokens: usize,
    factors: Option<&[f32]>,
    out: &mut [i32],
    scratch: &mut [u8],
) {
    assert!(cols <= MAX_COLS, "at most t2::MAX_COLS columns");
    assert_eq!(w.len(), layout.bytes(rows, cols), "w is packed [rows, cols]");
    let stride = xq.len() / tokens.max(1);
    assert!(xq.len() == tokens * stride, "xq is [tokens, stride]");
    assert!(
        tokens == 0 || stride >= layout.padded_cols(cols),
        "xq is padded to whole blocks"
    );
    assert_eq!(out.len(), tokens * rows, "out is [tokens, rows]");
    assert!(scratch.len() >= scratch_len(cols), "scratch holds scratch_len(cols)");
    if out.is_empty() || w.is_empty() {
        out.fill(0);
        return;
    }
    if tokens <= FEW {
        // Panel by panel, so that the weights come from memory once.
        for (p, panel) in w.chunks(layout.bytes(PANEL_ROWS, cols)).enumerate() {
            let first = p * PANEL_ROWS;
            for (x, out) in xq.chunks_exact(stride).zip(out.chunks_exact_mut(rows)) {
                ternary_gemv(
                    isa,
                    layout,
                    panel,
                    cols,
                    x,
                    &mut out[first..rows.min(first + PANEL_ROWS)],
                );
            }
        }
        return scale_in_place(factors.unwrap_or_default(), rows, out);
    }
    let job = Job {
        layout,
        rows,
        cols,
        stride,
        factors,
    };
    #[cfg(target_arch = "x86_64")]
    if let IntIsa::Avx512(token) = isa.ints() {
        // SAFETY: the token proves that the CPU has AVX-512 F, BW, DQ, VL and VNNI, and knows of VBMI.
        return unsafe { avx512vnni::gemm(&job, token.has_vbmi(), w, xq, out, aligned(scratch)) };
    }
    sums(isa, &job, w, xq, out, scratch);
    scale_in_place(factors.unwrap_or_default(), rows, out);
}

/// The paths that leave integer sums.
fn sums(isa: Isa, job: &Job, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [u8]) {
    #[cfg(target_arch = "aarch64")]
    if let Isa::I8mm(_) = isa {
        // SAFETY: the token proves that the CPU has FEAT_I8MM and NEON.
        return unsafe { i8mm::gemm(job, w, xq, out, aligned(scratch)) };
    }
    match isa.ints() {
        IntIsa::Bytes(isa) => bytes::gemm(isa, job, w, xq, out, aligned(scratch)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX2.
        IntIsa::Avx2(_) => unsafe { avx2::gemm(job, w, xq, out, aligned(scratch)) },
        // AVX-512 does not come here.
        _ => scalar::gemm(job, w, xq, out, scratch),
    }
}

/// What every path needs to know of a product.
struct Job<'a> {
    layout: Layout,
    rows: usize,
    cols: usize,
    /// Bytes of a token.
    stride: usize,
    /// What each token's sums are multiplied by as they are stored, for a path that does it: AVX-512 does.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    factors: Option<&'a [f32]>,
}

impl Job<'_> {
    /// The first values of a token whose sum is taken off its products, of the `whole` whose codes are multiplied.
    fn counted(&self, whole: usize) -> usize {
        if self.layout.has_zero() { whole } else { self.cols }
    }
}

/// `Σ x` over the first `len` values of each token.
fn sums_of(xq: &[i8], stride: usize, len: usize) -> [i32; PASS] {
    let mut sums = [0; PASS];
    for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(stride)) {
        *sum = x[..len].iter().map(|v| i32::from(*v)).sum();
    }
    sums
}

/// The whole 64-byte lines of `scratch`.
fn aligned(scratch: &mut [u8]) -> &mut [[u8; 64]] {
    let skip = scratch.as_ptr().align_offset(64).min(scratch.len());
    scratch[skip..].as_chunks_mut::<64>().0
}
