//! Sixteen lanes in four 128-bit registers of WebAssembly (SIMD128).
//!
//! WebAssembly has no fused multiply-add (relaxed SIMD has one that engines may leave unfused). A product of two f32 is exact in f64, so `a·b + c` there is rounded
//! once to 53 bits, and a second time to 24. The second rounding goes wrong only where the first ended on the middle between two f32, or where the f32 is subnormal and
//! has fewer bits: such lanes are looked for, and all sixteen are then computed again with a first rounding to odd, after which the second is always right (Boldo and
//! Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).

use core::arch::wasm32::*;

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Simd128;

type Four = [v128; 4];

/// Where the bits of an f64 that an f32 has no place for are exactly half of its last place.
const BELOW: i64 = 0x1fff_ffff;
const HALF: i64 = 0x1000_0000;

#[inline(always)]
fn each(a: Four, f: impl Fn(v128) -> v128) -> Four {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn zip(a: Four, b: Four, f: impl Fn(v128, v128) -> v128) -> Four {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// The first two lanes, or the last two, in f64.
#[inline(always)]
fn wide<const HIGH: bool>(v: v128) -> v128 {
    f64x2_promote_low_f32x4(if HIGH { i64x2_shuffle::<1, 1>(v, v) } else { v })
}

#[inline(always)]
fn narrow(low: v128, high: v128) -> v128 {
    i32x4_shuffle::<0, 1, 4, 5>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high))
}

/// `a·b + c` rounded twice, and in which lanes that may not be the sum rounded once.
#[inline(always)]
fn fma_twice(a: v128, b: v128, c: v128) -> (v128, v128) {
    let low = f64x2_add(f64x2_mul(wide::<false>(a), wide::<false>(b)), wide::<false>(c));
    let high = f64x2_add(f64x2_mul(wide::<true>(a), wide::<true>(b)), wide::<true>(c));
    let sum = narrow(low, high);
    let (below, half) = (i64x2_splat(BELOW), i64x2_splat(HALF));
    let halves = v128_or(
        i64x2_eq(v128_and(low, below), half),
        i64x2_eq(v128_and(high, below), half),
    );
    let small = f32x4_le(f32x4_abs(sum), f32x4_splat(f32::MIN_POSITIVE));
    (sum, v128_or(halves, small))
}

/// `a·b + c` of two lanes in f64, rounded to odd: what is left over makes the last bit 1.
#[inline(always)]
fn sum_odd(a: v128, b: v128, c: v128) -> v128 {
    let product = f64x2_mul(a, b);
    let sum = f64x2_add(product, c);
    // Knuth's two-sum: the error of the sum, exactly. Not a number where the sum is infinite, which then stays as it is.
    let c_part = f64x2_sub(sum, product);
    let product_part = f64x2_sub(sum, c_part);
    let error = f64x2_add(f64x2_sub(product, product_part), f64x2_sub(c, c_part));
    let inexact = v128_and(f64x2_gt(f64x2_abs(error), f64x2_splat(0.0)), i64x2_splat(1));
    // Where the sum was rounded away from 0, the number before it.
    let away = v128_and(u64x2_shr(v128_xor(sum, error), 63), inexact);
    v128_or(i64x2_sub(sum, away), inexact)
}

/// `a·b + c` rounded once, for any lanes.
#[inline(never)]
fn fma_exact(a: Four, b: Four, c: Four) -> Four {
    let mut sums = c;
    for i in 0..4 {
        let low = sum_odd(wide::<false>(a[i]), wide::<false>(b[i]), wide::<false>(c[i]));
        let high = sum_odd(wide::<true>(a[i]), wide::<true>(b[i]), wide::<true>(c[i]));
        sums[i] = narrow(low, high);
    }
    sums
}

/// Four halves in the lower bits of four lanes, as f32.
#[inline(always)]
fn widen_f16(halves: v128) -> v128 {
    let sign = i32x4_shl(v128_and(halves, i32x4_splat(0x8000)), 16);
    let magnitude = i32x4_shl(v128_and(halves, i32x4_splat(0x7fff)), 13);
    // The difference of the exponents' biases; exact for subnormals too.
    let number = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let infinity = i32x4_splat(0x7c00 << 13);
    let special = v128_and(i32x4_ge(magnitude, infinity), i32x4_splat(0x7f80_0000));
    let quiet = v128_and(i32x4_gt(magnitude, infinity), i32x4_splat(0x0040_0000));
    v128_or(v128_or(number, sign), v128_or(special, quiet))
}

/// Sixteen bytes at `at`.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn read<T>(at: *const T) -> v128 {
    // SAFETY: as the caller says; the load may be misaligned.
    unsafe { v128_load(at.cast()) }
}

/// Sixteen numbers of 16 bits as the lower halves of four registers of 32.
#[inline(always)]
fn read_halves<T>(a: &[T; LANES]) -> Four {
    const { assert!(size_of::<T>() == 2) };
    // SAFETY: the reference covers 32 bytes.
    let (low, high) = unsafe { (read(a.as_ptr()), read(a.as_ptr().add(8))) };
    [
        u32x4_extend_low_u16x8(low),
        u32x4_extend_high_u16x8(low),
        u32x4_extend_low_u16x8(high),
        u32x4_extend_high_u16x8(high),
    ]
}

