//! The product for weights in the [`t5`](crate::t5) layout.
//!
//! Digits are `d = w + 2`, so `Σ w·x = Σ d·x − 2·Σ x`. With AVX-512 VBMI two `vpermb` open 64 bytes into the fields of five digits, which are
//! masked where they stand, each with its own accumulator as in `t2`; digits 0 and 3 have the same place and share one. That is 13
//! operations for 320 weights, 2.6 for 64, against 2 for `t2`: from memory the fewer bytes win, in the caches `t2` does.
//!
//! AVX2 has no lookup of 64 entries and makes do with those of 16 ([`bytes::avx2`](crate::bytes)). NEON has it (`tbl` of four registers); its
//! body, and AVX-VNNI's, is that of `t2` with a lookup in front.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512vbmi;
pub(super) mod scalar;
#[cfg(test)]
mod tests;
