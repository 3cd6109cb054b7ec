//! AVX-512 VNNI: a register holds four rows; of two groups eight accumulators (two groups, four places of a bit), seventeen operations for 512
//! weights.

use core::arch::x86_64::*;

use super::super::avx512vnni::{load, put, sum};
use super::sum_of_columns;
use crate::b1::{BLOCK_BYTES, FIELDS, GROUP_ROWS, group_bytes};
use crate::prefetch::prefetch;

/// How far ahead lines are asked for, in bytes: the hardware's own prefetchers stop at the end of a page and begin anew in the next.
const AHEAD: usize = 4096;
/// Groups side by side: they share the activations, which a field of four rows reads as often as it is multiplied.
const SIDE: usize = 2;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let correction = _mm_set1_epi32(sum_of_columns(&xq[..cols], |x| sum(x)));
    let group = group_bytes(cols);
    let xs = xq.as_chunks::<BLOCK_BYTES>().0.as_chunks::<FIELDS>().0;
    for (groups, out) in w.chunks(SIDE * group).zip(out.chunks_mut(SIDE * GROUP_ROWS)) {
        if groups.len() == SIDE * group {
            several::<SIDE>(groups, group, xs, correction, out);
        } else {
            several::<1>(groups, group, xs, correction, out);
        }
    }
}

/// `G` groups of `group` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn several<const G: usize>(
    groups: &[u8],
    group: usize,
    xs: &[[[i8; BLOCK_BYTES]; FIELDS]],
    correction: __m128i,
    out: &mut [i32],
) {
    let masks = [0x01, 0x02, 0x04, 0x08u8].map(|m| _mm512_set1_epi8(m as i8));
    let mut w: [&[[u8; 64]]; G] = [&[]; G];
    for g in 0..G {
        w[g] = &groups[g * group..(g + 1) * group].as_chunks::<64>().0[..xs.len()];
    }
    // One accumulator for each place: fields `p` and `p + 4`. Of the 2^15 blocks of the widest rows a lane gets eight products of at most
    // `8 · 128` in magnitude each, 2^28.
    let mut acc = [[_mm512_setzero_si512(); 4]; G];
    for (b, x) in xs.iter().enumerate() {
        let (mut low, mut high) = ([_mm512_setzero_si512(); G], [_mm512_setzero_si512(); G]);
        for g in 0..G {
            prefetch(w[g][b].as_ptr().wrapping_add(AHEAD), 1);
            low[g] = load(&w[g][b]);
            // What a 16-bit shift brings in from a neighbour the masks drop.
            high[g] = _mm512_srli_epi16::<4>(low[g]);
        }
        for p in 0..4 {
            let (x_low, x_high) = (load_quarter(&x[p]), load_quarter(&x[p + 4]));
            for g in 0..G {
                acc[g][p] = _mm512_dpbusd_epi32(acc[g][p], _mm512_and_si512(low[g], masks[p]), x_low);
                acc[g][p] = _mm512_dpbusd_epi32(acc[g][p], _mm512_and_si512(high[g], masks[p]), x_high);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out.chunks_mut(GROUP_ROWS)) {
        // Twice the sums, of which place `p` holds `2^p` times its share.
        let low = _mm512_add_epi32(_mm512_slli_epi32::<1>(acc[0]), acc[1]);
        let high = _mm512_add_epi32(_mm512_srai_epi32::<1>(acc[2]), _mm512_srai_epi32::<2>(acc[3]));
        put(
            _mm_sub_epi32(sum_quarters(_mm512_add_epi32(low, high)), correction),
            out,
        );
    }
}

/// Sixteen activations of memory in each quarter of a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_quarter(bytes: &[i8; BLOCK_BYTES]) -> __m512i {
    // SAFETY: reads the sixteen bytes that the reference covers, at any alignment.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// The sums of the four lanes of each quarter, up to `2 · 128 · 2^22 = 2^30`.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_quarters(v: __m512i) -> __m128i {
    let twos = _mm512_add_epi32(v, _mm512_shuffle_epi32::<0b10_11_00_01>(v));
    let fours = _mm512_add_epi32(twos, _mm512_shuffle_epi32::<0b01_00_11_10>(twos));
    _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, fours))
}
