//! Dot products of bytes, for the integer kernels that are written once over a register of bytes.
//!
//! [`Bytes`] is to the integer kernels what [`Simd`](crate::simd::Simd) is to the float ones. A register holds 16 bytes on ARM and 32 with
//! AVX-VNNI; its sums are `i32`, one for each four bytes. Operands are 64 bytes in memory, of which a register is one of [`Bytes::PARTS`]
//! parts. AVX2, which has no such dot product, and AVX-512, with registers to spare for more accumulators, have kernels of their own.
//!
//! | path | `dot` of a register | multiply-adds |
//! |---|---|---|
//! | `avxvnni` | `vpdpbusd`, unsigned by signed | 32 |
//! | `neon` | `smull`, `smlal2`, `sadalp` (one more where each four bytes must keep to their sum) | 16 |
//! | `dotprod`, `i8mm` | `sdot` | 16 |
//! | `simd128` | widened to 16 bits, `i32x4.dot_i16x8_s` | 16 |

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;
#[cfg(target_feature = "simd128")]
mod wasm;

use crate::isa;

/// Operations on a register of bytes. Safe as those of [`Simd`](crate::simd::Simd) are: holding the token proves that the CPU has them.
pub(crate) trait Bytes: Copy {
    /// A register of bytes.
    type V: Copy;
    /// Its sums: one `i32` for each four bytes.
    type Acc: Copy;
    /// The tables of the `t5` layout, in registers.
    type Tables: Copy;
    /// Registers in 64 bytes.
    const PARTS: usize;
    /// What [`signed`](Self::signed) adds to each value.
    const OFFSET: i32;

    /// Part `part % PARTS` of 64 bytes of memory.
    fn load<T: Byte>(self, bytes: &[T; 64], part: usize) -> Self::V;
    /// The sixteen bytes in every sixteen of the register.
    fn load_quarter<T: Byte>(self, bytes: &[T; 16]) -> Self::V;
    /// All bytes `b`.
    fn splat(self, b: u8) -> Self::V;
    /// The four bytes, again and again.
    fn splat_word(self, word: [i8; 4]) -> Self::V;
    /// `a & b`.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a | b`.
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// The two top bits of each byte, as a number.
    fn top2(self, v: Self::V) -> Self::V;
    /// Each byte, as an unsigned number, shifted down by one bit.
    fn halved(self, v: Self::V) -> Self::V;
    /// Any bytes as a first operand of [`dot_any`](Self::dot_any): each, as a signed number, plus [`OFFSET`](Self::OFFSET).
    fn signed(self, v: Self::V) -> Self::V;

    /// All sums `x`.
    fn sums(self, x: i32) -> Self::Acc;
    /// `acc + Σ codes·x`, codes 0 to 127, `x` signed; which products of sixteen bytes go to which of their four sums is unspecified.
    fn dot(self, acc: Self::Acc, codes: Self::V, x: Self::V) -> Self::Acc;
    /// As [`dot`](Self::dot), the products of each four bytes to their own sum.
    fn dot_words(self, acc: Self::Acc, codes: Self::V, x: Self::V) -> Self::Acc;
    /// As [`dot`](Self::dot) where `w` comes from [`signed`](Self::signed).
    fn dot_any(self, acc: Self::Acc, w: Self::V, x: Self::V) -> Self::Acc;
    /// As [`dot_any`](Self::dot_any), the products of each four bytes to their own sum.
    fn dot_any_words(self, acc: Self::Acc, w: Self::V, x: Self::V) -> Self::Acc;
    /// `Σ (a + b/4 + c/16)` over the sums of each row's `[a, b, c]`; those of `b` are multiples of 4, of `c` of 16.
    fn total(self, rows: [[Self::Acc; 3]; 4]) -> [i32; 4];
    /// As [`total`](Self::total), over the sums of each sixteen bytes of 64, in [`PARTS`](Self::PARTS) registers.
    fn total_quarters(self, parts: [[Self::Acc; 3]; 4]) -> [i32; 4];
    /// `a + b`.
    fn add(self, a: Self::Acc, b: Self::Acc) -> Self::Acc;
    /// Stores the sums of part `part % PARTS` of 16.
    fn store(self, sums: Self::Acc, to: &mut [i32; 16], part: usize);

    /// [`LOW`](crate::t5::LOW) and [`HIGH`](crate::t5::HIGH) in registers.
    fn tables(self) -> Self::Tables;
    /// The entries of [`LOW`](crate::t5::LOW) and of [`HIGH`](crate::t5::HIGH) for each byte.
    fn look_up(self, tables: &Self::Tables, bytes: Self::V) -> (Self::V, Self::V);
}

