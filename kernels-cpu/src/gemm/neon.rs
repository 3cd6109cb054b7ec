//! 6 × 16 tile in 24 of the 32 registers of four lanes; four more hold the row of B and one the value of A.

use core::arch::aarch64::*;

use super::{Tile, TileSize, extent};
use crate::isa::Neon;
use crate::simd::{LANES, Simd};

const MR: usize = 6;
/// Side of the block that is transposed in registers.
const QUAD: usize = 4;

/// `M` rows of C, `nr` columns.
#[inline(always)]
fn micro<const M: usize>(
    s: Neon,
    nr: usize,
    a: &[[f32; LANES]],
    b: &[f32],
    b_stride: usize,
    c: &mut [f32],
    ldc: usize,
    add: bool,
) {
    let mut acc = [s.splat(0.0); M];
    for (p, a) in a.iter().enumerate() {
        let row = &b[p * b_stride..];
        let row = match row.first_chunk::<LANES>() {
            Some(whole) if nr == LANES => s.load(whole),
            _ => s.load_or(&row[..nr], 0.0),
        };
        for i in 0..M {
            acc[i] = s.fma(s.splat(a[i]), row, acc[i]);
        }
    }
    for i in 0..M {
        let to = &mut c[i * ldc..][..nr];
        let t = if add { s.add(s.load_or(to, 0.0), acc[i]) } else { acc[i] };
        s.store_part(t, to);
    }
}

impl Tile for Neon {
    super::single_units!(LANES);
    const MR: usize = MR;
    const NR: usize = LANES;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [f32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        assert!(dst.len() >= extent(cols, dst_stride, LANES));
        for i in (0..rows).step_by(QUAD) {
            for j in (0..cols).step_by(QUAD) {
                if rows - i >= QUAD && cols - j >= QUAD {
                    // SAFETY: the token proves NEON; four rows of four values from (i, j) lie in `src`, and from (j, i) in `dst`.
                    unsafe {
                        let (from, to) = (src.as_ptr().add(i * ld + j), dst.as_mut_ptr().add(j * dst_stride + i));
                        transpose(from, ld, to, dst_stride)
                    };
                    continue;
                }
                for j in j..cols.min(j + QUAD) {
                    for i in i..rows.min(i + QUAD) {
                        dst[j * dst_stride + i] = src[i * ld + j];
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[f32], b: &[f32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        let a = &a.as_chunks::<LANES>().0[..size.kc];
        match size.mr {
            1 => micro::<1>(self, size.nr, a, b, b_stride, c, ldc, add),
            2 => micro::<2>(self, size.nr, a, b, b_stride, c, ldc, add),
            3 => micro::<3>(self, size.nr, a, b, b_stride, c, ldc, add),
            4 => micro::<4>(self, size.nr, a, b, b_stride, c, ldc, add),
            5 => micro::<5>(self, size.nr, a, b, b_stride, c, ldc, add),
            _ => micro::<MR>(self, size.nr, a, b, b_stride, c, ldc, add),
        }
    }
}

/// Four rows of four in registers: interleaved by value, then by pair.
///
/// # Safety
/// The CPU has NEON. `src` is good for reading four rows of four, `ld` apart; `dst` for writing four rows of four, `dst_stride` apart.
#[inline(always)]
unsafe fn transpose(src: *const f32, ld: usize, dst: *mut f32, dst_stride: usize) {
    // SAFETY: as the caller says.
    unsafe {
        let mut r = [vdupq_n_f32(0.0); QUAD];
        for i in 0..QUAD {
            r[i] = vld1q_f32(src.add(i * ld));
        }
        let pairs = [
            vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])),
            vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1])),
            vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])),
            vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3])),
        ];
        for j in 0..2 {
            let (top, bottom) = (pairs[j], pairs[2 + j]);
            vst1q_f32(dst.add(j * dst_stride), vreinterpretq_f32_f64(vtrn1q_f64(top, bottom)));
            vst1q_f32(
                dst.add((2 + j) * dst_stride),
                vreinterpretq_f32_f64(vtrn2q_f64(top, bottom)),
            );
        }
    }
}
