//! The product for weights in the [`b1`](crate::b1) layout.
//!
//! ```text
//! Σ w·x = 2 · Σ b·x − Σ x        b the bits, 0 past the end; the last sum over `cols` columns alone
//! ```
//!
//! A block of four rows is one register of 64 bytes, two of 32 or four of 16, each with a field of one, two or four rows; the sixteen
//! activations of the field are read into every sixteen bytes of a register, once for all rows of a group. A lane of an accumulator belongs to
//! one row, and the four of a row are added at its end.
//!
//! A bit that is masked where it stands is `2^f · b`, an operand of the byte dot products as it is. What stands at one place has an
//! accumulator, which is shifted down at the end of the row:
//!
//! | path | places | operations for 64 weights |
//! |---|---|---|
//! | AVX-512 VNNI | bits 0 to 3, of the byte and of the byte shifted down by 4 | 2.1 |
//! | [`Bytes`](crate::bytes::Bytes) | bits 0, 2, 4 and 6, of the byte and of the byte shifted down by 1 | 2.4 of a register |
//! | AVX2 | bit 0, of the byte shifted down by 0 to 7 | 8 of 32 bytes |
//!
//! That is as many operations as `t2` takes for as many weights, for half the bytes: from memory it is limited by the dot products where `t2`
//! is by the memory. Measured on one thread of an EPYC (Zen 4), billions of operations a second, `b1` and `t2`: AVX-512 324 and 188 from memory
//! (40960×2560), 322 and 368 in the caches (1024×2560), 216 and 185 for 8192×320, which `t2` pads to 512; 256-bit VNNI 242 and 273, 237 and
//! 335, 184 and 163; AVX2 216 and 204, 214 and 274, 143 and 132.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512vnni;
pub(super) mod bytes;
pub(super) mod scalar;
#[cfg(test)]
mod tests;

use crate::b1::GROUP_ROWS;

/// `Σ x` over all of `xq`, which ends where the columns do; `whole` takes that of whole 64s.
#[inline(always)]
fn sum_of_columns(xq: &[i8], whole: impl FnOnce(&[i8]) -> i32) -> i32 {
    let (chunks, rest) = xq.as_chunks::<64>();
    whole(chunks.as_flattened()) + rest.iter().map(|x| i32::from(*x)).sum::<i32>()
}

/// The end of a group of rows: twice `sums` less `correction`.
#[inline(always)]
fn twice_less(sums: [i32; GROUP_ROWS], correction: i32, out: &mut [i32]) {
    super::less(sums.map(|sum| 2 * sum), correction, out);
}
