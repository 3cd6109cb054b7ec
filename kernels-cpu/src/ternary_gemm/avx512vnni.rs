//! AVX-512 VNNI: tiles of up to 64 rows (four vectors, lane = row) by six tokens.

use core::arch::x86_64::*;

use super::{Job, PANEL_ROWS, PASS};
use crate::prefetch::{LINE, prefetch_level2};
use crate::t2::{BLOCK_BYTES, GROUP_ROWS};
use crate::ternary::Layout;
use crate::{b1, t2, t5};

/// Rows of a vector.
pub(crate) const LANES: usize = 16;
/// Tokens of a tile.
const TILE: usize = 6;
/// Steps whose activations are a line of the cache.
const LINE_STEPS: usize = LINE / 4;

/// 64 bytes of memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// See [`super::ternary_gemm`]; `vbmi` says whether the CPU has VBMI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn gemm(job: &Job, vbmi: bool, w: &[u8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let steps = job.cols.div_ceil(4);
    for (pass, (xq, out)) in xq
        .chunks(PASS * job.stride)
        .zip(out.chunks_mut(PASS * job.rows))
        .enumerate()
    {
        let mut sums = [0i32; PASS];
        for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(job.stride)) {
            *sum = sum_of(&x[..job.counted(4 * steps)]);
        }
        let groups = PANEL_ROWS / GROUP_ROWS * job.layout.group_bytes(job.cols);
        let mut panels = w.chunks(groups).enumerate().peekable();
        while let Some((p, groups)) = panels.next() {
            let panel = Panel {
                stride: job.stride,
                rows: job.rows,
                row0: p * PANEL_ROWS,
                factors: job.factors.map(|factors| &factors[pass * PASS..]),
                ahead: panels.peek().map_or(&[], |(_, groups)| groups),
            };
            match (job.rows - panel.row0).min(PANEL_ROWS).div_ceil(LANES) {
                1 => meet::<1>(job, vbmi, &panel, groups, xq, &sums, out, scratch),
                2 => meet::<2>(job, vbmi, &panel, groups, xq, &sums, out, scratch),
                3 => meet::<3>(job, vbmi, &panel, groups, xq, &sums, out, scratch),
                _ => meet::<4>(job, vbmi, &panel, groups, xq, &sums, out, scratch),
            }
        }
    }
}

/// What a panel's tiles share.
pub(crate) struct Panel<'a> {
    /// Bytes of a token.
    pub stride: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// First row of the panel.
    pub row0: usize,
    /// Those of the tokens at hand, where sums are scaled as they are stored.
    pub factors: Option<&'a [f32]>,
    /// Weights of the next panel: they come from memory while this one is multiplied.
    pub ahead: &'a [u8],
}

/// `Σ x`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) fn sum_of(x: &[i8]) -> i32 {
    let (whole, tail) = x.as_chunks::<64>();
    let (mut total, ones) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
    for x in whole {
        // SAFETY: reads the 64 bytes that the reference covers.
        total = _mm512_dpbusd_epi32(total, ones, unsafe { _mm512_loadu_si512(x.as_ptr().cast()) });
    }
    _mm512_reduce_add_epi32(total) + tail.iter().map(|v| i32::from(*v)).sum::<i32>()
}

/// Opens a panel of `V` vectors of rows and takes all tokens through it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn meet<const V: usize>(
    job: &Job,
    vbmi: bool,
    panel: &Panel,
    w: &[u8],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    scratch: &mut [[u8; 64]],
) {
    let group = job.layout.group_bytes(job.cols);
    for (v, groups) in w.chunks(LANES / GROUP_ROWS * group).enumerate() {
        match job.layout {
            Layout::T2 => open::<V>(groups, group, v, scratch),
            // SAFETY: the caller was told that the CPU has VBMI.
            Layout::T5 if vbmi => unsafe { open_t5::<V>(groups, group, v, scratch) },
            Layout::B1 => open_b1::<V>(groups, group, v, scratch),
            Layout::T5 => super::open::open(job, groups, scratch, |step, row| LANES * (V * step + v) + row),
        }
    }
    tiles::<V>(
        panel,
        &scratch.as_chunks::<V>().0[..job.cols.div_ceil(4)],
        xq,
        sums,
        out,
    );
}

