//! The CPU's limits, measured: the denominators of every speed figure.
//!
//! | function | limit | work that is counted |
//! |---|---|---|
//! | [`fma_peak`] | f32 arithmetic | independent chains of fused multiply-adds in registers, 2 operations a lane |
//! | [`bf16_dot_peak`] | bf16 dot products with f32 sums | pairs of multiply-adds in registers, 2 operations a value |
//! | [`int8_dot_peak`] | int8 dot products | multiply-adds of bytes into i32 in registers, 2 operations a pair |
//! | [`read_sweep`] | memory reads | every byte once, in order |
//!
//! The caller takes the time: a probe returns how much it did. Nothing is loaded or stored inside the arithmetic loops.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
mod fma;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use crate::bytes::IntIsa;
use crate::isa::{FloatIsa, Isa};

/// Runs independent fused multiply-add chains for `iterations` steps; returns the floating-point operations done.
pub fn fma_peak(isa: Isa, iterations: u64) -> f64 {
    match isa.floats() {
        #[cfg(target_arch = "x86_64")]
        FloatIsa::Avx512(_) => fma::wide(isa, iterations),
        _ => fma::narrow(isa, iterations),
    }
}

/// Runs bf16 dot products (`vdpbf16ps`) for `iterations` steps; returns the floating-point operations done, or `None` if the path or the CPU
/// has no such instruction.
pub fn bf16_dot_peak(isa: Isa, iterations: u64) -> Option<f64> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(t) if crate::gemm_bf16::is_fast(isa) => Some(avx512::bf16_dot(t, iterations)),
        _ => {
            let _ = iterations;
            None
        }
    }
}

/// Runs int8 dot products for `iterations` steps; returns the integer operations done (two for each pair of bytes).
///
/// AVX-512 and AVX-VNNI: `vpdpbusd`. AVX2: `vpmaddubsw`, `vpmaddwd`, `vpaddd`. ARM: `sdot`, or `smull`, `smlal2`, `sadalp`. Scalar: one
/// product at a time.
pub fn int8_dot_peak(isa: Isa, iterations: u64) -> f64 {
    match isa.ints() {
        IntIsa::Scalar => scalar::int8_dot(iterations),
        IntIsa::Bytes(isa) => bytes::int8_dot(isa, iterations),
        #[cfg(target_arch = "x86_64")]
        IntIsa::Avx2(t) => avx2::int8_dot(t, iterations),
        #[cfg(target_arch = "x86_64")]
        IntIsa::Avx512(t) => avx512::int8_dot(t, iterations),
    }
}

/// Reads `bytes` once, in order, and returns their sum.
pub fn read_sweep(isa: Isa, bytes: &[u8]) -> u64 {
    match isa.floats() {
        FloatIsa::Scalar(_) => scalar::read_sweep(bytes),
        #[cfg(target_feature = "simd128")]
        FloatIsa::Simd128(_) => scalar::read_sweep(bytes),
        #[cfg(target_arch = "x86_64")]
        FloatIsa::Avx2(t) => avx2::read_sweep(t, bytes),
        #[cfg(target_arch = "x86_64")]
        FloatIsa::Avx512(t) => avx512::read_sweep(t, bytes),
        #[cfg(target_arch = "aarch64")]
        FloatIsa::Neon(t) => neon::read_sweep(t, bytes),
    }
}
