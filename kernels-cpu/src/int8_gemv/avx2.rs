//! AVX2: bytes widened to 16 bits, `madd` pairs (at most `2 · 128 · 128 = 32768`, a 32-bit value), four accumulators.

use core::arch::x86_64::*;

/// Sixteen bytes widened to 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: reads the 16 bytes that the reference covers, at any alignment.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn dot(w: &[i8], x: &[i8]) -> i32 {
    let (w, w_tail) = w.as_chunks::<16>();
    let (x, x_tail) = x.as_chunks::<16>();
    let ((w4, w_rest), (x4, x_rest)) = (w.as_chunks::<4>(), x.as_chunks::<4>());
    let mut acc = [_mm256_setzero_si256(); 4];
    for (w, x) in w4.iter().zip(x4) {
        for i in 0..4 {
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(load(&w[i]), load(&x[i])));
        }
    }
    for (w, x) in w_rest.iter().zip(x_rest) {
        acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(load(w), load(x)));
    }
    let sum = _mm256_add_epi32(_mm256_add_epi32(acc[0], acc[1]), _mm256_add_epi32(acc[2], acc[3]));
    let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    let one = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)));
    one + w_tail
        .iter()
        .zip(x_tail)
        .map(|(w, x)| i32::from(*w) * i32::from(*x))
        .sum::<i32>()
}

/// See [`super::int8_gemv`].
#[target_feature(enable = "avx2")]
pub(super) fn gemv(w: &[i8], xq: &[i8], out: &mut [i32]) {
    for (row, out) in w.chunks_exact(xq.len()).zip(out) {
        *out = dot(row, xq);
    }
}
