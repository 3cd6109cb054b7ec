//! AVX2: the two tables as lookups of sixteen entries, then `maddubs` on digits shifted down, as in `t2`.

use core::arch::x86_64::*;

use super::super::avx2::{finish, load, sum};
use crate::t5::{DIGITS, GROUP_ROWS, HIGH, LOW, group_bytes};

/// A block adds ten pairs (two halves, five digits) to each 16-bit lane, each at most `2 · 3 · 128` in magnitude: four blocks reach
/// `4 · 10 · 768 = 30720`, five would pass 32767.
const WIDEN_EVERY: usize = 4;

/// Sixteen entries in both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
fn table(entries: [u8; 16]) -> __m256i {
    // SAFETY: `entries` is sixteen bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(entries.as_ptr().cast()) })
}

/// [`LOW`] of `v` = 0 to 15 and of `v` = 16 to 31, with the lowest bit of `u` 0.
const LOW_HALVES: [[u8; 16]; 2] = {
    let mut halves = [[0; 16]; 2];
    let mut i = 0;
    while i < 32 {
        halves[i / 16][i % 16] = LOW[i];
        i += 1;
    }
    halves
};

/// [`HIGH`] of `u` with `v` below 28, then with `v` from 28.
const HIGH_BY_KIND: [u8; 16] = {
    let mut entries = [0; 16];
    let mut u = 0;
    while u < 8 {
        entries[u] = HIGH[8 * u];
        entries[8 + u] = HIGH[8 * u + 7];
        u += 1;
    }
    entries
};

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx2")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (below, above, kinds) = (table(LOW_HALVES[0]), table(LOW_HALVES[1]), table(HIGH_BY_KIND));
    let byte = |b: u8| _mm256_set1_epi8(b as i8);
    let (three, nibble, escape, last, seven, eight) = (byte(3), byte(15), byte(0x1c), byte(0x3f), byte(7), byte(8));
    let ones16 = _mm256_set1_epi16(1);
    let correction = _mm_set1_epi32(2 * sum(xq));
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
                        let at = _mm256_and_si256(bytes, nibble);
                        // Bit 4 chooses the half of LOW: shifted up to where the blend looks.
                        let low = _mm256_blendv_epi8(
                            _mm256_shuffle_epi8(below, at),
                            _mm256_shuffle_epi8(above, at),
                            _mm256_slli_epi16::<3>(bytes),
                        );
                        // The one entry of LOW that depends on u: v = 31 with an odd u has d0 one higher.
                        let odd = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, last), last);
                        let low = _mm256_sub_epi8(low, odd);
                        let kind = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, escape), escape);
                        let u = _mm256_and_si256(_mm256_srli_epi16::<5>(bytes), seven);
                        let high = _mm256_shuffle_epi8(kinds, _mm256_or_si256(u, _mm256_and_si256(kind, eight)));
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
        finish(acc, correction, out);
    }
}
