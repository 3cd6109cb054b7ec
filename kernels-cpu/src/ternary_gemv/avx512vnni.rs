//! AVX-512 VNNI: eight accumulators (four rows, two pairs of fields), nine instructions per 256 weights.

use core::arch::x86_64::*;

use crate::t2::{GROUP_ROWS, group_bytes};

/// 64 bytes of memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 64 activations of memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_x(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// `Σ x`.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn sum(xq: &[i8]) -> i32 {
    let (mut total, ones) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
    for x in xq.as_chunks::<64>().0 {
        total = _mm512_dpbusd_epi32(total, ones, load_x(x));
    }
    _mm512_reduce_add_epi32(total)
}

/// The sums of four registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_each(v: [__m512i; 4]) -> __m128i {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// The end of a group of rows: the sums of `rows`, and `correction` is taken off each.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn finish(rows: [__m512i; GROUP_ROWS], correction: __m128i, out: &mut [i32]) {
    put(_mm_sub_epi32(sum_each(rows), correction), out);
}

/// The sums of a group's rows to memory, of as many as there are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn put(sums: __m128i, out: &mut [i32]) {
    // A copy of any length is a call; the last group alone may be short.
    if let Some(out) = out.first_chunk_mut::<GROUP_ROWS>() {
        // SAFETY: `out` is sixteen bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
    } else {
        let mut four = [0i32; GROUP_ROWS];
        // SAFETY: `four` is sixteen bytes.
        unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), sums) };
        out.copy_from_slice(&four[..out.len()]);
    }
}

/// See [`super::ternary_gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let masks = [0x03, 0x30u8].map(|m| _mm512_set1_epi8(m as i8));
    let correction = _mm_set1_epi32(sum(xq));
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        // Fields 0 and 1, and sixteen times fields 2 and 3.
        let mut acc = [[_mm512_setzero_si512(); 2]; GROUP_ROWS];
        let (blocks, xs) = (
            group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0,
            xq.as_chunks::<64>().0,
        );
        for (rows, x) in blocks.iter().zip(xs.as_chunks::<4>().0) {
            let x = [load_x(&x[0]), load_x(&x[1]), load_x(&x[2]), load_x(&x[3])];
            for r in 0..GROUP_ROWS {
                let bytes = load(&rows[r]);
                // What a 16-bit shift brings in from a neighbour the masks drop.
                let odd = _mm512_srli_epi16::<2>(bytes);
                for h in 0..2 {
                    acc[r][h] = _mm512_dpbusd_epi32(acc[r][h], _mm512_and_si512(bytes, masks[h]), x[2 * h]);
                    acc[r][h] = _mm512_dpbusd_epi32(acc[r][h], _mm512_and_si512(odd, masks[h]), x[2 * h + 1]);
                }
            }
        }
        let mut rows = [_mm512_setzero_si512(); GROUP_ROWS];
        for r in 0..GROUP_ROWS {
            rows[r] = _mm512_add_epi32(acc[r][0], _mm512_srai_epi32::<4>(acc[r][1]));
        }
        finish(rows, correction, out);
    }
}
