//! AVX-512 VNNI: the sums of 256 rows in sixteen registers; four lines make sixteen dot products.

use core::arch::x86_64::*;

use super::{Batch, Columns, LINE_ROWS, Line};

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: reads the 64 bytes of the line, which is aligned to them.
    unsafe { _mm512_load_si512((&raw const line.0).cast()) }
}

/// See [`super::ternary_columns`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn multiply(w: &[Line], columns: Columns<'_>, out: &mut [i32]) {
    // Codes are `w + 1`.
    out.fill(-columns.xq.iter().map(|&x| i32::from(x)).sum::<i32>());
    let (mut next, mut batch, mut following) = (0, Batch::EMPTY, Batch::EMPTY);
    batch.fill(columns, &mut next);
    while batch.groups > 0 {
        following.fill(columns, &mut next);
        let (whole, rest) = out.as_chunks_mut::<LINE_ROWS>();
        let lines = whole.len();
        for (line, out) in whole.iter_mut().enumerate() {
            add(w, &batch, &following, line, out);
        }
        if !rest.is_empty() {
            let mut padded = [0; LINE_ROWS];
            padded[..rest.len()].copy_from_slice(rest);
            add(w, &batch, &following, lines, &mut padded);
            rest.copy_from_slice(&padded[..rest.len()]);
        }
        batch = following;
    }
}

/// Adds a batch's products with line `line` of each column to `out`, and asks for the same line of the batch that follows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn add(w: &[Line], batch: &Batch, following: &Batch, line: usize, out: &mut [i32; LINE_ROWS]) {
    let masks = [
        _mm512_set1_epi8(0x03),
        _mm512_set1_epi8(0x0c),
        _mm512_set1_epi8(0x30),
        _mm512_set1_epi8(0xc0u8 as i8),
    ];
    // By field and sixteen rows; field `f` counts `4^f` times.
    let mut acc = [[_mm512_setzero_si512(); 4]; 4];
    for g in 0..batch.groups.min(batch.x.len()) {
        if g < following.groups {
            for k in following.lines[g] {
                _mm_prefetch::<_MM_HINT_T1>(w.as_ptr().wrapping_add(k + line).cast());
            }
        }
        let [a, b, c, d] = batch.lines[g];
        let (a, b, c, d) = (
            load(&w[a + line]),
            load(&w[b + line]),
            load(&w[c + line]),
            load(&w[d + line]),
        );
        let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
        let four = [
            _mm512_unpacklo_epi16(ab_low, cd_low),
            _mm512_unpackhi_epi16(ab_low, cd_low),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ];
        let x = _mm512_set1_epi32(i32::from_ne_bytes(batch.x[g].map(|x| x as u8)));
        for f in 0..4 {
            for t in 0..4 {
                acc[f][t] = _mm512_dpbusd_epi32(acc[f][t], _mm512_and_si512(four[t], masks[f]), x);
            }
        }
    }
    for (f, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let count = _mm_cvtsi32_si128(2 * f as i32);
        for (t, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let sums = _mm512_sra_epi32(acc[f][t], count);
            // SAFETY: `out` is 64 bytes.
            unsafe {
                let to = out.as_mut_ptr().cast();
                _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), sums));
            }
        }
    }
}
