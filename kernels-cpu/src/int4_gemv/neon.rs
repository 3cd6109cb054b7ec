//! NEON, and with FEAT_DotProd: a group is a register of sixteen bytes.
#![allow(unused_unsafe)] // most intrinsics are safe on targets that always have NEON, and not on the others

use core::arch::aarch64::*;
use core::arch::asm;

use half::f16;

use super::{BLOCK_BYTES, BLOCK_STEPS, Dots, InputBlock};
use crate::bytes::Bytes;
use crate::isa::{Dotprod, Neon};

/// Each of four values in four lanes.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn four_times(v: float32x4_t) -> [float32x4_t; 4] {
    // SAFETY: as the caller says.
    unsafe {
        [
            vdupq_laneq_f32::<0>(v),
            vdupq_laneq_f32::<1>(v),
            vdupq_laneq_f32::<2>(v),
            vdupq_laneq_f32::<3>(v),
        ]
    }
}

macro_rules! dots_128 {
    ($token:ident, |$self:ident| $simd:expr) => {
        impl Dots for $token {
            type S = Neon;
            type Codes = [int8x16_t; 4];

            #[inline(always)]
            fn simd($self) -> Neon {
                $simd
            }

            #[inline(always)]
            fn open(self, codes: &[u8; BLOCK_BYTES]) -> Self::Codes {
                let mut all = [self.splat(0); 4];
                for group in 0..4 {
                    all[group] = self.load(codes, group);
                }
                all
            }

            #[inline(always)]
            fn sums(self, codes: Self::Codes, x: &InputBlock) -> [float32x4_t; 4] {
                // SAFETY: the token proves NEON; four offsets from `4 · group`, up to 12, lie inside the sixteen.
                unsafe {
                    let mut sums = [vdupq_n_f32(0.0); 4];
                    for group in 0..4 {
                        let low = vandq_s8(codes[group], vdupq_n_s8(15));
                        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(codes[group])));
                        let sum = vld1q_s32(x.offsets.as_ptr().add(4 * group));
                        let sum = self.dot_words(sum, low, self.load(&x.low, group));
                        let sum = self.dot_words(sum, high, self.load(&x.high, group));
                        sums[group] = vcvtq_f32_s32(sum);
                    }
                    sums
                }
            }

            #[inline(always)]
            fn weight_steps(self, w: &[f16; BLOCK_STEPS]) -> [float32x4_t; 4] {
                // SAFETY: the token proves NEON; four halves that the reference covers.
                unsafe {
                    let halves = vld1_u16(w.as_ptr().cast());
                    let wide: float32x4_t;
                    // The intrinsic is not stable yet.
                    asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
                    four_times(wide)
                }
            }

            #[inline(always)]
            fn input_steps(self, x: &[f32; BLOCK_STEPS]) -> [float32x4_t; 4] {
                // SAFETY: the token proves NEON; four floats that the reference covers.
                unsafe { four_times(vld1q_f32(x.as_ptr())) }
            }
        }
    };
}
dots_128!(Neon, |self| self);
dots_128!(Dotprod, |self| self.neon());
