//! 128-bit registers: NEON, and with FEAT_DotProd.
#![allow(unused_unsafe)] // most intrinsics are safe on targets that always have NEON, and not on the others

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Byte, Bytes, word_of};
use crate::isa::{Dotprod, Neon};
use crate::t5::{HIGH, LOW};

/// Wraps intrinsic calls; every method of this file goes through it.
macro_rules! with_token {
    ($e:expr) => {
        // SAFETY: `self`, the token, proves that the CPU has NEON; memory operands are references to sixteen bytes, to 64 or to sixteen
        // sums, of which part `part & 3` lies inside, read and written at any alignment.
        unsafe {
            $e
        }
    };
}

/// 64 bytes in four registers.
#[inline(always)]
fn table(token: impl Bytes<V = int8x16_t>, entries: &[u8; 64]) -> uint8x16x4_t {
    let (a, b) = (token.load(entries, 0), token.load(entries, 1));
    let (c, d) = (token.load(entries, 2), token.load(entries, 3));
    with_token!(uint8x16x4_t(
        vreinterpretq_u8_s8(a),
        vreinterpretq_u8_s8(b),
        vreinterpretq_u8_s8(c),
        vreinterpretq_u8_s8(d)
    ))
}

macro_rules! bytes_of {
    ($token:ident, |$acc:ident, $a:ident, $b:ident| $dot:expr, $dot_words:expr, $dot_any:expr, $dot_any_words:expr) => {
        impl Bytes for $token {
            type V = int8x16_t;
            type Acc = int32x4_t;
            type Tables = (uint8x16x4_t, uint8x16x4_t);
            const PARTS: usize = 4;
            const OFFSET: i32 = 0;

            #[inline(always)]
            fn load<T: Byte>(self, bytes: &[T; 64], part: usize) -> int8x16_t {
                const { assert!(size_of::<T>() == 1) };
                with_token!(vld1q_s8(bytes.as_ptr().cast::<i8>().add(16 * (part & 3))))
            }
            #[inline(always)]
            fn load_quarter<T: Byte>(self, bytes: &[T; 16]) -> int8x16_t {
                const { assert!(size_of::<T>() == 1) };
                with_token!(vld1q_s8(bytes.as_ptr().cast::<i8>()))
            }
            #[inline(always)]
            fn splat(self, b: u8) -> int8x16_t {
                with_token!(vdupq_n_s8(b as i8))
            }
            #[inline(always)]
            fn splat_word(self, word: [i8; 4]) -> int8x16_t {
                with_token!(vreinterpretq_s8_s32(vdupq_n_s32(word_of(word))))
            }
            #[inline(always)]
            fn and(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
                with_token!(vandq_s8(a, b))
            }
            #[inline(always)]
            fn or(self, a: int8x16_t, b: int8x16_t) -> int8x16_t {
                with_token!(vorrq_s8(a, b))
            }
            #[inline(always)]
            fn top2(self, v: int8x16_t) -> int8x16_t {
                with_token!(vreinterpretq_s8_u8(vshrq_n_u8::<6>(vreinterpretq_u8_s8(v))))
            }
            #[inline(always)]
            fn halved(self, v: int8x16_t) -> int8x16_t {
                with_token!(vreinterpretq_s8_u8(vshrq_n_u8::<1>(vreinterpretq_u8_s8(v))))
            }
            #[inline(always)]
            fn signed(self, v: int8x16_t) -> int8x16_t {
                v
            }
            #[inline(always)]
            fn sums(self, x: i32) -> int32x4_t {
                with_token!(vdupq_n_s32(x))
            }
            #[inline(always)]
            fn dot(self, $acc: int32x4_t, $a: int8x16_t, $b: int8x16_t) -> int32x4_t {
                with_token!($dot)
            }
            #[inline(always)]
            fn dot_words(self, $acc: int32x4_t, $a: int8x16_t, $b: int8x16_t) -> int32x4_t {
                with_token!($dot_words)
            }
            #[inline(always)]
            fn dot_any(self, $acc: int32x4_t, $a: int8x16_t, $b: int8x16_t) -> int32x4_t {
                with_token!($dot_any)
            }
            #[inline(always)]
            fn dot_any_words(self, $acc: int32x4_t, $a: int8x16_t, $b: int8x16_t) -> int32x4_t {
                with_token!($dot_any_words)
            }
            #[inline(always)]
            fn total(self, rows: [[int32x4_t; 3]; 4]) -> [i32; 4] {
                with_token!({
                    let mut sums = [vdupq_n_s32(0); 4];
                    for r in 0..4 {
                        let [a, b, c] = rows[r];
                        sums[r] = vsraq_n_s32::<4>(vsraq_n_s32::<2>(a, b), c);
                    }
                    let (low, high) = (vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
                    let mut four = [0; 4];
                    vst1q_s32(four.as_mut_ptr(), vpaddq_s32(low, high));
                    four
                })
            }
            #[inline(always)]
            fn total_quarters(self, parts: [[int32x4_t; 3]; 4]) -> [i32; 4] {
                // A register is sixteen bytes.
                self.total(parts)
            }
            #[inline(always)]
            fn add(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                with_token!(vaddq_s32(a, b))
            }
            #[inline(always)]
            fn store(self, sums: int32x4_t, to: &mut [i32; 16], part: usize) {
                with_token!(vst1q_s32(to.as_mut_ptr().add(4 * (part & 3)), sums))
            }
            #[inline(always)]
            fn tables(self) -> Self::Tables {
                (table(self, &LOW), table(self, &HIGH))
            }
            #[inline(always)]
            fn look_up(self, tables: &Self::Tables, bytes: int8x16_t) -> (int8x16_t, int8x16_t) {
                with_token!({
                    let bytes = vreinterpretq_u8_s8(bytes);
                    let low = vqtbl4q_u8(tables.0, vandq_u8(bytes, vdupq_n_u8(63)));
                    let high = vqtbl4q_u8(tables.1, vshrq_n_u8::<2>(bytes));
                    (vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high))
                })
            }
        }
    };
}

bytes_of!(
    Neon,
    |acc, a, b| {
        // Two products a lane: at most 2 · 127 · 128 = 32512 in magnitude.
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        vpadalq_s16(acc, vmlal_high_s8(low, a, b))
    },
    {
        let (low, high) = (vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
        vpadalq_s16(acc, vpaddq_s16(low, high))
    },
    {
        // Two products of −128 · −128 would not fit.
        let low = vpadalq_s16(acc, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        vpadalq_s16(low, vmull_high_s8(a, b))
    },
    {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
        vaddq_s32(acc, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))))
    }
);
bytes_of!(
    Dotprod,
    |acc, a, b| sdot(acc, a, b),
    sdot(acc, a, b),
    sdot(acc, a, b),
    sdot(acc, a, b)
);

/// `acc + a·b`, four products a lane. The intrinsic is not stable yet.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction exists, as the caller says, and works on registers alone. The assembler is told of it here, since
    // this function may be compiled by itself too.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    acc
}
