//! AVX-512 VNNI: the tiles of the ternary GEMM, up to 64 rows (four vectors, lane = row) by six tokens.

use core::arch::x86_64::*;

use super::{Job, PANEL_ROWS, PASS};
use crate::ternary_gemm::avx512vnni::{LANES, Panel, store, sum_of, tiles, transpose};

/// See [`super::int8_gemm`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn gemm(job: &Job, w: &[i8], xq: &[i8], out: &mut [i32], scratch: &mut [[u8; 64]]) {
    let steps = job.cols.div_ceil(4);
    for (xq, out) in xq.chunks(PASS * job.stride).zip(out.chunks_mut(PASS * job.rows)) {
        let mut sums = [0i32; PASS];
        for (sum, x) in sums.iter_mut().zip(xq.chunks_exact(job.stride)) {
            *sum = sum_of(&x[..4 * steps]).wrapping_mul(128);
        }
        let mut panels = w.chunks(PANEL_ROWS * job.cols).enumerate().peekable();
        while let Some((p, w)) = panels.next() {
            let panel = Panel {
                stride: job.stride,
                rows: job.rows,
                row0: p * PANEL_ROWS,
                factors: None,
                ahead: panels.peek().map_or(&[], |(_, w)| bytemuck::cast_slice(w)),
            };
            match (job.rows - panel.row0).min(PANEL_ROWS).div_ceil(LANES) {
                1 => meet::<1>(job, &panel, w, xq, &sums, out, scratch),
                2 => meet::<2>(job, &panel, w, xq, &sums, out, scratch),
                3 => meet::<3>(job, &panel, w, xq, &sums, out, scratch),
                _ => meet::<4>(job, &panel, w, xq, &sums, out, scratch),
            }
        }
    }
}

/// Lays out a panel of `V` vectors of rows and takes all tokens through it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn meet<const V: usize>(
    job: &Job,
    panel: &Panel,
    w: &[i8],
    xq: &[i8],
    sums: &[i32],
    out: &mut [i32],
    scratch: &mut [[u8; 64]],
) {
    let steps = scratch.as_chunks_mut::<V>().0;
    let steps = &mut steps[..job.cols.div_ceil(4)];
    for (v, rows) in w.chunks(LANES * job.cols).enumerate() {
        lay_out(rows, job.cols, v, steps);
    }
    tiles::<V>(panel, steps, xq, sums, out);
}

/// Up to sixteen rows into vector `v` of every step, as `w + 128`: 64 columns of each are sixteen steps, transposed.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn lay_out<const V: usize>(w: &[i8], cols: usize, v: usize, steps: &mut [[[u8; 64]; V]]) {
    let flip = _mm512_set1_epi8(-128);
    for (b, steps) in steps.chunks_mut(LANES).enumerate() {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, w) in rows.iter_mut().zip(w.chunks_exact(cols)) {
            *row = _mm512_xor_si512(load_part(&w[64 * b..]), flip);
        }
        for (step, word) in steps.iter_mut().zip(transpose(rows)) {
            store(&mut step[v], word);
        }
    }
}

/// The first 64 values, or as many as there are, then zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_part(bytes: &[i8]) -> __m512i {
    let mask = match bytes.len() {
        64.. => u64::MAX,
        len => (1 << len) - 1,
    };
    // SAFETY: masked-off lanes are not read, and the others lie inside `bytes`.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr()) }
}
