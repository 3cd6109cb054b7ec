//! 128-bit registers. NEON: columns in 16 bits by `smlal` and `smlal2`, over a whole batch. FEAT_DotProd: `sdot`.
#![allow(unused_unsafe)] // most intrinsics are safe on targets that always have NEON, and not on the others

use core::arch::aarch64::*;
use core::arch::asm;

use super::Line;
use super::lanes::Lanes;
use crate::bytes::Bytes;
use crate::isa::{Dotprod, Neon};

/// Wraps intrinsic calls; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has NEON; memory operands are references to sixteen sums, of which part `part & 3`
        // lies inside, read and written at any alignment.
        unsafe { $e }
    };
}

macro_rules! zip {
    ($name:ident, $zip:ident) => {
        #[inline(always)]
        fn $name(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
            with_token!($zip(a, b))
        }
    };
    ($name:ident, $zip:ident, pairs) => {
        #[inline(always)]
        fn $name(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
            with_token!(vreinterpretq_s8_s16($zip(
                vreinterpretq_s16_s8(a),
                vreinterpretq_s16_s8(b)
            )))
        }
    };
}

macro_rules! lanes_of {
    ($token:ident, $sums_of:ty, $whole:literal, $zero:expr, |$self:ident, $sums:ident, $codes:ident, $x:ident| $add:expr, |$sum:ident, $field:ident| $total:expr) => {
        impl Lanes for $token {
            type V = int8x16_t;
            type Sums = $sums_of;
            const PARTS: usize = 4;
            const WHOLE: bool = $whole;

            #[inline(always)]
            fn load(self, line: &Line, part: usize) -> int8x16_t {
                Bytes::load(self, &line.0, part)
            }
            zip!(low_bytes, vzip1q_s8);
            zip!(high_bytes, vzip2q_s8);
            zip!(low_pairs, vzip1q_s16, pairs);
            zip!(high_pairs, vzip2q_s16, pairs);
            #[inline(always)]
            fn word(self, x: [i8; 4]) -> int8x16_t {
                let mut x = self.splat_word(x);
                // SAFETY: it does nothing. The compiler no longer sees that both halves are the same; else it would move each upper half of
                // the codes down for a `smlal` instead of taking `smlal2`.
                unsafe { asm!("/* {0:v} */", inout(vreg) x, options(pure, nomem, nostack, preserves_flags)) };
                x
            }
            #[inline(always)]
            fn zero(self) -> $sums_of {
                with_token!($zero)
            }
            #[inline(always)]
            fn add($self, $sums: [$sums_of; 4], $codes: int8x16_t, $x: int8x16_t) -> [$sums_of; 4] {
                with_token!($add)
            }
            #[inline(always)]
            fn finish(self, $sum: $sums_of, $field: usize, out: &mut [i32; 16], part: usize) {
                with_token!({
                    let to = out.as_mut_ptr().add(4 * (part & 3));
                    vst1q_s32(to, vaddq_s32(vld1q_s32(to), $total));
                })
            }
        }
    };
}

/// The sums of two rows by four columns, and of the next two.
type Eights = (int16x8_t, int16x8_t);

/// `sums + codes·x`.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn multiply_add(sums: Eights, codes: int8x16_t, x: int8x16_t) -> Eights {
    // SAFETY: as the caller says.
    unsafe {
        (
            vmlal_s8(sums.0, vget_low_s8(codes), vget_low_s8(x)),
            vmlal_high_s8(sums.1, codes, x),
        )
    }
}

lanes_of!(
    Neon,
    Eights,
    false,
    (vdupq_n_s16(0), vdupq_n_s16(0)),
    |self, sums, codes, x| {
        // Sixteen products, at most `12 · 128` each, are 24576: field 1 may stay where it is, and field 3 in the place of field 1.
        let (first, second) = (vdupq_n_s8(0x03), vdupq_n_s8(0x0c));
        let upper = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(codes)));
        let [a, b, c, d] = sums;
        [
            multiply_add(a, vandq_s8(codes, first), x),
            multiply_add(b, vandq_s8(codes, second), x),
            multiply_add(c, vandq_s8(upper, first), x),
            multiply_add(d, vandq_s8(upper, second), x),
        ]
    },
    |sum, field| {
        let four = vpaddq_s32(vpaddlq_s16(sum.0), vpaddlq_s16(sum.1));
        vshlq_s32(four, vdupq_n_s32(-2 * (field as i32 & 1)))
    }
);

lanes_of!(
    Dotprod,
    int32x4_t,
    true,
    vdupq_n_s32(0),
    |self, sums, codes, x| {
        // The topmost field is shifted down, since codes are signed bytes here.
        let [a, b, c, d] = sums;
        [
            self.dot(a, vandq_s8(codes, vdupq_n_s8(0x03)), x),
            self.dot(b, vandq_s8(codes, vdupq_n_s8(0x0c)), x),
            self.dot(c, vandq_s8(codes, vdupq_n_s8(0x30)), x),
            self.dot(d, self.top2(codes), x),
        ]
    },
    |sum, field| {
        let count = if field == 3 { 0 } else { -2 * field as i32 };
        vshlq_s32(sum, vdupq_n_s32(count))
    }
);
