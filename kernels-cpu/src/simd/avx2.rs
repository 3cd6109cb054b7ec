//! Sixteen lanes in two 256-bit registers.

use core::arch::x86_64::*;

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Avx2;

/// Wraps one intrinsic call; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has the instructions; memory operands are references to
        // sixteen elements, read and written unaligned.
        unsafe { $e }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        with_token!([_mm256_set1_ps(x); 2])
    }

    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Self::F {
        with_token!([_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(a.as_ptr().add(8))])
    }

    #[inline(always)]
    fn store(self, v: Self::F, a: &mut [f32; LANES]) {
        with_token!({
            _mm256_storeu_ps(a.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(a.as_mut_ptr().add(8), v[1]);
        })
    }

    #[inline(always)]
    fn load_f16(self, a: &[f16; LANES]) -> Self::F {
        with_token!({
            let p = a.as_ptr().cast::<__m128i>();
            [
                _mm256_cvtph_ps(_mm_loadu_si128(p)),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(1))),
            ]
        })
    }

    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F {
        with_token!({
            let p = a.as_ptr().cast::<__m128i>();
            let (lo, hi) = (
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p)),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(1))),
            );
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(lo)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(hi)),
            ]
        })
    }

    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Self::F {
        with_token!({
            let v = _mm_loadu_si128(a.as_ptr().cast());
            let (lo, hi) = (_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v)));
            [_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)]
        })
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, a: &mut [i8; LANES]) {
        with_token!({
            // packs interleaves the 128-bit halves: 0-3 8-11 | 4-7 12-15; the permute puts the quarters back in order.
            let w = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let w = _mm256_permute4x64_epi64::<0b11_01_10_00>(w);
            let b = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256::<1>(w));
            _mm_storeu_si128(a.as_mut_ptr().cast(), b);
        })
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        with_token!(_mm_prefetch::<_MM_HINT_T1>(at.cast()))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        with_token!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        with_token!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }

    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        with_token!([_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])])
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        with_token!({
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        })
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        with_token!([_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])])
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        with_token!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }

    #[inline(always)]
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        with_token!([
            _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0])),
            _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]))
        ])
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        with_token!({
            let bias = _mm256_set1_epi32(127);
            let lo = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias));
            let hi = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias));
            [_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)]
        })
    }

    #[inline(always)]
    fn reduce_sum(self, v: Self::F) -> f32 {
        with_token!({
            let v8 = _mm256_add_ps(v[0], v[1]);
            let v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_add_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
        })
    }

    #[inline(always)]
    fn reduce_sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        with_token!({
            let (a8, b8) = (_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1]));
            let (c8, d8) = (_mm256_add_ps(c[0], c[1]), _mm256_add_ps(d[0], d[1]));
            // Halves of two side by side, then of `a` and `c` and of `b` and `d` within a half.
            let ab4 = _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(a8, b8),
                _mm256_permute2f128_ps::<0x31>(a8, b8),
            );
            let cd4 = _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(c8, d8),
                _mm256_permute2f128_ps::<0x31>(c8, d8),
            );
            let v2 = _mm256_add_ps(
                _mm256_shuffle_ps::<0b01_00_01_00>(ab4, cd4),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab4, cd4),
            );
            let v1 = _mm256_add_ps(v2, _mm256_movehdup_ps(v2));
            // a · c ·, b · d ·
            let (ac, bd) = (_mm256_castps256_ps128(v1), _mm256_extractf128_ps::<1>(v1));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(
                sums.as_mut_ptr(),
                _mm_unpacklo_ps(
                    _mm_shuffle_ps::<0b10_00_10_00>(ac, ac),
                    _mm_shuffle_ps::<0b10_00_10_00>(bd, bd),
                ),
            );
            sums
        })
    }

    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        with_token!({
            let v8 = _mm256_max_ps(v[0], v[1]);
            let v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps::<1>(v8));
            let v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_max_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
        })
    }
}
