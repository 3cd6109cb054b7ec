//! Sixteen lanes in one 512-bit register.

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Avx512;

/// Wraps one intrinsic call; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has the instructions; memory operands are references to
        // sixteen elements, read and written unaligned.
        unsafe { $e }
    };
}

impl Simd for Avx512 {
    type F = __m512;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        with_token!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Self::F {
        with_token!(_mm512_loadu_ps(a.as_ptr()))
    }

    #[inline(always)]
    fn store(self, v: Self::F, a: &mut [f32; LANES]) {
        with_token!(_mm512_storeu_ps(a.as_mut_ptr(), v))
    }

    #[inline(always)]
    fn load_f16(self, a: &[f16; LANES]) -> Self::F {
        with_token!(_mm512_cvtph_ps(_mm256_loadu_si256(a.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F {
        with_token!({
            let v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(a.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v))
        })
    }

    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Self::F {
        with_token!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
            a.as_ptr().cast()
        ))))
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, a: &mut [i8; LANES]) {
        with_token!(_mm_storeu_si128(
            a.as_mut_ptr().cast(),
            _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))
        ))
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        with_token!(_mm_prefetch::<_MM_HINT_T1>(at.cast()))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        with_token!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        with_token!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        with_token!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        with_token!(_mm512_sqrt_ps(a))
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        with_token!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        with_token!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes))
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        with_token!({
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        })
    }

    #[inline(always)]
    fn reduce_sum(self, v: Self::F) -> f32 {
        with_token!({
            let v8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_add_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
        })
    }

    #[inline(always)]
    fn reduce_sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        // Halves of two side by side, quarters of four, then within the quarters.
        const LOW: i32 = 0b01_00_01_00;
        const HIGH: i32 = 0b11_10_11_10;
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        with_token!({
            let ab8 = _mm512_add_ps(_mm512_shuffle_f32x4::<LOW>(a, b), _mm512_shuffle_f32x4::<HIGH>(a, b));
            let cd8 = _mm512_add_ps(_mm512_shuffle_f32x4::<LOW>(c, d), _mm512_shuffle_f32x4::<HIGH>(c, d));
            let v4 = _mm512_add_ps(
                _mm512_shuffle_f32x4::<EVEN>(ab8, cd8),
                _mm512_shuffle_f32x4::<ODD>(ab8, cd8),
            );
            let v2 = _mm512_add_ps(v4, _mm512_shuffle_ps::<HIGH>(v4, v4));
            let v1 = _mm512_add_ps(v2, _mm512_movehdup_ps(v2));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(
                sums.as_mut_ptr(),
                _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, v1)),
            );
            sums
        })
    }

    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        with_token!({
            let v8 = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_max_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
        })
    }

    #[inline(always)]
    fn load_or(self, a: &[f32], fill: f32) -> Self::F {
        let n = a.len().min(LANES);
        let mask = ((1u32 << n) - 1) as __mmask16;
        // SAFETY: the token proves the instructions; masked-off lanes are not read, and `n` lanes lie inside `a`.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, a.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, v: Self::F, a: &mut [f32]) {
        let n = a.len().min(LANES);
        let mask = ((1u32 << n) - 1) as __mmask16;
        // SAFETY: the token proves the instructions; masked-off lanes are not written, and `n` lanes lie inside `a`.
        unsafe { _mm512_mask_storeu_ps(a.as_mut_ptr(), mask, v) }
    }
}
