//! `out[t, r] = Σ_k x[t,k] · w[r,k]` for byte weights and byte activations of many tokens, exact `i32`.
//!
//! The sums of [`int8_gemv`] by the tiles of [`ternary_gemm`](crate::ternary_gemm): a panel of rows is brought into the order of the tiles once, in
//! `scratch`, and then meets all tokens. Nothing is to be opened, only four columns of each row are put side by side:
//!
//! ```text
//! row-major   [row 0: all columns] [row 1: all columns] …
//! panel       step s (columns 4s..4s+4):   [row 0: 4 bytes] [row 1: 4 bytes] … [row 15: 4 bytes]   64 bytes, × vectors of rows
//! ```
//!
//! The dot products of x86 take one unsigned operand: there the bytes of a panel are `w + 128`, the top bit flipped, and the sums begin at
//! `−128 · Σ x`, in wrapping arithmetic, of which only the result need fit. What is past the last column is weight 0.
//!
//! AVX-512 takes panels of 64 rows by tiles of six tokens, [`Bytes`](crate::bytes::Bytes) 16 rows by six, `smmla` 16 rows by four. AVX2 has no
//! tile: pairs of `w + 128` times `x` do not fit in the 16 bits of `maddubs`, and bytes widened to 16 bits and multiplied by `madd` are what
//! the GEMV does. It takes a panel of rows through the tokens while it is in the cache, and so does the portable path, and every path for up
//! to [`FEW`] tokens.
//!
//! Cost: `tokens · rows · cols` multiply-adds; a panel costs about as much as six tokens. Measured on one thread of
//! an EPYC (Zen 4) at 64 tokens, shapes 1024×1024, 8192×320, 512×1408 and 1024×2560, in billions of operations a second: AVX-512 371 to 408
//! where the GEMV does 128 to 212 token by token, 256-bit VNNI 273 to 326 where it does 131 to 196, AVX2 the GEMV's 76 to 85.

#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod bytes;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
use crate::int8_gemv::{MAX_COLS, int8_gemv};
use crate::isa::Isa;

/// Rows of a panel.
const PANEL_ROWS: usize = 64;
/// Tokens that a panel meets before the next one is laid out: their sums fit on the stack.
const PASS: usize = 1024;
/// Up to this many tokens the GEMV is as fast, and needs no scratch.
pub const FEW: usize = 3;
/// Columns of the longest step of a path.
const STEP: usize = 8;

/// Least bytes of a token: `cols` rounded up to whole steps.
pub const fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(STEP)
}

/// Bytes of scratch that [`int8_gemm`] needs: a panel and room to align it.
pub const fn scratch_len(cols: usize) -> usize {
    PANEL_ROWS * padded_cols(cols) + 63
}

/// Whether a path has tiles of byte products, which do several times as many multiply-adds as those of floats.
pub fn has_tiles(isa: Isa) -> bool {
    match isa.ints() {
        #[cfg(target_arch = "x86_64")]
        IntIsa::Avx512(_) => true,
        IntIsa::Bytes(_) => true,
        _ => false,
    }
}

