//! AVX2: a register holds two rows; `maddubs` on bits shifted down to 0 or 1, 16-bit sums widened every [`WIDEN_EVERY`] blocks.

use core::arch::x86_64::*;

use super::super::avx2::sum;
use super::{sum_of_columns, twice_less};
use crate::b1::{BLOCK_BYTES, FIELDS, GROUP_ROWS, group_bytes};
use crate::bytes::avx2::{load, load_quarter, sum_halves};

/// A block adds a pair for each bit to each 16-bit lane, at most `2 · 128` in magnitude: fifteen blocks reach `15 · 8 · 256 = 30720`. In 32
/// bits, the 2^15 blocks of the widest rows reach 2^27.
const WIDEN_EVERY: usize = 15;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (one, ones16) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let correction = sum_of_columns(&xq[..cols], |x| sum(x));
    let xs = xq.as_chunks::<BLOCK_BYTES>().0.as_chunks::<FIELDS>().0;
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [_mm256_setzero_si256(); 2];
        let blocks = group.as_chunks::<64>().0;
        for (blocks, xs) in blocks.chunks(WIDEN_EVERY).zip(xs.chunks(WIDEN_EVERY)) {
            let mut acc16 = [_mm256_setzero_si256(); 2];
            for (block, x) in blocks.iter().zip(xs) {
                for half in 0..2 {
                    let bytes = load(block, half);
                    // A 16-bit shift moves a neighbour's bits in at the top; the mask drops them.
                    let bits = [
                        bytes,
                        _mm256_srli_epi16::<1>(bytes),
                        _mm256_srli_epi16::<2>(bytes),
                        _mm256_srli_epi16::<3>(bytes),
                        _mm256_srli_epi16::<4>(bytes),
                        _mm256_srli_epi16::<5>(bytes),
                        _mm256_srli_epi16::<6>(bytes),
                        _mm256_srli_epi16::<7>(bytes),
                    ];
                    for f in 0..FIELDS {
                        let products = _mm256_maddubs_epi16(_mm256_and_si256(bits[f], one), load_quarter(&x[f]));
                        acc16[half] = _mm256_add_epi16(acc16[half], products);
                    }
                }
            }
            for half in 0..2 {
                acc[half] = _mm256_add_epi32(acc[half], _mm256_madd_epi16(acc16[half], ones16));
            }
        }
        twice_less(sum_halves(acc), correction, out);
    }
}
