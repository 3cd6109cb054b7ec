//! AVX2 (`maddubs`, `madd`), 256-bit VNNI in either encoding, AVX-512 VNNI.

use core::arch::x86_64::*;

use half::f16;

use super::{BLOCK_BYTES, BLOCK_STEPS, Dots, InputBlock};
use crate::isa::{Avx2, Avx512, AvxVnni};

/// The token of a CPU with AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct Vex(Avx2);
/// The token of a CPU with AVX2 and with AVX-512 VL and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Evex(Avx2);

/// The encoding of `vpdpbusd` that the CPU has.
pub(super) enum Encoding {
    Vex(Vex),
    Evex(Evex),
}

pub(super) fn of(token: AvxVnni) -> Encoding {
    if token.is_vex() {
        Encoding::Vex(Vex(token.avx2()))
    } else {
        Encoding::Evex(Evex(token.avx2()))
    }
}

/// `acc + Σ codes·x`, four products a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_avx2(acc: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    // Four products of at most 15 · 128 in a 16-bit lane, two of them from each half.
    let pairs = _mm256_add_epi16(
        _mm256_maddubs_epi16(codes[0], x[0]),
        _mm256_maddubs_epi16(codes[1], x[1]),
    );
    _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// As [`dot_avx2`], in AVX-VNNI's encoding.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dot_vex(acc: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(acc, codes[0], x[0]), codes[1], x[1])
}

/// As [`dot_avx2`], in AVX-512's encoding.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
fn dot_evex(acc: __m256i, codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(acc, codes[0], x[0]), codes[1], x[1])
}

/// The low and the high halves of 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(codes: &[u8; BLOCK_BYTES], part: usize) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    let v = crate::bytes::avx2::load(codes, part);
    // A 16-bit shift moves a neighbour's bits in at the top; the mask drops them.
    [
        _mm256_and_si256(v, mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask),
    ]
}

/// Four steps of weights.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widened(w: &[f16; BLOCK_STEPS]) -> __m128 {
    // SAFETY: eight bytes that the reference covers, at any alignment.
    _mm_cvtph_ps(unsafe { _mm_loadl_epi64(w.as_ptr().cast()) })
}

/// Four steps of activations.
#[inline]
#[target_feature(enable = "avx2")]
fn loaded(x: &[f32; BLOCK_STEPS]) -> __m128 {
    // SAFETY: sixteen bytes that the reference covers, at any alignment.
    unsafe { _mm_loadu_ps(x.as_ptr()) }
}

/// Each of four values in four lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn four_times(v: __m128) -> [__m256; 2] {
    let v = _mm256_castps128_ps256(v);
    [
        _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
        _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
    ]
}

/// Each of four values in four lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_times_512(v: __m128) -> __m512 {
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(v))
}

macro_rules! dots_256 {
    ($token:ident, |$self:ident| $simd:expr, $dot:ident) => {
        impl Dots for $token {
            type S = Avx2;
            type Codes = [[__m256i; 2]; 2];

            #[inline(always)]
            fn simd($self) -> Avx2 {
                $simd
            }

            #[inline(always)]
            fn open(self, codes: &[u8; BLOCK_BYTES]) -> Self::Codes {
                // SAFETY: the token proves AVX2.
                unsafe { [halves(codes, 0), halves(codes, 1)] }
            }

            #[inline(always)]
            fn sums(self, codes: Self::Codes, x: &InputBlock) -> [__m256; 2] {
                // SAFETY: the token proves the instructions; eight offsets from 0 and from 8 lie inside the sixteen.
                unsafe {
                    let mut sums = [_mm256_setzero_ps(); 2];
                    for part in 0..2 {
                        let offsets = _mm256_loadu_si256(x.offsets.as_ptr().add(8 * part).cast());
                        let low = crate::bytes::avx2::load(&x.low, part);
                        let high = crate::bytes::avx2::load(&x.high, part);
                        sums[part] = _mm256_cvtepi32_ps($dot(offsets, codes[part], [low, high]));
                    }
                    sums
                }
            }

            #[inline(always)]
            fn weight_steps(self, w: &[f16; BLOCK_STEPS]) -> [__m256; 2] {
                // SAFETY: the token proves AVX2 and F16C.
                unsafe { four_times(widened(w)) }
            }

            #[inline(always)]
            fn input_steps(self, x: &[f32; BLOCK_STEPS]) -> [__m256; 2] {
                // SAFETY: the token proves AVX2.
                unsafe { four_times(loaded(x)) }
            }
        }
    };
}
dots_256!(Avx2, |self| self, dot_avx2);
dots_256!(Vex, |self| self.0, dot_vex);
dots_256!(Evex, |self| self.0, dot_evex);

impl Dots for Avx512 {
    type S = Self;
    type Codes = [__m512i; 2];

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn open(self, codes: &[u8; BLOCK_BYTES]) -> Self::Codes {
        // SAFETY: the token proves AVX-512 F and BW; the reference covers 64 bytes, read at any alignment.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let v = _mm512_loadu_si512(codes.as_ptr().cast());
            [
                _mm512_and_si512(v, mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask),
            ]
        }
    }

    #[inline(always)]
    fn sums(self, codes: Self::Codes, x: &InputBlock) -> __m512 {
        // SAFETY: the token proves AVX-512 F and VNNI; each array is 64 bytes, read at any alignment.
        unsafe {
            let offsets = _mm512_loadu_si512(x.offsets.as_ptr().cast());
            let low = _mm512_loadu_si512(x.low.as_ptr().cast());
            let high = _mm512_loadu_si512(x.high.as_ptr().cast());
            let sums = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(offsets, codes[0], low), codes[1], high);
            _mm512_cvtepi32_ps(sums)
        }
    }

    #[inline(always)]
    fn weight_steps(self, w: &[f16; BLOCK_STEPS]) -> __m512 {
        // SAFETY: the token proves AVX-512 F, AVX2 and F16C.
        unsafe { four_times_512(widened(w)) }
    }

    #[inline(always)]
    fn input_steps(self, x: &[f32; BLOCK_STEPS]) -> __m512 {
        // SAFETY: the token proves AVX-512 F and AVX2.
        unsafe { four_times_512(loaded(x)) }
    }
}
