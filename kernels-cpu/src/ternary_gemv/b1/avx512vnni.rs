//! AVX-512 VNNI: sixteen accumulators (four rows, four places of a bit), seventeen operations for 512 weights of a row.

use core::arch::x86_64::*;

use super::super::avx512vnni::{finish, load, load_x, sum};
use super::sum_of_columns;
use crate::b1::{FIELDS, GROUP_ROWS, group_bytes};
use crate::prefetch::prefetch;

/// How far ahead lines are asked for, in bytes: the hardware's own prefetchers stop at the end of a page and begin anew in the next.
const AHEAD: usize = 4096;

/// See [`super::super::ternary_gemv`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(in super::super) fn gemv(w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    let masks = [0x01, 0x02, 0x04, 0x08u8].map(|m| _mm512_set1_epi8(m as i8));
    let correction = _mm_set1_epi32(sum_of_columns(&xq[..cols], |x| sum(x)));
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        // One accumulator for each place: fields `p` and `p + 4`. Of the 2^13 blocks of the widest rows a lane gets eight products of at most
        // `8 · 128` in magnitude each, 2^26.
        let mut acc = [[_mm512_setzero_si512(); 4]; GROUP_ROWS];
        let blocks = group.as_chunks::<64>().0.as_chunks::<GROUP_ROWS>().0;
        for (rows, x) in blocks.iter().zip(xq.as_chunks::<64>().0.as_chunks::<FIELDS>().0) {
            prefetch(rows.as_ptr().cast::<u8>().wrapping_add(AHEAD), GROUP_ROWS);
            let mut xs = [_mm512_setzero_si512(); FIELDS];
            for f in 0..FIELDS {
                xs[f] = load_x(&x[f]);
            }
            for r in 0..GROUP_ROWS {
                let low = load(&rows[r]);
                // What a 16-bit shift brings in from a neighbour the masks drop.
                let high = _mm512_srli_epi16::<4>(low);
                for p in 0..4 {
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], _mm512_and_si512(low, masks[p]), xs[p]);
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], _mm512_and_si512(high, masks[p]), xs[p + 4]);
                }
            }
        }
        let mut rows = [_mm512_setzero_si512(); GROUP_ROWS];
        for r in 0..GROUP_ROWS {
            // Twice the sums, of which place `p` holds `2^p` times its share.
            let low = _mm512_add_epi32(_mm512_slli_epi32::<1>(acc[r][0]), acc[r][1]);
            let high = _mm512_add_epi32(_mm512_srai_epi32::<1>(acc[r][2]), _mm512_srai_epi32::<2>(acc[r][3]));
            rows[r] = _mm512_add_epi32(low, high);
        }
        finish(rows, correction, out);
    }
}
