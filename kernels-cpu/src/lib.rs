//! CPU kernels of OneBit-LLM: slices in, slices out, a folder per operation.
//!
//! Every kernel takes an [`Isa`], the capability token of an instruction set that this CPU was seen to have, so a path
//! that the CPU lacks cannot be reached. Kernels are single-threaded: the caller splits work over threads by output row
//! or by head, never along a reduction, so that results do not depend on the number of threads.
//!
//! Float kernels are written once over the 16-lane vector of [`simd::Simd`] and instantiated per instruction set; every
//! reduction runs in 16 lanes (lane `i mod 16`, a chain of fused multiply-adds in index order) and folds 8-4-2-1, a norm's in 64. All paths therefore
//! return the same bits.
//!
//! The kernels assert that slice lengths agree (`# Panics` on each); callers check user input before they call.
//!
//! ```
//! use onebit_kernels_cpu::Isa;
//! use onebit_kernels_cpu::ternary::{Layout, padded_cols};
//! use onebit_kernels_cpu::ternary_gemv::ternary_gemv;
//!
//! // Two rows of five weights, packed at two bits each, times five bytes: on every path that this CPU has, the same integers.
//! let (rows, cols) = (2, 5);
//! let weights = [1, 0, -1, 1, 1, /* */ 0, -1, 0, 0, 1];
//! let mut packed = vec![0; Layout::T2.bytes(rows, cols)];
//! Layout::T2.pack(&weights, rows, cols, &mut packed);
//! let mut x = vec![0i8; padded_cols(cols)];
//! x[..cols].copy_from_slice(&[10, 20, 30, 40, -50]);
//! for isa in Isa::available() {
//!     let mut out = [0; 2];
//!     ternary_gemv(isa, Layout::T2, &packed, cols, &x, &mut out);
//!     assert_eq!(out, [10 - 30 + 40 - 50, -20 - 50], "{}", isa.name());
//! }
//! ```
#![no_std]
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(
        dead_code,
        reason = "kernels over registers of bytes, which no path of such a CPU has"
    )
)]
#[cfg(test)]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod activation;
pub mod adamw;
pub mod adamw8bit;
pub mod attention;
pub mod b1;
mod bytes;
pub mod cross_entropy;
pub mod dense_gemv;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod estimate;
pub mod gemm;
pub mod gemm_bf16;
pub mod hadamard;
pub mod int4_gemv;
pub mod int8_gemm;
pub mod int8_gemv;
pub mod isa;
pub mod math;
pub mod prefetch;
pub mod probe;
pub mod quantize;
pub mod rms_norm;
pub mod rng;
pub mod rope;
pub mod simd;
pub mod softcap;
pub mod t2;
pub mod t5;
pub mod ternary;
pub mod ternary_columns;
pub mod ternary_gemm;
pub mod ternary_gemv;

pub use isa::Isa;