/// Takes all tokens through an opened panel: `out[t, r] = Σ codes·x − sums[t]`, modulo 2^32, and codes may be any bytes, unsigned.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) fn tiles<const V: usize>(panel: &Panel, opened: &[[[u8; 64]; V]], xq: &[i8], sums: &[i32], out: &mut [i32]) {
    let mut t = 0;
    let tokens = xq.len() / panel.stride;
    // Each tile asks for its share, so that no more is under way than memory can serve.
    let mut ahead = (panel.ahead).chunks(panel.ahead.len().div_ceil(tokens.div_ceil(TILE).max(1)).max(1));
    while t < tokens {
        if let Some(share) = ahead.next() {
            prefetch_level2(share.as_ptr(), share.len().div_ceil(LINE));
        }
        let (x, sums, out) = (&xq[t * panel.stride..], &sums[t..], &mut out[t * panel.rows..]);
        t += match tokens - t {
            0 | 1 => tile::<V, 1>(panel, t, opened, x, sums, out),
            2 => tile::<V, 2>(panel, t, opened, x, sums, out),
            3 => tile::<V, 3>(panel, t, opened, x, sums, out),
            4 => tile::<V, 4>(panel, t, opened, x, sums, out),
            5 => tile::<V, 5>(panel, t, opened, x, sums, out),
            _ => tile::<V, TILE>(panel, t, opened, x, sums, out),
        };
    }
}

/// Block `b` of up to sixteen rows, transposed: word `d` of lane `r` holds bytes `4d..4d+4` of row `r`.
#[inline]
#[target_feature(enable = "avx512f")]
fn words(groups: &[u8], group: usize, b: usize) -> [__m512i; LANES] {
    let mut rows = [_mm512_setzero_si512(); LANES];
    for (g, group) in groups.chunks_exact(group).enumerate() {
        let blocks = &group[b * GROUP_ROWS * BLOCK_BYTES..][..GROUP_ROWS * BLOCK_BYTES];
        for (r, block) in blocks.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
            rows[g * GROUP_ROWS + r] = load(block);
        }
    }
    transpose(rows)
}

/// Opens up to sixteen rows into vector `v` of every step: step `s` is `panel[s * V + v]`. Field `f` of word `d` is step `16f + d` of its
/// block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn open<const V: usize>(groups: &[u8], group: usize, v: usize, panel: &mut [[u8; 64]]) {
    let three = _mm512_set1_epi8(3);
    let blocks = group / (GROUP_ROWS * BLOCK_BYTES);
    for (b, steps) in panel.chunks_exact_mut(t2::BLOCK / 4 * V).take(blocks).enumerate() {
        let words = words(groups, group, b);
        for d in 0..LANES {
            let fields = [
                words[d],
                _mm512_srli_epi16::<2>(words[d]),
                _mm512_srli_epi16::<4>(words[d]),
                _mm512_srli_epi16::<6>(words[d]),
            ];
            for f in 0..4 {
                store(&mut steps[(LANES * f + d) * V + v], _mm512_and_si512(fields[f], three));
            }
        }
    }
}

/// [`open`] for `t5`: bytes are opened where they land, by the two lookups of the layout, and one is taken off each digit.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")]
fn open_t5<const V: usize>(groups: &[u8], group: usize, v: usize, panel: &mut [[u8; 64]]) {
    let (low_table, high_table) = (load(&t5::LOW), load(&t5::HIGH));
    let (three, one) = (_mm512_set1_epi8(3), _mm512_set1_epi8(1));
    let blocks = group / (GROUP_ROWS * BLOCK_BYTES);
    for (b, steps) in panel.chunks_exact_mut(t5::BLOCK / 4 * V).take(blocks).enumerate() {
        let words = words(groups, group, b);
        for d in 0..LANES {
            // A lookup reads six bits of each byte and a mask two, so what a 16-bit shift brings in from a neighbour does not matter.
            let low = _mm512_permutexvar_epi8(words[d], low_table);
            let high = _mm512_permutexvar_epi8(_mm512_srli_epi16::<2>(words[d]), high_table);
            let both = _mm512_or_si512(low, high);
            let fields = [
                low,
                _mm512_srli_epi16::<4>(both),
                _mm512_srli_epi16::<6>(both),
                high,
                _mm512_srli_epi16::<2>(both),
            ];
            for f in 0..t5::DIGITS {
                let codes = _mm512_sub_epi8(_mm512_and_si512(fields[f], three), one);
                store(&mut steps[(LANES * f + d) * V + v], codes);
            }
        }
    }
}

/// Block `b` of `b1`, of up to sixteen rows: word `d` of lane `r` holds bytes `4d..4d+4` of row `r`.
#[inline]
#[target_feature(enable = "avx512f")]
fn words_b1(groups: &[u8], group: usize, b: usize) -> [__m512i; 4] {
    // Of a group, four rows of four words: transposed, quarter `d` is word `d` of its rows.
    let across = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut rows = [_mm512_setzero_si512(); 4];
    for (g, group) in groups.chunks_exact(group).enumerate() {
        rows[g] = _mm512_permutexvar_epi32(across, load(&group.as_chunks::<64>().0[b]));
    }
    transpose_quarters(rows)
}

