//! Sixteen lanes in four 128-bit registers.
#![allow(unused_unsafe)] // most intrinsics are safe on targets that always have NEON, and not on the others

use core::arch::aarch64::*;
use core::arch::asm;

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Neon;

/// Wraps intrinsic calls; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has NEON; memory operands are references to sixteen elements,
        // of which quarter `i` (0 to 3) begins at `4 i`, read and written unaligned.
        unsafe { $e }
    };
}

/// `body` for each of the four quarters. A macro, since a closure can fall out of the instruction set of the function around it.
macro_rules! quarters {
    (|$i:ident| $body:expr) => {
        with_token!([
            {
                let $i = 0usize;
                $body
            },
            {
                let $i = 1usize;
                $body
            },
            {
                let $i = 2usize;
                $body
            },
            {
                let $i = 3usize;
                $body
            },
        ])
    };
}

impl Simd for Neon {
    type F = [float32x4_t; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        with_token!([vdupq_n_f32(x); 4])
    }

    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Self::F {
        quarters!(|i| vld1q_f32(a.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn store(self, v: Self::F, a: &mut [f32; LANES]) {
        quarters!(|i| vst1q_f32(a.as_mut_ptr().add(4 * i), v[i]));
    }

    #[inline(always)]
    fn load_f16(self, a: &[f16; LANES]) -> Self::F {
        quarters!(|i| {
            let halves = vld1_u16(a.as_ptr().cast::<u16>().add(4 * i));
            let wide: float32x4_t;
            // The intrinsic is not stable yet.
            asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
            wide
        })
    }

    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F {
        quarters!(|i| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(a.as_ptr().cast::<u16>().add(4 * i)))))
    }

    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Self::F {
        with_token!({
            let bytes = vld1q_s8(a.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        })
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, a: &mut [i8; LANES]) {
        with_token!({
            let low = vcombine_s16(vqmovn_s32(vcvtq_s32_f32(v[0])), vqmovn_s32(vcvtq_s32_f32(v[1])));
            let high = vcombine_s16(vqmovn_s32(vcvtq_s32_f32(v[2])), vqmovn_s32(vcvtq_s32_f32(v[3])));
            vst1q_s8(a.as_mut_ptr(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        })
    }

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint, whatever the address.
        unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vaddq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vsubq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vdivq_f32(a[i], b[i]))
    }

    // Not `fmax` and `fmin`, whose NaN is another.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(|i| vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(|i| vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(|i| vfmsq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        quarters!(|i| vabsq_f32(a[i]))
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        quarters!(|i| vsqrtq_f32(a[i]))
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        quarters!(|i| vrndnq_f32(a[i]))
    }

    #[inline(always)]
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        quarters!(|i| vbslq_f32(vcgtq_f32(a[i], b[i]), yes[i], no[i]))
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        quarters!(|i| {
            let biased = vaddq_s32(vcvtq_s32_f32(n[i]), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn reduce_sum(self, v: Self::F) -> f32 {
        with_token!({
            let v4 = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v2 = vadd_f32(vget_low_f32(v4), vget_high_f32(v4));
            vget_lane_f32::<0>(v2) + vget_lane_f32::<1>(v2)
        })
    }

    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        // As `max`, on one register and on half of one.
        macro_rules! max {
            ($a:expr, $b:expr, $select:ident, $greater:ident) => {{
                let (a, b) = ($a, $b);
                $select($greater(a, b), a, b)
            }};
        }
        with_token!({
            let v4 = max!(
                max!(v[0], v[2], vbslq_f32, vcgtq_f32),
                max!(v[1], v[3], vbslq_f32, vcgtq_f32),
                vbslq_f32,
                vcgtq_f32
            );
            let v2 = max!(vget_low_f32(v4), vget_high_f32(v4), vbsl_f32, vcgt_f32);
            let (x, y) = (vget_lane_f32::<0>(v2), vget_lane_f32::<1>(v2));
            if x > y { x } else { y }
        })
    }
}
