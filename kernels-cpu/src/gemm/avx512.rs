//! 14 × 32 tile in 28 registers of sixteen lanes; two more hold the row of B and one the value of A.
//!
//! A step of k is 28 multiply-adds for 16 loads, so the loads hide on a CPU that starts two 512-bit multiply-adds a cycle as
//! well as on one that starts one.

//!
//! The same tile and the same transpose serve pairs of bf16 (`PAIRS`): a pair is as wide as an f32, `vdpbf16ps` takes the place of the
//! multiply-add and `vcvtne2ps2bf16` that of the load. Their intrinsics are not stable yet, so both are written in assembly.

use core::arch::asm;
use core::arch::x86_64::*;

use super::{Tile, TileSize, extent};
use crate::isa::Avx512;

pub(crate) const MR: usize = 14;
const VECS: usize = 2;
pub(crate) const LANES: usize = 16;
pub(crate) const NR: usize = VECS * LANES;

/// `(kc, a, b, b_stride, mask of the last vector, c, ldc, add)`.
type Micro = unsafe fn(usize, *const f32, *const f32, usize, __mmask16, *mut f32, usize, bool);

macro_rules! rows {
    ($pairs:literal: $($m:literal)*) => { [$([micro::<$m, 1, $pairs>, micro::<$m, 2, $pairs>]),*] };
}
/// Indexed by rows and by vectors of a row, each less one.
static MICRO: [[Micro; VECS]; MR] = rows!(false: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
static MICRO_PAIRS: [[Micro; VECS]; MR] = rows!(true: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

/// `acc + x · y`: a multiply-add, or two of them in each lane with `PAIRS`.
///
/// # Safety
/// The CPU has AVX-512 F, and BF16 if `PAIRS`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply_add<const PAIRS: bool>(x: __m512, y: __m512, acc: __m512) -> __m512 {
    if PAIRS {
        let mut sum = acc;
        // SAFETY: registers only; the CPU has the instruction, says the caller.
        unsafe {
            asm!("vdpbf16ps {0}, {1}, {2}", inout(zmm_reg) sum, in(zmm_reg) x, in(zmm_reg) y,
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    } else {
        _mm512_fmadd_ps(x, y, acc)
    }
}

/// Sixteen values of `low`, then sixteen of `high`, rounded to bf16 (ties to even, subnormals to zero).
///
/// # Safety
/// The CPU has AVX-512 F and BF16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn to_bf16(low: __m512, high: __m512) -> __m512i {
    let both: __m512i;
    // SAFETY: registers only; the CPU has the instruction, says the caller.
    unsafe {
        asm!("vcvtne2ps2bf16 {0}, {1}, {2}", lateout(zmm_reg) both, in(zmm_reg) high, in(zmm_reg) low,
            options(pure, nomem, nostack, preserves_flags));
    }
    both
}

/// # Safety
/// The CPU has AVX-512 F, and BF16 if `PAIRS`. `a` is good for `kc` rows of `LANES` reads; `b` for `kc` rows, `b_stride` apart, of `V` vectors,
/// and `c` for reads and writes of `M` rows, `ldc` apart, of the same; of the last vector only the lanes of `mask` count.
#[target_feature(enable = "avx512f")]
unsafe fn micro<const M: usize, const V: usize, const PAIRS: bool>(
    kc: usize,
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    mask: __mmask16,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mut masks = [!0; V];
    masks[V - 1] = mask;
    // SAFETY: every offset below is within what the caller vouches for: rows of A below kc, rows of B below kc and of C
    // below M, vectors of a row below V, and the lanes beyond the mask are not touched (a prefetch may point anywhere).
    unsafe {
        for i in 0..M {
            for v in 0..V {
                _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * ldc + v * LANES).cast());
            }
        }
        let mut acc = [[_mm512_setzero_ps(); V]; M];
        let (mut a, mut b) = (a, b);
        for _ in 0..kc {
            let mut row = [_mm512_setzero_ps(); V];
            for v in 0..V {
                row[v] = _mm512_maskz_loadu_ps(masks[v], b.wrapping_add(v * LANES));
            }
            for i in 0..M {
                let x = _mm512_set1_ps(*a.add(i));
                for v in 0..V {
                    acc[i][v] = multiply_add::<PAIRS>(x, row[v], acc[i][v]);
                }
            }
            a = a.wrapping_add(LANES);
            b = b.wrapping_add(b_stride);
        }
        for i in 0..M {
            for v in 0..V {
                let to = c.wrapping_add(i * ldc + v * LANES);
                let t = acc[i][v];
                let t = if add {
                    _mm512_add_ps(_mm512_maskz_loadu_ps(masks[v], to), t)
                } else {
                    t
                };
                _mm512_mask_storeu_ps(to, masks[v], t);
            }
        }
    }
}

