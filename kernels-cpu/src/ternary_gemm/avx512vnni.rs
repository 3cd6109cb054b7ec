//! AVX-512 VNNI: tiles of up to 64 rows (four vectors, lane = row) by six tokens.

use core::arch::x86_64::*;

use super::{PANEL_ROWS, PASS};
use crate::t2::{BLOCK, BLOCK_BYTES, GROUP_ROWS, group_bytes, padded_cols};

/// Rows of a vector.
const LANES: usize = 16;
/// Tokens of a tile.
const TILE: usize = 6;

/// 64 bytes of memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes that the reference covers, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// See [`super::ternary_gemm`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn gemm(w: &[u8], rows: usize, cols: usize, xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let (stride, steps) = (padded_cols(cols), cols.div_ceil(4));
    for (xq, out) in xq.chunks(PASS * stride).zip(out.chunks_mut(PASS * rows)) {
        let mut sums = [0i32; PASS];
        for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(stride)) {
            *sum = sum_of(&x[..4 * steps]);
        }
        for (p, panel) in w.chunks(PANEL_ROWS / GROUP_ROWS * group_bytes(cols)).enumerate() {
            let job = Job {
                stride,
                steps,
                rows,
                row0: p * PANEL_ROWS,
            };
            match (rows - job.row0).min(PANEL_ROWS).div_ceil(LANES) {
                1 => meet::<1>(&job, panel, xq, &sums, out, scratch),
                2 => meet::<2>(&job, panel, xq, &sums, out, scratch),
                3 => meet::<3>(&job, panel, xq, &sums, out, scratch),
                _ => meet::<4>(&job, panel, xq, &sums, out, scratch),
            }
        }
    }
}

/// What a panel's tiles share.
struct Job {
    /// Bytes of a token.
    stride: usize,
    /// Steps of four columns.
    steps: usize,
    /// Columns of `out`.
    rows: usize,
    /// First row of the panel.
    row0: usize,
}

/// `Σ x` (a multiple of four values).
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sum_of(x: &[i8]) -> i32 {
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
fn meet<const V: usize>(job: &Job, w: &[u8], xq: &[i8], sums: &[i32], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let group = job.stride / BLOCK * GROUP_ROWS * BLOCK_BYTES;
    for (v, groups) in w.chunks(LANES / GROUP_ROWS * group).enumerate() {
        open::<V>(groups, group, v, scratch);
    }
    let panel = &scratch.as_chunks::<V>().0[..job.steps];
    let mut t = 0;
    let tokens = xq.len() / job.stride;
    while t < tokens {
        let (x, sums, out) = (&xq[t * job.stride..], &sums[t..], &mut out[t * job.rows..]);
        t += match tokens - t {
            0 | 1 => tile::<V, 1>(job, panel, x, sums, out),
            2 => tile::<V, 2>(job, panel, x, sums, out),
            3 => tile::<V, 3>(job, panel, x, sums, out),
            4 => tile::<V, 4>(job, panel, x, sums, out),
            5 => tile::<V, 5>(job, panel, x, sums, out),
            _ => tile::<V, TILE>(job, panel, x, sums, out),
        };
    }
}

/// Opens up to sixteen rows into vector `v` of every step: step `s` is `panel[s * V + v]`.
///
/// The 16 × 16 words of a block (word `d` of row `r` holds columns `4d..4d+4` of each field) are transposed, then each
/// field is shifted down and masked: field `f` of word `d` is step `16f + d` of the block.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn open<const V: usize>(groups: &[u8], group: usize, v: usize, panel: &mut [[u8; 64]]) {
    let three = _mm512_set1_epi8(3);
    for (b, steps) in panel
        .chunks_exact_mut(BLOCK / 4 * V)
        .take(group / (GROUP_ROWS * BLOCK_BYTES))
        .enumerate()
    {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (g, group) in groups.chunks_exact(group).enumerate() {
            let blocks = &group[b * GROUP_ROWS * BLOCK_BYTES..][..GROUP_ROWS * BLOCK_BYTES];
            for (r, block) in blocks.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
                rows[g * GROUP_ROWS + r] = load(block);
            }
        }
        let words = transpose(rows);
        for d in 0..LANES {
            let fields = [
                words[d],
                _mm512_srli_epi16::<2>(words[d]),
                _mm512_srli_epi16::<4>(words[d]),
                _mm512_srli_epi16::<6>(words[d]),
            ];
            for f in 0..4 {
                let step = &mut steps[(LANES * f + d) * V + v];
                // SAFETY: `step` is 64 bytes.
                unsafe { _mm512_storeu_si512(step.as_mut_ptr().cast(), _mm512_and_si512(fields[f], three)) };
            }
        }
    }
}

/// Transposes 16 × 16 32-bit words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
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
        let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
        let (ab02, ab13) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
        );
        let (cd02, cd13) = (
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        );
        out[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab02, cd02);
        out[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(ab13, cd13);
        out[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab02, cd02);
        out[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(ab13, cd13);
    }
    out
}

/// `V` vectors of rows by `T` tokens; returns `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const V: usize, const T: usize>(
    job: &Job,
    panel: &[[[u8; 64]; V]],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
) -> usize {
    let x: [&[[i8; 4]]; T] = core::array::from_fn(|t| {
        let words = xq[t * job.stride..(t + 1) * job.stride].as_chunks::<4>().0;
        &words[..panel.len()]
    });
    let mut acc = [[_mm512_setzero_si512(); V]; T];
    for t in 0..T {
        acc[t] = [_mm512_set1_epi32(-sums[t]); V];
    }
    for (s, step) in panel.iter().enumerate() {
        let mut weights = [_mm512_setzero_si512(); V];
        for v in 0..V {
            weights[v] = load(&step[v]);
        }
        for t in 0..T {
            // SAFETY: each of `x` was cut to the panel's length, so `s` lies inside it.
            let word = _mm512_set1_epi32(i32::from_ne_bytes(unsafe { *x[t].get_unchecked(s) }.map(|b| b as u8)));
            for v in 0..V {
                acc[t][v] = _mm512_dpbusd_epi32(acc[t][v], weights[v], word);
            }
        }
    }
    for t in 0..T {
        let row = &mut out[t * job.rows + job.row0..(t + 1) * job.rows];
        for (v, lanes) in row.chunks_mut(LANES).take(V).enumerate() {
            let mask = ((1u32 << lanes.len()) - 1) as __mmask16;
            // SAFETY: masked-off lanes are not written, and the others lie inside `lanes`.
            unsafe { _mm512_mask_storeu_epi32(lanes.as_mut_ptr(), mask, acc[t][v]) };
        }
    }
    T
}
