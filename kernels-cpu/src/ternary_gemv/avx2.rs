//! AVX2: `maddubs` on codes shifted down to 0..=3, 16-bit sums widened every [`WIDEN_EVERY`] blocks.

use core::arch::x86_64::*;

use crate::t2::{GROUP_ROWS, group_bytes};

/// A block adds eight pairs (two halves, four fields) to each 16-bit lane, each at most `2 · 3 · 128` in magnitude:
/// five blocks reach `5 · 8 · 768 = 30720`, six would pass 32767.
const WIDEN_EVERY: usize = 5;

/// 32 bytes of a block.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load<T: Copy>(bytes: &[T; 64], half: usize) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: `half` is masked to 0 or 1, so the read ends inside the 64 bytes; any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>().add(half & 1)) }
}

/// The sums of four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_each(v: [__m256i; 4]) -> __m128i {
    let abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256::<1>(abcd))
}

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
    _mm_cvtsi128_si32(sum_each([total, zero, zero, zero]))
}

/// The end of a group of rows: the sums of their accumulators, less `correction`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn finish(acc: [__m256i; GROUP_ROWS], correction: __m128i, out: &mut [i32]) {
    let mut four = [0i32; GROUP_ROWS];
    // SAFETY: `four` is sixteen bytes.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), _mm_sub_epi32(sum_each(acc), correction)) };
    out.copy_from_slice(&four[..out.len()]);
}

/// See [`super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (low2, ones16) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let correction = _mm_set1_epi32(sum(xq));
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
        finish(acc, correction, out);
    }
}