/// Four bytes as the number that they are in memory. No `map`: left to be called, it costs a kernel all of its registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128"))]
#[inline(always)]
pub(crate) fn word_of([a, b, c, d]: [i8; 4]) -> i32 {
    i32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8])
}

/// `u8` or `i8`.
pub(crate) trait Byte: Copy {}
impl Byte for u8 {}
impl Byte for i8 {}

/// The paths of integer kernels: those with bodies of their own, and those written over [`Bytes`].
#[derive(Clone, Copy)]
pub(crate) enum IntIsa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(isa::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(isa::Avx512),
    /// On a CPU of another kind there is none.
    Bytes(ByteIsa),
}

/// The paths that have [`Bytes`].
#[derive(Clone, Copy)]
pub(crate) enum ByteIsa {
    #[cfg(target_arch = "x86_64")]
    Vex(vnni::Vex),
    #[cfg(target_arch = "x86_64")]
    Evex(vnni::Evex),
    #[cfg(target_arch = "aarch64")]
    Neon(isa::Neon),
    #[cfg(target_arch = "aarch64")]
    Dotprod(isa::Dotprod),
    #[cfg(target_feature = "simd128")]
    Simd128(isa::Simd128),
}

impl isa::Isa {
    /// The path of its integer kernels. With `dsp` the portable one: what it has of its own is asked for by name. With `i8mm` that of `dotprod`: only a product of many tokens has a use for more.
    pub(crate) fn ints(self) -> IntIsa {
        match self {
            isa::Isa::Scalar(_) => IntIsa::Scalar,
            #[cfg(target_arch = "x86_64")]
            isa::Isa::Avx2(token) => IntIsa::Avx2(token),
            #[cfg(target_arch = "x86_64")]
            isa::Isa::AvxVnni(token) => IntIsa::Bytes(vnni::of(token)),
            #[cfg(target_arch = "x86_64")]
            isa::Isa::Avx512(token) => IntIsa::Avx512(token),
            #[cfg(target_arch = "aarch64")]
            isa::Isa::Neon(token) => IntIsa::Bytes(ByteIsa::Neon(token)),
            #[cfg(target_arch = "aarch64")]
            isa::Isa::Dotprod(token) => IntIsa::Bytes(ByteIsa::Dotprod(token)),
            #[cfg(target_arch = "aarch64")]
            isa::Isa::I8mm(token) => IntIsa::Bytes(ByteIsa::Dotprod(token.dotprod())),
            #[cfg(arm_dsp)]
            isa::Isa::Dsp(_) => IntIsa::Scalar,
            #[cfg(target_feature = "simd128")]
            isa::Isa::Simd128(token) => IntIsa::Bytes(ByteIsa::Simd128(token)),
        }
    }
}

/// Makes `fn name(isa: ByteIsa, args…) -> R`, which calls `body(token, args…)` under the `#[target_feature]` of the token. `body` must be
/// `#[inline(always)] fn body<B: Bytes>(b: B, args…) -> R`.
macro_rules! byte_kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$meta])*
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128")),
            allow(unused_variables, reason = "no path has such a kernel")
        )]
        $vis fn $name(isa: $crate::bytes::ByteIsa, $($arg: $ty),*) $(-> $ret)? {
            match isa {
                #[cfg(target_arch = "x86_64")]
                $crate::bytes::ByteIsa::Vex(b) => $crate::simd::enter!(
                    "avx2,avxvnni", $crate::bytes::vnni::Vex, b, (), ($($arg: $ty),*), ($($ret)?), $body
                ),
                #[cfg(target_arch = "x86_64")]
                $crate::bytes::ByteIsa::Evex(b) => $crate::simd::enter!(
                    "avx2,avx512f,avx512vl,avx512vnni", $crate::bytes::vnni::Evex, b, (), ($($arg: $ty),*), ($($ret)?), $body
                ),
                #[cfg(target_arch = "aarch64")]
                $crate::bytes::ByteIsa::Neon(b) => $crate::simd::enter!(
                    "neon", $crate::isa::Neon, b, (), ($($arg: $ty),*), ($($ret)?), $body
                ),
                #[cfg(target_arch = "aarch64")]
                $crate::bytes::ByteIsa::Dotprod(b) => $crate::simd::enter!(
                    "neon,dotprod", $crate::isa::Dotprod, b, (), ($($arg: $ty),*), ($($ret)?), $body
                ),
                // The whole module has the instructions.
                #[cfg(target_feature = "simd128")]
                $crate::bytes::ByteIsa::Simd128(b) => $body(b, $($arg),*),
            }
        }
    };
}
pub(crate) use byte_kernel;
