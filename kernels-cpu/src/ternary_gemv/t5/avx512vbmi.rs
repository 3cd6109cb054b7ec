//! AVX-512 VNNI with VBMI: two lookups, five masks and five dot products for 320 weights of a row.

use core::arch::x86_64::*;

use super::super::avx512vnni::{finish, load, load_x, sum};
use crate::prefetch::prefetch;
use crate::t5::{DIGITS, GROUP_ROWS, HIGH, LOW, group_bytes};

/// How far ahead lines are asked for, in bytes: the hardware's own prefetchers stop at the end of a page and begin anew in the next.
const AHEAD: usize = 4096;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let (low_table, high_table) = (load(&LOW), load(&HIGH));
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| _mm512_set1_epi8(m as i8));
    let correction = _mm_set1_epi32(2 * sum(xq));
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        // One accumulator for each place of a field: digits 0 and 3, digit 4, digit 1, digit 2.
        let mut acc = [[_mm512_setzero_si512(); 4]; GROUP_ROWS];
        let blocks = group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0;
        let xs = xq.as_chunks::<64>().0.as_chunks::<DIGITS>().0;
        for (rows, x) in blocks.iter().zip(xs) {
            let x = [
                load_x(&x[0]),
                load_x(&x[1]),
                load_x(&x[2]),
                load_x(&x[3]),
                load_x(&x[4]),
            ];
            prefetch(rows.as_ptr().cast::<u8>().wrapping_add(AHEAD), GROUP_ROWS);
            for r in 0..GROUP_ROWS {
                let bytes = load(&rows[r]);
                // A lookup reads the low six bits of each byte, so what a 16-bit shift brings in from a neighbour does not matter.
                let low = _mm512_permutexvar_epi8(bytes, low_table);
                let high = _mm512_permutexvar_epi8(_mm512_srli_epi16::<2>(bytes), high_table);
                // (low | high) & mask in one operation.
                let [d0, d3] = [_mm512_and_si512(low, masks[0]), _mm512_and_si512(high, masks[0])];
                let d4 = _mm512_ternarylogic_epi32::<0xa8>(low, high, masks[1]);
                let d1 = _mm512_ternarylogic_epi32::<0xe0>(masks[2], low, high);
                let d2 = _mm512_ternarylogic_epi32::<0xe0>(masks[3], low, high);
                acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], d0, x[0]);
                acc[r][1] = _mm512_dpbusd_epi32(acc[r][1], d4, x[4]);
                acc[r][2] = _mm512_dpbusd_epi32(acc[r][2], d1, x[1]);
                acc[r][3] = _mm512_dpbusd_epi32(acc[r][3], d2, x[2]);
                acc[r][0] = _mm512_dpbusd_epi32(acc[r][0], d3, x[3]);
            }
        }
        let mut rows = [_mm512_setzero_si512(); GROUP_ROWS];
        for r in 0..GROUP_ROWS {
            // Place `p` holds `4^p` times its sums.
            let low = _mm512_add_epi32(acc[r][0], _mm512_srai_epi32::<2>(acc[r][1]));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(acc[r][2]), _mm512_srai_epi32::<6>(acc[r][3]));
            rows[r] = _mm512_add_epi32(low, high);
        }
        finish(rows, correction, out);
    }
}
