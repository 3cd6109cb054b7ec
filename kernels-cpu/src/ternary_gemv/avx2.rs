//! AVX2: `maddubs` on codes shifted down to 0..=3, 16-bit sums widened every [`WIDEN_EVERY`] blocks.

use core::arch::x86_64::*;

use super::less;
use crate::bytes::avx2::{load, sum_each};
use crate::t2::{GROUP_ROWS, group_bytes};

/// A block adds eight pairs (two halves, four fields) to each 16-bit lane, each at most `2 · 3 · 128` in magnitude:
/// five blocks reach `5 · 8 · 768 = 30720`, six would pass 32767.
const WIDEN_EVERY: usize = 5;

/// `Σ x`.
#[target_feature(enable = "avx2")]
pub(super) fn sum(xq: &[i8]) -> i32 {
    let (ones8, ones16) = (_mm256_set1_epi8(1), _mm256_set1_epi16(1));
    let mut total = _mm256_setzero_si256();
    for x in xq.as_chunks::<64>().0 {
        for half in 0..2 {
            let pairs = _mm256_maddubs_epi16(ones8, load(x, half));
            total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, ones16));
        }
    }
    let zero = _mm256_setzero_si256();
    sum_each([total, zero, zero, zero])[0]
}

/// See [`super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (low2, ones16) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let correction = sum(xq);
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [_mm256_setzero_si256(); GROUP_ROWS];
        let (blocks, xs) = (
            group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0,
            xq.as_chunks::<64>().0,
        );
        for (rows, xs) in blocks
            .chunks(WIDEN_EVERY)
            .zip(xs.as_chunks::<4>().0.chunks(WIDEN_EVERY))
        {
            let mut acc16 = [_mm256_setzero_si256(); GROUP_ROWS];
            for (rows, x) in rows.iter().zip(xs) {
                for half in 0..2 {
                    for r in 0..GROUP_ROWS {
                        let bytes = load(&rows[r], half);
                        // A 16-bit shift moves a neighbour's bits in at the top; the mask drops them.
                        let codes = [
                            _mm256_and_si256(bytes, low2),
                            _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), low2),
                            _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low2),
                            _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), low2),
                        ];
                        for f in 0..4 {
                            acc16[r] = _mm256_add_epi16(acc16[r], _mm256_maddubs_epi16(codes[f], load(&x[f], half)));
                        }
                    }
                }
            }
            for r in 0..GROUP_ROWS {
                acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(acc16[r], ones16));
            }
        }
        less(sum_each(acc), correction, out);
    }
}