/// Sixteen numbers of 32 bits.
#[inline(always)]
fn read_words<T>(a: &[T; LANES]) -> Four {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: the reference covers 64 bytes.
    unsafe {
        [
            read(a.as_ptr()),
            read(a.as_ptr().add(4)),
            read(a.as_ptr().add(8)),
            read(a.as_ptr().add(12)),
        ]
    }
}

#[inline(always)]
fn greater(a: v128, b: v128) -> v128 {
    v128_bitselect(a, b, f32x4_gt(a, b))
}

impl Simd for Simd128 {
    type F = Four;
    /// Sixteen registers on x86.
    const REGISTERS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Four {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Four {
        read_words(a)
    }
    #[inline(always)]
    fn store(self, v: Four, a: &mut [f32; LANES]) {
        for (to, v) in a.as_chunks_mut::<4>().0.iter_mut().zip(v) {
            // SAFETY: the reference covers sixteen bytes; the store may be misaligned.
            unsafe { v128_store(to.as_mut_ptr().cast(), v) };
        }
    }
    #[inline(always)]
    fn load_f16(self, a: &[f16; LANES]) -> Four {
        each(read_halves(a), widen_f16)
    }
    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Four {
        each(read_halves(a), |halves| i32x4_shl(halves, 16))
    }
    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Four {
        // SAFETY: the reference covers sixteen bytes.
        let bytes = unsafe { read(a.as_ptr()) };
        let (low, high) = (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes));
        let words = [
            i32x4_extend_low_i16x8(low),
            i32x4_extend_high_i16x8(low),
            i32x4_extend_low_i16x8(high),
            i32x4_extend_high_i16x8(high),
        ];
        each(words, |v| f32x4_convert_i32x4(v))
    }
    #[inline(always)]
    fn load_i32(self, a: &[i32; LANES]) -> Four {
        each(read_words(a), |v| f32x4_convert_i32x4(v))
    }
    #[inline(always)]
    fn store_i8(self, v: Four, a: &mut [i8; LANES]) {
        let v = each(v, |v| i32x4_trunc_sat_f32x4(v));
        let bytes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(v[0], v[1]), i16x8_narrow_i32x4(v[2], v[3]));
        // SAFETY: the reference covers sixteen bytes; the store may be misaligned.
        unsafe { v128_store(a.as_mut_ptr().cast(), bytes) };
    }
    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        zip(a, b, |a, b| f32x4_add(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        zip(a, b, |a, b| f32x4_sub(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        zip(a, b, |a, b| f32x4_mul(a, b))
    }
    #[inline(always)]
    fn div(self, a: Four, b: Four) -> Four {
        zip(a, b, |a, b| f32x4_div(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Four, b: Four, c: Four) -> Four {
        let (mut sums, mut doubts) = (c, i32x4_splat(0));
        for i in 0..4 {
            let (sum, doubt) = fma_twice(a[i], b[i], c[i]);
            sums[i] = sum;
            doubts = v128_or(doubts, doubt);
        }
        if v128_any_true(doubts) {
            fma_exact(a, b, c)
        } else {
            sums
        }
    }
    #[inline(always)]
    fn fnma(self, a: Four, b: Four, c: Four) -> Four {
        self.fma(each(a, |v| f32x4_neg(v)), b, c)
    }
    #[inline(always)]
    fn max(self, a: Four, b: Four) -> Four {
        zip(a, b, greater)
    }
    #[inline(always)]
    fn min(self, a: Four, b: Four) -> Four {
        zip(a, b, |a, b| v128_bitselect(a, b, f32x4_lt(a, b)))
    }
    #[inline(always)]
    fn abs(self, a: Four) -> Four {
        each(a, |v| f32x4_abs(v))
    }
    #[inline(always)]
    fn sqrt(self, a: Four) -> Four {
        each(a, |v| f32x4_sqrt(v))
    }
    #[inline(always)]
    fn round(self, a: Four) -> Four {
        each(a, |v| f32x4_nearest(v))
    }
    #[inline(always)]
    fn select_gt(self, a: Four, b: Four, yes: Four, no: Four) -> Four {
        let mask = zip(a, b, |a, b| f32x4_gt(a, b));
        let mut chosen = no;
        for i in 0..4 {
            chosen[i] = v128_bitselect(yes[i], no[i], mask[i]);
        }
        chosen
    }
    #[inline(always)]
    fn exp2_int(self, n: Four) -> Four {
        each(n, |n| {
            i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23)
        })
    }
    #[inline(always)]
    fn reduce_sum(self, v: Four) -> f32 {
        let v4 = f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3]));
        let v2 = f32x4_add(v4, i64x2_shuffle::<1, 1>(v4, v4));
        f32x4_extract_lane::<0>(v2) + f32x4_extract_lane::<1>(v2)
    }
    #[inline(always)]
    fn reduce_max(self, v: Four) -> f32 {
        let v4 = greater(greater(v[0], v[2]), greater(v[1], v[3]));
        let v2 = greater(v4, i64x2_shuffle::<1, 1>(v4, v4));
        let (x, y) = (f32x4_extract_lane::<0>(v2), f32x4_extract_lane::<1>(v2));
        if x > y { x } else { y }
    }
}
