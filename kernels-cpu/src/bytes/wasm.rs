//! 128-bit registers of WebAssembly (SIMD128).
//!
//! A product of bytes is widened to 16 bits and added pairwise to 32: `i32x4.dot_i16x8_s`, which is one instruction on x86 and three on ARM.
//! No relaxed instruction: their results differ between machines.

use core::arch::wasm32::*;

use super::{Byte, Bytes, word_of};
use crate::isa::Simd128;
use crate::t5::{HIGH, LOW};

/// 64 bytes in four registers.
#[inline(always)]
fn table(token: Simd128, entries: &[u8; 64]) -> [v128; 4] {
    [
        token.load(entries, 0),
        token.load(entries, 1),
        token.load(entries, 2),
        token.load(entries, 3),
    ]
}

/// The entry of a table for each index below 64: a lane that is not of a register gives 0.
#[inline(always)]
fn entries(table: &[v128; 4], index: v128) -> v128 {
    let mut found = u8x16_swizzle(table[0], index);
    found = v128_or(found, u8x16_swizzle(table[1], u8x16_sub(index, u8x16_splat(16))));
    found = v128_or(found, u8x16_swizzle(table[2], u8x16_sub(index, u8x16_splat(32))));
    v128_or(found, u8x16_swizzle(table[3], u8x16_sub(index, u8x16_splat(48))))
}

/// `a + b` lanes in pairs: those of `a`, then those of `b`.
#[inline(always)]
fn pairs(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}

/// Sums of two products: of the first eight bytes, and of the last.
#[inline(always)]
fn twos(a: v128, b: v128) -> (v128, v128) {
    (
        i32x4_dot_i16x8(i16x8_extend_low_i8x16(a), i16x8_extend_low_i8x16(b)),
        i32x4_dot_i16x8(i16x8_extend_high_i8x16(a), i16x8_extend_high_i8x16(b)),
    )
}

impl Bytes for Simd128 {
    type V = v128;
    type Acc = v128;
    type Tables = ([v128; 4], [v128; 4]);
    const PARTS: usize = 4;
    const OFFSET: i32 = 0;

    #[inline(always)]
    fn load<T: Byte>(self, bytes: &[T; 64], part: usize) -> v128 {
        const { assert!(size_of::<T>() == 1) };
        // SAFETY: part `part & 3` of 64 bytes lies inside them; the load may be misaligned.
        unsafe { v128_load(bytes.as_ptr().cast::<u8>().add(16 * (part & 3)).cast()) }
    }
    #[inline(always)]
    fn load_quarter<T: Byte>(self, bytes: &[T; 16]) -> v128 {
        const { assert!(size_of::<T>() == 1) };
        // SAFETY: sixteen bytes that the reference covers; the load may be misaligned.
        unsafe { v128_load(bytes.as_ptr().cast()) }
    }
    #[inline(always)]
    fn splat(self, b: u8) -> v128 {
        u8x16_splat(b)
    }
    #[inline(always)]
    fn splat_word(self, word: [i8; 4]) -> v128 {
        i32x4_splat(word_of(word))
    }
    #[inline(always)]
    fn and(self, a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }
    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    fn top2(self, v: v128) -> v128 {
        u8x16_shr(v, 6)
    }
    #[inline(always)]
    fn halved(self, v: v128) -> v128 {
        u8x16_shr(v, 1)
    }
    #[inline(always)]
    fn signed(self, v: v128) -> v128 {
        v
    }
    #[inline(always)]
    fn sums(self, x: i32) -> v128 {
        i32x4_splat(x)
    }
    #[inline(always)]
    fn dot(self, acc: v128, codes: v128, x: v128) -> v128 {
        let (low, high) = twos(codes, x);
        i32x4_add(i32x4_add(acc, low), high)
    }
    #[inline(always)]
    fn dot_words(self, acc: v128, codes: v128, x: v128) -> v128 {
        let (low, high) = twos(codes, x);
        i32x4_add(acc, pairs(low, high))
    }
    #[inline(always)]
    fn dot_any(self, acc: v128, w: v128, x: v128) -> v128 {
        self.dot(acc, w, x)
    }
    #[inline(always)]
    fn dot_any_words(self, acc: v128, w: v128, x: v128) -> v128 {
        self.dot_words(acc, w, x)
    }
    #[inline(always)]
    fn total(self, rows: [[v128; 3]; 4]) -> [i32; 4] {
        let mut sums = [i32x4_splat(0); 4];
        for r in 0..4 {
            let [a, b, c] = rows[r];
            sums[r] = i32x4_add(i32x4_add(a, i32x4_shr(b, 2)), i32x4_shr(c, 4));
        }
        let four = pairs(pairs(sums[0], sums[1]), pairs(sums[2], sums[3]));
        [
            i32x4_extract_lane::<0>(four),
            i32x4_extract_lane::<1>(four),
            i32x4_extract_lane::<2>(four),
            i32x4_extract_lane::<3>(four),
        ]
    }
    #[inline(always)]
    fn total_quarters(self, parts: [[v128; 3]; 4]) -> [i32; 4] {
        // A register is sixteen bytes.
        self.total(parts)
    }
    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }
    #[inline(always)]
    fn store(self, sums: v128, to: &mut [i32; 16], part: usize) {
        // SAFETY: part `part & 3` of sixteen sums lies inside them; the store may be misaligned.
        unsafe { v128_store(to.as_mut_ptr().add(4 * (part & 3)).cast(), sums) }
    }
    #[inline(always)]
    fn tables(self) -> Self::Tables {
        (table(self, &LOW), table(self, &HIGH))
    }
    #[inline(always)]
    fn look_up(self, tables: &Self::Tables, bytes: v128) -> (v128, v128) {
        (
            entries(&tables.0, v128_and(bytes, u8x16_splat(63))),
            entries(&tables.1, u8x16_shr(bytes, 2)),
        )
    }
}