/// A mask of the first `n` lanes.
#[inline(always)]
pub(crate) fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// The tile on units as wide as an f32.
///
/// # Safety
/// The CPU has AVX-512 F, and BF16 if `PAIRS`. `size` fits the registers; `a` is good for `kc` rows of sixteen reads, `b` for `kc` rows of
/// `nr`, `b_stride` apart, and `c` for reads and writes of `mr` rows of `nr`, `ldc` apart.
#[inline(always)]
pub(crate) unsafe fn tile<const PAIRS: bool>(
    size: TileSize,
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let vecs = size.nr.div_ceil(LANES);
    let mask = first(size.nr - (vecs - 1) * LANES);
    let all = if PAIRS { &MICRO_PAIRS } else { &MICRO };
    // SAFETY: what the caller vouches for.
    unsafe { all[size.mr - 1][vecs - 1](size.kc, a, b, b_stride, mask, c, ldc, add) }
}

impl Tile for Avx512 {
    super::single_units!(LANES);
    const MR: usize = MR;
    const NR: usize = NR;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [f32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        assert!(dst.len() >= extent(cols, dst_stride, LANES));
        // SAFETY: the token proves AVX-512 F; the asserts are what the function asks for.
        unsafe { transpose::<false>(src.as_ptr(), ld, rows, cols, dst.as_mut_ptr(), dst_stride) }
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[f32], b: &[f32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        // SAFETY: the token proves AVX-512 F; `check` compared the slices with what a tile of this size touches.
        unsafe { tile::<false>(size, a.as_ptr(), b.as_ptr(), b_stride, c.as_mut_ptr(), ldc, add) }
    }
}

/// Sixteen rows in registers: interleaved by value, by pair, then by quarter register, twice.
///
/// # Safety
/// The CPU has AVX-512 F, and BF16 if `PAIRS`. `src` is good for reading `rows` (not 0) rows of `cols` (at most sixteen, or 32 if
/// `PAIRS`), `ld` apart; `dst` for writing a row of sixteen for each unit of the columns, `dst_stride` apart.
#[inline(always)]
pub(crate) unsafe fn transpose<const PAIRS: bool>(
    src: *const f32,
    ld: usize,
    rows: usize,
    cols: usize,
    dst: *mut f32,
    dst_stride: usize,
) {
    // SAFETY: what the caller vouches for.
    unsafe {
        if cols == if PAIRS { 2 * LANES } else { LANES } {
            transpose_block::<true, PAIRS>(src, ld, rows, cols, dst, dst_stride)
        } else {
            transpose_block::<false, PAIRS>(src, ld, rows, cols, dst, dst_stride)
        }
    }
}

/// # Safety
/// As [`transpose`]; `WHOLE` says that `cols` is as large as it may be.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose_block<const WHOLE: bool, const PAIRS: bool>(
    src: *const f32,
    ld: usize,
    rows: usize,
    cols: usize,
    dst: *mut f32,
    dst_stride: usize,
) {
    let (mask, mask_high) = (first(cols.min(LANES)), first(cols.saturating_sub(LANES)));
    let units = if PAIRS { cols.div_ceil(2) } else { cols };
    let mut r = [_mm512_setzero_ps(); 16];
    for i in 0..16 {
        // Past the last row, its values again: nobody reads those lanes.
        let from = src.wrapping_add(i.min(rows - 1) * ld);
        // SAFETY: the row exists and holds `cols` values; the masks end a short one there.
        r[i] = unsafe {
            let low = if WHOLE {
                _mm512_loadu_ps(from)
            } else {
                _mm512_maskz_loadu_ps(mask, from)
            };
            if PAIRS {
                let from = from.wrapping_add(LANES);
                let high = if WHOLE {
                    _mm512_loadu_ps(from)
                } else {
                    _mm512_maskz_loadu_ps(mask_high, from)
                };
                _mm512_castsi512_ps(to_bf16(low, high))
            } else {
                low
            }
        };
    }
    let mut t = r;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // u[4g + c], quarter l: column 4l + c of rows 4g .. 4g + 4.
    let mut u = r;
    for g in 0..4 {
        for h in 0..2 {
            let (x, y) = (_mm512_castps_pd(t[4 * g + h]), _mm512_castps_pd(t[4 * g + h + 2]));
            u[4 * g + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            u[4 * g + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    }
    for c in 0..4 {
        let even = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(u[c], u[4 + c]);
        let even2 = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
        let odd2 = _mm512_shuffle_f32x4::<0xdd>(u[8 + c], u[12 + c]);
        r[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        r[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        r[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        r[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    for j in 0..16 {
        if WHOLE || j < units {
            // SAFETY: row `j` of `dst` exists and holds sixteen values.
            unsafe { _mm512_storeu_ps(dst.add(j * dst_stride), r[j]) };
        }
    }
}
