//! AVX-512 VNNI: the sums of 256 rows in sixteen registers; four lines make sixteen dot products.

use core::arch::x86_64::*;

use super::Line;
use super::lanes::Lanes;
use crate::bytes::word_of;
use crate::isa::Avx512;

/// Wraps intrinsic calls; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has AVX-512 F, BW, DQ, VL and VNNI; memory operands are references to 64 bytes.
        unsafe { $e }
    };
}

impl Lanes for Avx512 {
    type V = __m512i;
    type Sums = __m512i;
    const PARTS: usize = 1;
    const WHOLE: bool = true;

    #[inline(always)]
    fn load(self, line: &Line, _: usize) -> __m512i {
        with_token!(_mm512_load_si512((&raw const line.0).cast()))
    }
    #[inline(always)]
    fn low_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(_mm512_unpacklo_epi8(a, b))
    }
    #[inline(always)]
    fn high_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(_mm512_unpackhi_epi8(a, b))
    }
    #[inline(always)]
    fn low_pairs(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(_mm512_unpacklo_epi16(a, b))
    }
    #[inline(always)]
    fn high_pairs(self, a: __m512i, b: __m512i) -> __m512i {
        with_token!(_mm512_unpackhi_epi16(a, b))
    }
    #[inline(always)]
    fn word(self, x: [i8; 4]) -> __m512i {
        with_token!(_mm512_set1_epi32(word_of(x)))
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        with_token!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn add(self, sums: [__m512i; 4], codes: __m512i, x: __m512i) -> [__m512i; 4] {
        let [a, b, c, d] = sums;
        with_token!([
            _mm512_dpbusd_epi32(a, _mm512_and_si512(codes, _mm512_set1_epi8(0x03)), x),
            _mm512_dpbusd_epi32(b, _mm512_and_si512(codes, _mm512_set1_epi8(0x0c)), x),
            _mm512_dpbusd_epi32(c, _mm512_and_si512(codes, _mm512_set1_epi8(0x30)), x),
            _mm512_dpbusd_epi32(d, _mm512_and_si512(codes, _mm512_set1_epi8(0xc0u8 as i8)), x),
        ])
    }
    #[inline(always)]
    fn finish(self, sums: __m512i, field: usize, out: &mut [i32; 16], _: usize) {
        with_token!({
            let sums = _mm512_sra_epi32(sums, _mm_cvtsi32_si128(2 * field as i32));
            let to = out.as_mut_ptr().cast();
            _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), sums));
        })
    }
}
