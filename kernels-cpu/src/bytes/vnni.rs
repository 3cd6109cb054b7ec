//! 256-bit `vpdpbusd`, unsigned by signed, in either encoding: AVX-VNNI's, and that of AVX-512 VL.
//!
//! The two instructions compute the same and differ in how they are encoded. So a CPU with AVX-512 VNNI but without AVX-VNNI runs, and tests,
//! these kernels in all but the encoding of this one instruction.

use core::arch::x86_64::*;

use super::avx2::{self, Tables};
use super::{Byte, ByteIsa, Bytes, word_of};
use crate::isa::AvxVnni;

/// The token of a CPU with AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Vex(());
/// The token of a CPU with AVX-512 VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Evex(());

/// The path in the encoding that the CPU has.
pub(super) fn of(token: AvxVnni) -> ByteIsa {
    if token.is_vex() {
        ByteIsa::Vex(Vex(()))
    } else {
        ByteIsa::Evex(Evex(()))
    }
}

/// `a + b/4 + c/16`.
#[inline]
#[target_feature(enable = "avx2")]
fn whole([a, b, c]: [__m256i; 3]) -> __m256i {
    _mm256_add_epi32(
        a,
        _mm256_add_epi32(_mm256_srai_epi32::<2>(b), _mm256_srai_epi32::<4>(c)),
    )
}

macro_rules! bytes_of {
    ($token:ident, $dpbusd:ident) => {
        impl Bytes for $token {
            type V = __m256i;
            type Acc = __m256i;
            type Tables = Tables;
            const PARTS: usize = 2;
            const OFFSET: i32 = 128;

            #[inline(always)]
            fn load<T: Byte>(self, bytes: &[T; 64], part: usize) -> __m256i {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::load(bytes, part) }
            }
            #[inline(always)]
            fn load_quarter<T: Byte>(self, bytes: &[T; 16]) -> __m256i {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::load_quarter(bytes) }
            }
            #[inline(always)]
            fn splat(self, b: u8) -> __m256i {
                // SAFETY: the token proves AVX2.
                unsafe { _mm256_set1_epi8(b as i8) }
            }
            #[inline(always)]
            fn splat_word(self, word: [i8; 4]) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_set1_epi32(word_of(word)) }
            }
            #[inline(always)]
            fn and(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_and_si256(a, b) }
            }
            #[inline(always)]
            fn or(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_or_si256(a, b) }
            }
            #[inline(always)]
            fn top2(self, v: __m256i) -> __m256i {
                // A 16-bit shift moves a neighbour's bits in at the top; the mask drops them.
                // SAFETY: as above.
                unsafe { _mm256_and_si256(_mm256_srli_epi16::<6>(v), _mm256_set1_epi8(3)) }
            }
            #[inline(always)]
            fn halved(self, v: __m256i) -> __m256i {
                // As above.
                // SAFETY: as above.
                unsafe { _mm256_and_si256(_mm256_srli_epi16::<1>(v), _mm256_set1_epi8(0x7f)) }
            }
            #[inline(always)]
            fn signed(self, v: __m256i) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_xor_si256(v, _mm256_set1_epi8(-128)) }
            }
            #[inline(always)]
            fn sums(self, x: i32) -> __m256i {
                // SAFETY: as above.
                unsafe { _mm256_set1_epi32(x) }
            }
            #[inline(always)]
            fn dot(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
                // SAFETY: the token proves that the CPU has this instruction.
                unsafe { $dpbusd(acc, codes, x) }
            }
            #[inline(always)]
            fn dot_words(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
                self.dot(acc, codes, x)
            }
            #[inline(always)]
            fn dot_any(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
                self.dot(acc, w, x)
            }
            #[inline(always)]
            fn dot_any_words(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
                self.dot(acc, w, x)
            }
            #[inline(always)]
            fn total(self, rows: [[__m256i; 3]; 4]) -> [i32; 4] {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::sum_each([whole(rows[0]), whole(rows[1]), whole(rows[2]), whole(rows[3])]) }
            }
            #[inline(always)]
            fn total_quarters(self, parts: [[__m256i; 3]; 4]) -> [i32; 4] {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::sum_halves([whole(parts[0]), whole(parts[1])]) }
            }
            #[inline(always)]
            fn add(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: the token proves AVX2.
                unsafe { _mm256_add_epi32(a, b) }
            }
            #[inline(always)]
            fn store(self, sums: __m256i, to: &mut [i32; 16], part: usize) {
                // SAFETY: the token proves AVX2; `part` is masked to 0 or 1, so eight lanes from `8 · part` lie inside the sixteen.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().add(8 * (part & 1)).cast(), sums) }
            }
            #[inline(always)]
            fn tables(self) -> Tables {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::tables() }
            }
            #[inline(always)]
            fn look_up(self, tables: &Tables, bytes: __m256i) -> (__m256i, __m256i) {
                // SAFETY: the token proves AVX2.
                unsafe { avx2::look_up(tables, bytes) }
            }
        }
    };
}
bytes_of!(Vex, _mm256_dpbusd_avx_epi32);
bytes_of!(Evex, _mm256_dpbusd_epi32);