/// `out[t, r] = Σ_k xq[t,k] · w[r,k]`: `w` `[rows, cols]`, `xq` `[tokens, stride]` with a stride of at least `padded_cols(cols)`, `out`
/// `[tokens, rows]`. The values of `xq` beyond column `cols` do not count. The sums are those of [`int8_gemv`].
///
/// # Panics
/// If `cols > int8_gemv::MAX_COLS`, `w.len() != rows * cols`, `xq` is not `[tokens, stride]`, `out.len() != tokens * rows`, or, with more than [`FEW`] tokens,
/// `scratch.len() < scratch_len(cols)`.
pub fn int8_gemm(
    isa: Isa,
    w: &[i8],
    rows: usize,
    cols: usize,
    xq: &[i8],
    tokens: usize,
    out: &mut [i32],
    scratch: &mut [u8],
) {
    assert!(cols <= MAX_COLS, "at most int8_gemv::MAX_COLS columns");
    assert_eq!(w.len(), rows * cols, "w is [rows, cols]");
    let stride = xq.len() / tokens.max(1);
    assert!(xq.len() == tokens * stride, "xq is [tokens, stride]");
    assert!(
        tokens == 0 || stride >= padded_cols(cols),
        "xq is padded to whole steps"
    );
    assert_eq!(out.len(), tokens * rows, "out is [tokens, rows]");
    if out.is_empty() || w.is_empty() {
        out.fill(0);
        return;
    }
    let job = Job { rows, cols, stride };
    if tokens <= FEW {
        return job.by_gemv(isa, w, xq, out);
    }
    assert!(scratch.len() >= scratch_len(cols), "scratch holds scratch_len(cols)");
    #[cfg(target_arch = "aarch64")]
    if let Isa::I8mm(_) = isa {
        // SAFETY: the token proves that the CPU has FEAT_I8MM and NEON.
        return unsafe { i8mm::gemm(&job, w, xq, out, aligned(scratch)) };
    }
    match isa.ints() {
        IntIsa::Bytes(isa) => bytes::gemm(isa, &job, w, xq, out, aligned(scratch)),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX-512 F, BW, DQ, VL and VNNI.
        IntIsa::Avx512(_) => unsafe { avx512vnni::gemm(&job, w, xq, out, aligned(scratch)) },
        _ => job.by_gemv(isa, w, xq, out),
    }
}

/// What every path needs to know of a product.
struct Job {
    rows: usize,
    cols: usize,
    /// Bytes of a token.
    stride: usize,
}

impl Job {
    /// Panel by panel, so that the weights come from memory once.
    fn by_gemv(&self, isa: Isa, w: &[i8], xq: &[i8], out: &mut [i32]) {
        for (p, panel) in w.chunks(PANEL_ROWS * self.cols).enumerate() {
            let rows = p * PANEL_ROWS..self.rows.min((p + 1) * PANEL_ROWS);
            for (x, out) in xq.chunks_exact(self.stride).zip(out.chunks_exact_mut(self.rows)) {
                int8_gemv(isa, panel, self.cols, &x[..self.cols], &mut out[rows.clone()]);
            }
        }
    }
}

/// `offset · Σ x` over the first `len` values of each token, modulo 2^32.
fn corrections(xq: &[i8], stride: usize, len: usize, offset: i32) -> [i32; PASS] {
    let mut sums = [0; PASS];
    if offset != 0 {
        for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(stride)) {
            // At most 2^17 values of 128 in magnitude: 2^24.
            *sum = x[..len].iter().map(|v| i32::from(*v)).sum::<i32>().wrapping_mul(offset);
        }
    }
    sums
}

/// Lays out up to sixteen rows, each byte flipped by `flip`: the bytes of columns `N·s..N·s+N` of row `r` become word `place(s, r)` of the
/// panel. What is past the last column is weight 0; rows that are not there are left as they are, for nobody reads their sums.
#[inline]
fn lay_out<const N: usize>(
    w: &[i8],
    cols: usize,
    flip: u8,
    panel: &mut [[u8; 64]],
    place: impl Fn(usize, usize) -> usize,
) {
    let words = panel.as_flattened_mut().as_chunks_mut::<N>().0;
    for (r, row) in w.chunks_exact(cols).enumerate() {
        let (whole, rest) = row.as_chunks::<N>();
        for (s, word) in whole.iter().enumerate() {
            words[place(s, r)] = word.map(|v| v as u8 ^ flip);
        }
        if !rest.is_empty() {
            let mut word = [0; N];
            word[..rest.len()].copy_from_slice(rest);
            words[place(whole.len(), r)] = word.map(|v: i8| v as u8 ^ flip);
        }
    }
}

/// The whole 64-byte lines of `scratch`.
fn aligned(scratch: &mut [u8]) -> &mut [[u8; 64]] {
    let skip = scratch.as_ptr().align_offset(64).min(scratch.len());
    scratch[skip..].as_chunks_mut::<64>().0
}
