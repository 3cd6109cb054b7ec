//! `out[r] = Σ_k w[r,k] · x[k]` for packed ternary or binary weights and byte activations: one token, exact `i32`.
//!
//! Weights are in the [`t2`] layout, codes `c = w + 1` (the layouts [`t5`](crate::t5), a fifth smaller, and [`b1`](crate::b1), half as large and without 0, have paths of their own in `t5/` and `b1/`). Multiplying codes instead of weights keeps one operand
//! unsigned, which is what the byte dot products of x86 take, and one sum of the activations puts it right:
//!
//! ```text
//! Σ w·x = Σ c·x − Σ x
//! ```
//!
//! The 2-bit fields of a byte are masked where they stand. In the AVX-512 VNNI path one shift puts fields 1 and 3 in the places of fields 0
//! and 2, and each pair shares an accumulator; the second holds 16 times its sum and is shifted down at the end of the row. (Without any shift, an accumulator a
//! field, short rows lose a quarter of their speed to their ends, and long ones gain nothing.) The unsigned operand is at most 48, and the dot product widens to 32 bits without
//! saturating. AVX2 has only `maddubs`, which adds two products into a saturating `i16`: there the codes are shifted down
//! first, so that a pair is at most `2 · 3 · 128 = 768`, and 16-bit sums are widened before 32767 is in reach.
//!
//! AVX-VNNI, NEON and its dot product share one body ([`Bytes`](crate::bytes::Bytes)): fewer and shorter registers, so three accumulators a
//! row. `smmla` of FEAT_I8MM multiplies two rows by two tokens; with one token half of its products would be thrown away, and what is left is
//! what `sdot` does. So on the `i8mm` path one token takes `sdot`.
//!
//! A Cortex-M with the DSP extension has registers of two 16-bit halves: `smlad` adds two products to a sum, and the halves come out of the
//! bytes by one instruction each (`dsp.rs`).
//!
//! Cost: 0.25 bytes and 1 multiply-add per weight: 8 operations per byte, of which AVX-512 VNNI does 512 bits' worth in
//! 9 instructions per 256 weights. From memory it runs at the memory's speed.
//!
//! Sums are exact for up to [`t2::MAX_COLS`] columns.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod b1;
mod bytes;
#[cfg(arm_dsp)]
mod dsp;
mod scalar;
mod t5;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
use crate::isa::Isa;
use crate::t2;
use crate::ternary::Layout;

/// `out[r] = Σ_k w[r,k] · xq[k]` for `out.len()` rows. The values of `xq` beyond column `cols` do not count.
///
/// `w` is the packed bytes of `ceil(out.len() / 4)` groups of rows, so a caller splits work over threads at multiples of
/// four rows; `xq` is `[padded_cols]` or longer.
///
/// # Panics
/// If `cols > t2::MAX_COLS`, `w.len() != layout.bytes(out.len(), cols)` or `xq.len() < layout.padded_cols(cols)`.
pub fn ternary_gemv(isa: Isa, layout: Layout, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    assert!(cols <= t2::MAX_COLS, "at most t2::MAX_COLS columns");
    let bytes = layout.bytes(out.len(), cols);
    assert_eq!(w.len(), bytes, "w holds the groups of out.len() rows");
    assert!(xq.len() >= layout.padded_cols(cols), "xq is padded to whole blocks");
    if w.is_empty() {
        out.fill(0);
        return;
    }
    let xq = &xq[..layout.padded_cols(cols)];
    #[cfg(arm_dsp)]
    if let (Isa::Dsp(token), Layout::T2) = (isa, layout) {
        return dsp::gemv(token, w, cols, xq, out);
    }
    match (isa.ints(), layout) {
        (IntIsa::Scalar, Layout::T2) => scalar::gemv(w, cols, xq, out),
        (IntIsa::Scalar, Layout::T5) => t5::scalar::gemv(w, cols, xq, out),
        (IntIsa::Scalar, Layout::B1) => b1::scalar::gemv(w, cols, xq, out),
        (IntIsa::Bytes(isa), _) => bytes::gemv(isa, layout, w, cols, xq, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX2.
        (IntIsa::Avx2(_), Layout::T2) => unsafe { avx2::gemv(w, cols, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX-512 F, BW, DQ, VL and VNNI.
        (IntIsa::Avx512(_), Layout::T2) => unsafe { avx512vnni::gemv(w, cols, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above, and the token was asked about VBMI.
        (IntIsa::Avx512(token), Layout::T5) if token.has_vbmi() => unsafe { t5::avx512vbmi::gemv(w, cols, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: either token proves that the CPU has AVX2.
        (IntIsa::Avx2(_) | IntIsa::Avx512(_), Layout::T5) => unsafe { t5::avx2::gemv(w, cols, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX2.
        (IntIsa::Avx2(_), Layout::B1) => unsafe { b1::avx2::gemv(w, cols, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX-512 F, BW, DQ, VL and VNNI.
        (IntIsa::Avx512(_), Layout::B1) => unsafe { b1::avx512vnni::gemv(w, cols, xq, out) },
    }
}

/// The end of a group of rows: `sums` less `correction`.
#[inline(always)]
fn less(sums: [i32; t2::GROUP_ROWS], correction: i32, out: &mut [i32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum - correction;
    }
}