/// [`open`] for `b1`: each bit is moved to bit 1 of its byte, the code 0 or 2. Field `f` of word `d` is step `4f + d` of its block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn open_b1<const V: usize>(groups: &[u8], group: usize, v: usize, panel: &mut [[u8; 64]]) {
    let two = _mm512_set1_epi8(2);
    let blocks = group / (GROUP_ROWS * b1::BLOCK_BYTES);
    for (b, steps) in panel.chunks_exact_mut(b1::BLOCK / 4 * V).take(blocks).enumerate() {
        let words = words_b1(groups, group, b);
        for d in 0..words.len() {
            // What a 16-bit shift brings in from a neighbour the mask drops.
            let fields = [
                _mm512_slli_epi16::<1>(words[d]),
                words[d],
                _mm512_srli_epi16::<1>(words[d]),
                _mm512_srli_epi16::<2>(words[d]),
                _mm512_srli_epi16::<3>(words[d]),
                _mm512_srli_epi16::<4>(words[d]),
                _mm512_srli_epi16::<5>(words[d]),
                _mm512_srli_epi16::<6>(words[d]),
            ];
            for f in 0..b1::FIELDS {
                store(&mut steps[(4 * f + d) * V + v], _mm512_and_si512(fields[f], two));
            }
        }
    }
}

/// 64 bytes to memory.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(bytes: &mut [u8; 64], value: __m512i) {
    // SAFETY: writes the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), value) };
}

/// Transposes 16 × 16 32-bit words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    // Within each 128-bit quarter: quads[4i + j], quarter q, is column 4q + j of rows 4i..4i+4.
    let mut quads = rows;
    for i in (0..LANES).step_by(4) {
        let (a, b) = (
            _mm512_unpacklo_epi32(rows[i], rows[i + 1]),
            _mm512_unpackhi_epi32(rows[i], rows[i + 1]),
        );
        let (c, d) = (
            _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]),
            _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]),
        );
        quads[i] = _mm512_unpacklo_epi64(a, c);
        quads[i + 1] = _mm512_unpackhi_epi64(a, c);
        quads[i + 2] = _mm512_unpacklo_epi64(b, d);
        quads[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Then a 4 × 4 transposition of quarters for each j.
    let mut out = rows;
    for j in 0..4 {
        let columns = transpose_quarters([quads[j], quads[4 + j], quads[8 + j], quads[12 + j]]);
        for q in 0..4 {
            out[4 * q + j] = columns[q];
        }
    }
    out
}

/// Transposes 4 × 4 quarters of 128 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab02, ab13) = (
        _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
    );
    let (cd02, cd13) = (
        _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
    );
    [
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab02, cd02),
        _mm512_shuffle_i32x4::<0b10_00_10_00>(ab13, cd13),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab02, cd02),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(ab13, cd13),
    ]
}

/// `V` vectors of rows by `T` tokens from `first` on; returns `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const V: usize, const T: usize>(
    whole: &Panel,
    first: usize,
    panel: &[[[u8; 64]; V]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
) -> usize {
    let mut x: [&[[i8; 4]]; T] = [&[]; T];
    for t in 0..T {
        x[t] = &xq[t * whole.stride..(t + 1) * whole.stride].as_chunks::<4>().0[..panel.len()];
    }
    let mut acc = [[_mm512_setzero_si512(); V]; T];
    for t in 0..T {
        acc[t] = [_mm512_set1_epi32(sums[t].wrapping_neg()); V];
    }
    // The tokens of the next tile come from the third-level cache: a line of each is asked for while as much of these is multiplied.
    let next = xq.as_ptr().wrapping_add(T * whole.stride).cast::<u8>();
    for (block, steps) in panel.chunks(LINE_STEPS).enumerate() {
        for t in 0..T {
            prefetch_level2(next.wrapping_add(t * whole.stride + block * LINE), 1);
        }
        for (s, step) in steps.iter().enumerate() {
            let mut weights = [_mm512_setzero_si512(); V];
            for v in 0..V {
                weights[v] = load(&step[v]);
            }
            for t in 0..T {
                // SAFETY: each of `x` was cut to the panel's length, so the step lies inside it.
                let word = unsafe { *x[t].get_unchecked(block * LINE_STEPS + s) };
                let word = _mm512_set1_epi32(i32::from_ne_bytes([
                    word[0] as u8,
                    word[1] as u8,
                    word[2] as u8,
                    word[3] as u8,
                ]));
                for v in 0..V {
                    acc[t][v] = _mm512_dpbusd_epi32(acc[t][v], weights[v], word);
                }
            }
        }
    }
    for t in 0..T {
        let row = &mut out[t * whole.rows + whole.row0..(t + 1) * whole.rows];
        for (v, lanes) in row.chunks_mut(LANES).take(V).enumerate() {
            let mask = ((1u32 << lanes.len()) - 1) as __mmask16;
            let words = match whole.factors {
                Some(factors) => {
                    let by = _mm512_set1_ps(factors[first + t]);
                    _mm512_castps_si512(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[t][v]), by))
                }
                None => acc[t][v],
            };
            // SAFETY: masked-off lanes are not written, and the others lie inside `lanes`.
            unsafe { _mm512_mask_storeu_epi32(lanes.as_mut_ptr(), mask, words) };
        }
    }
    T
}
