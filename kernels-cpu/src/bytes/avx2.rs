//! What kernels with 256-bit registers share: memory, sums, and the two tables of [`t5`] as lookups of sixteen entries.
//!
//! There is no lookup of 64 entries, but the code was chosen so that those of 16 do: `HIGH` depends on `u` and on whether `v ≥ 28`, four bits
//! in all, and `LOW` on `v`, five bits, but for one entry.

use core::arch::x86_64::*;

use super::Byte;
use crate::t5::{HIGH, LOW};

/// 32 bytes of 64.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn load<T: Byte>(bytes: &[T; 64], half: usize) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: `half` is masked to 0 or 1, so the read ends inside the 64 bytes; any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>().add(half & 1)) }
}

/// Sixteen bytes in both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn load_quarter<T: Byte>(bytes: &[T; 16]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: reads the sixteen bytes that the reference covers, at any alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// The sums of the halves of two registers.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn sum_halves([a, b]: [__m256i; 2]) -> [i32; 4] {
    let ab = _mm256_hadd_epi32(a, b);
    // Lower halves of `a` and `b`, and again; then the upper ones.
    let abab = _mm256_hadd_epi32(ab, ab);
    let sums = _mm_unpacklo_epi32(_mm256_castsi256_si128(abab), _mm256_extracti128_si256::<1>(abab));
    let mut four = [0i32; 4];
    // SAFETY: `four` is sixteen bytes.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
    four
}

/// The sums of four registers.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn sum_each(v: [__m256i; 4]) -> [i32; 4] {
    let abcd = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256::<1>(abcd));
    let mut four = [0i32; 4];
    // SAFETY: `four` is sixteen bytes.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
    four
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

/// [`LOW_HALVES`] and [`HIGH_BY_KIND`] in registers.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    below: __m256i,
    above: __m256i,
    kinds: __m256i,
}

/// The tables.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn tables() -> Tables {
    Tables {
        below: load_quarter(&LOW_HALVES[0]),
        above: load_quarter(&LOW_HALVES[1]),
        kinds: load_quarter(&HIGH_BY_KIND),
    }
}

/// The entries of [`LOW`] and of [`HIGH`] for each byte.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn look_up(tables: &Tables, bytes: __m256i) -> (__m256i, __m256i) {
    let at = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
    // Bit 4 chooses the half of LOW: shifted up to where the blend looks.
    let low = _mm256_blendv_epi8(
        _mm256_shuffle_epi8(tables.below, at),
        _mm256_shuffle_epi8(tables.above, at),
        _mm256_slli_epi16::<3>(bytes),
    );
    // The one entry of LOW that depends on u: v = 31 with an odd u has d0 one higher.
    let last = _mm256_set1_epi8(0x3f);
    let low = _mm256_sub_epi8(low, _mm256_cmpeq_epi8(_mm256_and_si256(bytes, last), last));
    let escape = _mm256_set1_epi8(0x1c);
    let kind = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, escape), escape);
    let u = _mm256_and_si256(_mm256_srli_epi16::<5>(bytes), _mm256_set1_epi8(7));
    let at = _mm256_or_si256(u, _mm256_and_si256(kind, _mm256_set1_epi8(8)));
    (low, _mm256_shuffle_epi8(tables.kinds, at))
}
