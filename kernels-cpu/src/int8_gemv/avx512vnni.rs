//! AVX-512 VNNI: four accumulators along one row.

use core::arch::x86_64::*;

/// 64 values of memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Up to 63 values of memory, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_part(bytes: &[i8]) -> __m512i {
    let mask = (1u64 << (bytes.len() & 63)) - 1;
    // SAFETY: masked-off lanes are not read, and the others lie inside `bytes`.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr()) }
}

/// `Σ u·x` over bytes, modulo 2^32, `u` being `w` with its top bit flipped and read as unsigned: `w + 128`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(w: &[i8], x: &[i8]) -> i32 {
    let flip = _mm512_set1_epi8(-128);
    let (w, w_tail) = w.as_chunks::<64>();
    let (x, x_tail) = x.as_chunks::<64>();
    let ((w4, w_rest), (x4, x_rest)) = (w.as_chunks::<4>(), x.as_chunks::<4>());
    let mut acc = [_mm512_setzero_si512(); 4];
    for (w, x) in w4.iter().zip(x4) {
        for i in 0..4 {
            acc[i] = _mm512_dpbusd_epi32(acc[i], _mm512_xor_si512(load(&w[i]), flip), load(&x[i]));
        }
    }
    for (w, x) in w_rest.iter().zip(x_rest) {
        acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_xor_si512(load(w), flip), load(x));
    }
    // Lanes past the end hold u = 128 and x = 0.
    acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_xor_si512(load_part(w_tail), flip), load_part(x_tail));
    let sum = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
    _mm512_reduce_add_epi32(sum)
}

/// See [`super::int8_gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn gemv(w: &[i8], xq: &[i8], out: &mut [i32]) {
    let sum: i32 = xq.iter().map(|v| i32::from(*v)).sum();
    for (row, out) in w.chunks_exact(xq.len()).zip(out) {
        *out = dot(row, xq).wrapping_sub(sum.wrapping_mul(128));
    }
}
