//! 256-bit registers. AVX2: pairs of columns in 16 bits by `vpmaddubsw`, over a whole batch. VNNI, in either encoding: `vpdpbusd`.

use core::arch::x86_64::*;

use super::Line;
use super::lanes::Lanes;
use crate::bytes::vnni::{Evex, Vex};
use crate::bytes::{Bytes, avx2, word_of};
use crate::isa::Avx2;

/// Wraps intrinsic calls; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has AVX2; memory operands are references to 64 bytes or to sixteen sums, of which
        // part `part & 1` lies inside, read and written at any alignment.
        unsafe { $e }
    };
}

macro_rules! lanes_of {
    ($token:ident, |$self:ident, $sums:ident, $codes:ident, $x:ident| $add:expr, |$sum:ident, $field:ident| $total:expr) => {
        impl Lanes for $token {
            type V = __m256i;
            type Sums = __m256i;
            const PARTS: usize = 2;
            const WHOLE: bool = false;

            #[inline(always)]
            fn load(self, line: &Line, part: usize) -> __m256i {
                with_token!(avx2::load(&line.0, part))
            }
            #[inline(always)]
            fn low_bytes(self, a: __m256i, b: __m256i) -> __m256i {
                with_token!(_mm256_unpacklo_epi8(a, b))
            }
            #[inline(always)]
            fn high_bytes(self, a: __m256i, b: __m256i) -> __m256i {
                with_token!(_mm256_unpackhi_epi8(a, b))
            }
            #[inline(always)]
            fn low_pairs(self, a: __m256i, b: __m256i) -> __m256i {
                with_token!(_mm256_unpacklo_epi16(a, b))
            }
            #[inline(always)]
            fn high_pairs(self, a: __m256i, b: __m256i) -> __m256i {
                with_token!(_mm256_unpackhi_epi16(a, b))
            }
            #[inline(always)]
            fn word(self, x: [i8; 4]) -> __m256i {
                with_token!(_mm256_set1_epi32(word_of(x)))
            }
            #[inline(always)]
            fn zero(self) -> __m256i {
                with_token!(_mm256_setzero_si256())
            }
            #[inline(always)]
            fn add($self, $sums: [__m256i; 4], $codes: __m256i, $x: __m256i) -> [__m256i; 4] {
                with_token!($add)
            }
            #[inline(always)]
            fn finish(self, $sum: __m256i, $field: usize, out: &mut [i32; 16], part: usize) {
                with_token!({
                    let to = out.as_mut_ptr().add(8 * (part & 1)).cast::<__m256i>();
                    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), $total));
                })
            }
        }
    };
}

lanes_of!(
    Avx2,
    |self, sums, codes, x| {
        let low2 = _mm256_set1_epi8(3);
        // What a 16-bit shift brings in from a neighbour the mask drops. Sixteen pairs, at most `2 · 3 · 128` each, are 12288.
        let [a, b, c, d] = sums;
        [
            _mm256_add_epi16(a, _mm256_maddubs_epi16(_mm256_and_si256(codes, low2), x)),
            _mm256_add_epi16(
                b,
                _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<2>(codes), low2), x),
            ),
            _mm256_add_epi16(
                c,
                _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(codes), low2), x),
            ),
            _mm256_add_epi16(
                d,
                _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<6>(codes), low2), x),
            ),
        ]
    },
    |sum, _field| _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
);

macro_rules! vnni_lanes_of {
    ($token:ident) => {
        lanes_of!(
            $token,
            |self, sums, codes, x| {
                let [a, b, c, d] = sums;
                [
                    self.dot(a, _mm256_and_si256(codes, _mm256_set1_epi8(0x03)), x),
                    self.dot(b, _mm256_and_si256(codes, _mm256_set1_epi8(0x0c)), x),
                    self.dot(c, _mm256_and_si256(codes, _mm256_set1_epi8(0x30)), x),
                    self.dot(d, _mm256_and_si256(codes, _mm256_set1_epi8(0xc0u8 as i8)), x),
                ]
            },
            |sum, field| _mm256_sra_epi32(sum, _mm_cvtsi32_si128(2 * field as i32))
        );
    };
}
vnni_lanes_of!(Vex);
vnni_lanes_of!(Evex);
