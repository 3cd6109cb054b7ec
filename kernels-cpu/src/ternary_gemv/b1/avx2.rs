//! AVX2: `maddubs` on bits shifted down to 0 or 1, 16-bit sums widened every [`WIDEN_EVERY`] blocks.

use core::arch::x86_64::*;

use super::super::avx2::sum;
use super::{sum_of_columns, twice_less};
use crate::b1::{FIELDS, GROUP_ROWS, group_bytes};
use crate::bytes::avx2::{load, sum_each};

/// A block adds sixteen pairs (two halves, eight bits) to each 16-bit lane, each at most `2 · 128` in magnitude: seven blocks reach
/// `7 · 16 · 256 = 28672`. In 32 bits, the 2^13 blocks of the widest rows reach 2^26.
const WIDEN_EVERY: usize = 7;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (one, ones16) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let correction = sum_of_columns(&xq[..cols], |x| sum(x));
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [_mm256_setzero_si256(); GROUP_ROWS];
        let blocks = group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0;
        let xs = xq.as_chunks::<64>().0.as_chunks::<FIELDS>().0;
        for (rows, xs) in blocks.chunks(WIDEN_EVERY).zip(xs.chunks(WIDEN_EVERY)) {
            let mut acc16 = [_mm256_setzero_si256(); GROUP_ROWS];
            for (rows, x) in rows.iter().zip(xs) {
                for half in 0..2 {
                    for r in 0..GROUP_ROWS {
                        let bytes = load(&rows[r], half);
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
                            let products = _mm256_maddubs_epi16(_mm256_and_si256(bits[f], one), load(&x[f], half));
                            acc16[r] = _mm256_add_epi16(acc16[r], products);
                        }
                    }
                }
            }
            for r in 0..GROUP_ROWS {
                acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(acc16[r], ones16));
            }
        }
        twice_less(sum_each(acc), correction, out);
    }
}
