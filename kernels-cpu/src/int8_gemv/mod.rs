//! `out[r] = Σ_k w[r,k] · x[k]` for byte weights and byte activations: one token, exact `i32`.
//!
//! Used for int8, int4 and binary linears and for an int8 head. The byte dot products of x86 take one unsigned
//! operand, so the weight is read as `w + 128` (its top bit flipped) and one sum of the activations puts it right:
//!
//! ```text
//! Σ w·x = Σ (w + 128)·x − 128 · Σ x          in wrapping 32-bit arithmetic: only the result need fit
//! ```
//!
//! AVX2 widens both operands to 16 bits and uses `madd`, which cannot overflow. ARM's `sdot` takes signed bytes, and so do its multiplications.
//!
//! Cost: 1 byte per weight, 2 operations per byte: it runs at the memory's speed. Rows are read one after the other,
//! since several row streams at a time defeat the hardware prefetcher.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
mod bytes;
mod scalar;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
use crate::isa::Isa;

/// Most columns: `128 · 128 · cols` must stay below `2^31`.
pub const MAX_COLS: usize = (1 << 17) - 1;

/// `out[r] = Σ_k w[r,k] · xq[k]`, `w` `[out.len(), cols]`, `xq` `[cols]`.
///
/// # Panics
/// If `cols > MAX_COLS`, `xq.len() != cols` or `w.len() != out.len() * cols`.
pub fn int8_gemv(isa: Isa, w: &[i8], cols: usize, xq: &[i8], out: &mut [i32]) {
    assert!(cols <= MAX_COLS, "at most int8_gemv::MAX_COLS columns");
    assert_eq!(xq.len(), cols, "xq is [cols]");
    assert_eq!(w.len(), out.len() * cols, "w is [out.len(), cols]");
    if w.is_empty() {
        out.fill(0);
        return;
    }
    match isa.ints() {
        IntIsa::Scalar => scalar::gemv(w, xq, out),
        IntIsa::Bytes(isa) => bytes::gemv(isa, w, xq, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX2.
        IntIsa::Avx2(_) => unsafe { avx2::gemv(w, xq, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves that the CPU has AVX-512 F, BW and VNNI.
        IntIsa::Avx512(_) => unsafe { avx512vnni::gemv(w, xq, out) },
    }
}
