//! AVX2: the two tables as lookups of sixteen entries, then `maddubs` on digits shifted down, as in `t2`.

use core::arch::x86_64::*;

use super::super::avx2::sum;
use super::super::less;
use crate::bytes::avx2::{load, look_up, sum_each, tables};
use crate::t5::{DIGITS, GROUP_ROWS, group_bytes};

/// A block adds ten pairs (two halves, five digits) to each 16-bit lane, each at most `2 · 3 · 128` in magnitude: four blocks reach
/// `4 · 10 · 768 = 30720`, five would pass 32767.
const WIDEN_EVERY: usize = 4;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (tables, three) = (tables(), _mm256_set1_epi8(3));
    let ones16 = _mm256_set1_epi16(1);
    let correction = 2 * sum(xq);
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut acc = [_mm256_setzero_si256(); GROUP_ROWS];
        let blocks = group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0;
        let xs = xq.as_chunks::<64>().0.as_chunks::<DIGITS>().0;
        for (rows, xs) in blocks.chunks(WIDEN_EVERY).zip(xs.chunks(WIDEN_EVERY)) {
            let mut acc16 = [_mm256_setzero_si256(); GROUP_ROWS];
            for (rows, x) in rows.iter().zip(xs) {
                for half in 0..2 {
                    for r in 0..GROUP_ROWS {
                        let bytes = load(&rows[r], half);
                        let (low, high) = look_up(&tables, bytes);
                        let both = _mm256_or_si256(low, high);
                        // A 16-bit shift moves a neighbour's bits in at the top; the mask drops them.
                        let digits = [
                            _mm256_and_si256(low, three),
                            _mm256_and_si256(_mm256_srli_epi16::<4>(both), three),
                            _mm256_and_si256(_mm256_srli_epi16::<6>(both), three),
                            _mm256_and_si256(high, three),
                            _mm256_and_si256(_mm256_srli_epi16::<2>(both), three),
                        ];
                        for i in 0..DIGITS {
                            acc16[r] = _mm256_add_epi16(acc16[r], _mm256_maddubs_epi16(digits[i], load(&x[i], half)));
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
