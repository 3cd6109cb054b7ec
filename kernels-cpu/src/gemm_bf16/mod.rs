//! Dense matrix product of f32 matrices rounded to bf16, with f32 sums: [`gemm`] at twice the rate, for training.
//!
//! The layouts, the blocks and the packing are those of [`gemm`]; packing rounds both operands to bf16 (to nearest, ties to
//! even) and puts two successive values of k side by side in 32 bits, which is what one lane of `vdpbf16ps` multiplies:
//!
//! ```text
//!                   lane j of a row of B
//!                  ┌─────────┬─────────┐
//!   pair p of k    │ 2p      │ 2p + 1  │   32 multiply-adds an instruction, where f32 has 16
//!                  └─────────┴─────────┘
//! ```
//!
//! # Numerics
//! Every element of C is computed alone, the same way on every instruction set:
//!
//! ```text
//! for each block of 2·KC values of k, in order:
//!     t = 0
//!     for each pair p of the block (a last value without a partner is followed by zeros):
//!         t = flush(fma(a[2p+1], b[2p+1], t))        the odd value first
//!         t = flush(fma(a[2p],   b[2p],   t))
//!     c = t            (first block, not accumulating)   or   c = c + t
//! ```
//!
//! `flush` puts a zero of the same sign in place of a subnormal number, and rounding to bf16 does the same with subnormal inputs. This is
//! what the instruction is documented to do (Intel SDM, VDPBF16PS and VCVTNE2PS2BF16). A CPU without it computes the same bits with
//! two fused multiply-adds, at less than the speed of [`gemm`]: [`is_fast`] says which it is.
//!
//! Against the exact product of the unrounded operands, the error of an element is at most `(2·2⁻⁹ + (k + 2)·2⁻²⁴)·Σ|a·b|`, the first
//! term from rounding both operands to eight bits.

#[cfg(target_arch = "x86_64")]
mod avx512bf16;
mod emulated;
#[cfg(test)]
mod tests;

use crate::gemm::{self, Problem, Right};
pub use crate::gemm::{Layout, Region, scratch_len};
use crate::isa::Isa;

/// Whether the path of `isa` on this CPU has an instruction for this product; otherwise it is slower than [`gemm`](crate::gemm::gemm).
pub fn is_fast(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    if avx512bf16::Avx512Bf16::new(isa).is_some() {
        return true;
    }
    let _ = isa;
    false
}

/// `x` rounded to bf16, its bits in the low half; subnormal numbers become zero, NaN stays quiet NaN.
#[inline(always)]
pub fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        bits >> 16 | 0x40
    } else if x.abs() < f32::MIN_POSITIVE {
        bits >> 16 & 0x8000
    } else {
        (bits + 0x7fff + (bits >> 16 & 1)) >> 16
    }
}

/// `C = A · B`, or `C += A · B` if `accumulate`, of A and B rounded to bf16; all else as [`gemm`](crate::gemm::gemm).
///
/// `scratch` holds at least [`scratch_len`] elements.
///
/// # Panics
/// If a row stride is below its row length, or a slice is shorter than its matrix or `scratch` than [`scratch_len`].
pub fn gemm_bf16(
    isa: Isa,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    b: &[f32],
    ldb: usize,
    accumulate: bool,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [u32],
) {
    let problem = Problem {
        layout,
        m,
        n,
        k,
        a,
        lda,
        b: Right::Stored(b, ldb),
        ldc,
        accumulate,
    };
    run(isa, &problem, c, scratch);
}

/// The regions in which a B of `n` columns and `k` values is packed ahead, in order; together they are its packed form.
///
/// Threads that share a B pack a part of it each and read all of it in [`gemm_bf16_packed`].
pub fn regions(n: usize, k: usize) -> impl Iterator<Item = Region> {
    gemm::regions(n, k, 2)
}

/// Packs `region` of B, `[k, n]` (`[n, k]` for [`Layout::NT`]) with rows `ldb` apart, into the first `region.len` elements of `out`.
///
/// # Panics
/// If a slice is too short for the region.
pub fn pack_region(isa: Isa, layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [u32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(t) = avx512bf16::Avx512Bf16::new(isa) {
        return avx512bf16::pack_region(t, layout, region, b, ldb, out);
    }
    emulated::pack_region(isa, layout, region, b, ldb, out);
}

/// As [`gemm_bf16`] with a B that was packed ahead: all its [`regions`], one behind the other, packed by [`pack_region`] for the same
/// `isa`. The bits are those of [`gemm_bf16`].
///
/// # Panics
/// As [`gemm_bf16`], or if `packed` is shorter than its regions.
pub fn gemm_bf16_packed(
    isa: Isa,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    packed: &[u32],
    accumulate: bool,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [u32],
) {
    let len: usize = regions(n, k).map(|region| region.len).sum();
    assert!(packed.len() >= len, "packed B: {} elements of {len}", packed.len());
    let problem = Problem {
        layout,
        m,
        n,
        k,
        a,
        lda,
        b: Right::Packed(packed),
        ldc,
        accumulate,
    };
    run(isa, &problem, c, scratch);
}

fn run(isa: Isa, problem: &Problem<'_, u32>, c: &mut [f32], scratch: &mut [u32]) {
    if !problem.check(c, scratch.len()) {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(t) = avx512bf16::Avx512Bf16::new(isa) {
        return avx512bf16::blocks(t, problem, c, scratch);
    }
    emulated::blocks(isa, problem, c, scratch);
}
