//! 6 × 16 tile in 12 registers of eight lanes; two more hold the row of B and one the value of A.

use core::arch::x86_64::*;

use super::{Tile, TileSize, extent};
use crate::isa::Avx2;

const MR: usize = 6;
const VECS: usize = 2;
const LANES: usize = 8;

/// `(kc, a, b, b_stride, lanes of the last vector, c, ldc, add)`.
type Micro = unsafe fn(usize, *const f32, *const f32, usize, usize, *mut f32, usize, bool);

macro_rules! rows {
    ($($m:literal)*) => {
        [$([[micro::<$m, 1, false>, micro::<$m, 1, true>], [micro::<$m, 2, false>, micro::<$m, 2, true>]]),*]
    };
}
/// Indexed by rows and by vectors of a row, each less one, and by whether the last vector is short.
static MICRO: [[[Micro; 2]; VECS]; MR] = rows!(1 2 3 4 5 6);

/// A mask of the first `n` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn first(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// # Safety
/// The CPU has AVX2 and FMA. `a` is good for `kc` rows of `LANES` reads; `b` for `kc` rows, `b_stride` apart, of `V` vectors,
/// and `c` for reads and writes of `M` rows, `ldc` apart, of the same; if `SHORT`, only `lanes` lanes of the last vector count.
#[target_feature(enable = "avx2,fma")]
unsafe fn micro<const M: usize, const V: usize, const SHORT: bool>(
    kc: usize,
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    lanes: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let mask = first(lanes);
    // SAFETY: every offset below is within what the caller vouches for: rows of A below kc, rows of B below kc and of C
    // below M, vectors of a row below V, and the lanes beyond the mask are not touched (a prefetch may point anywhere).
    unsafe {
        for i in 0..M {
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(i * ldc).cast());
        }
        let mut acc = [[_mm256_setzero_ps(); V]; M];
        let (mut a, mut b) = (a, b);
        for _ in 0..kc {
            let mut row = [_mm256_setzero_ps(); V];
            for v in 0..V {
                let from = b.wrapping_add(v * LANES);
                row[v] = if SHORT && v == V - 1 {
                    _mm256_maskload_ps(from, mask)
                } else {
                    _mm256_loadu_ps(from)
                };
            }
            for i in 0..M {
                let x = _mm256_set1_ps(*a.add(i));
                for v in 0..V {
                    acc[i][v] = _mm256_fmadd_ps(x, row[v], acc[i][v]);
                }
            }
            a = a.wrapping_add(LANES);
            b = b.wrapping_add(b_stride);
        }
        for i in 0..M {
            for v in 0..V {
                let to = c.wrapping_add(i * ldc + v * LANES);
                let t = acc[i][v];
                if SHORT && v == V - 1 {
                    let t = if add {
                        _mm256_add_ps(_mm256_maskload_ps(to, mask), t)
                    } else {
                        t
                    };
                    _mm256_maskstore_ps(to, mask, t);
                } else {
                    let t = if add { _mm256_add_ps(_mm256_loadu_ps(to), t) } else { t };
                    _mm256_storeu_ps(to, t);
                }
            }
        }
    }
}

impl Tile for Avx2 {
    super::single_units!(LANES);
    const MR: usize = MR;
    const NR: usize = VECS * LANES;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [f32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        assert!(dst.len() >= extent(cols, dst_stride, LANES));
        // SAFETY: the token proves AVX2; the asserts are what the function asks for.
        unsafe {
            if cols == LANES {
                transpose::<true>(src.as_ptr(), ld, rows, cols, dst.as_mut_ptr(), dst_stride)
            } else {
                transpose::<false>(src.as_ptr(), ld, rows, cols, dst.as_mut_ptr(), dst_stride)
            }
        }
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[f32], b: &[f32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        let vecs = size.nr.div_ceil(LANES);
        let lanes = size.nr - (vecs - 1) * LANES;
        let micro = MICRO[size.mr - 1][vecs - 1][usize::from(lanes < LANES)];
        // SAFETY: the token proves AVX2 and FMA; `check` compared the slices with what a tile of this size touches.
        unsafe {
            micro(
                size.kc,
                a.as_ptr(),
                b.as_ptr(),
                b_stride,
                lanes,
                c.as_mut_ptr(),
                ldc,
                add,
            )
        }
    }
}

/// Eight rows in registers: interleaved by value, by pair, then by half register.
///
/// # Safety
/// The CPU has AVX2. `src` is good for reading `rows` (not 0) rows of `cols`, `ld` apart; `dst` for writing `cols` rows of eight,
/// `dst_stride` apart. `WHOLE` says that `cols` is eight.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose<const WHOLE: bool>(
    src: *const f32,
    ld: usize,
    rows: usize,
    cols: usize,
    dst: *mut f32,
    dst_stride: usize,
) {
    let mask = first(cols);
    let mut r = [_mm256_setzero_ps(); 8];
    for i in 0..8 {
        // Past the last row, its values again: nobody reads those lanes.
        let from = src.wrapping_add(i.min(rows - 1) * ld);
        // SAFETY: the row exists and holds `cols` values; the mask ends a short one there.
        r[i] = unsafe {
            if WHOLE {
                _mm256_loadu_ps(from)
            } else {
                _mm256_maskload_ps(from, mask)
            }
        };
    }
    let mut t = r;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    // u[4g + c], half l: column 4l + c of rows 4g .. 4g + 4.
    let mut u = r;
    for g in 0..2 {
        for h in 0..2 {
            let (x, y) = (_mm256_castps_pd(t[4 * g + h]), _mm256_castps_pd(t[4 * g + h + 2]));
            u[4 * g + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
            u[4 * g + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
        }
    }
    for c in 0..4 {
        r[c] = _mm256_permute2f128_ps::<0x20>(u[c], u[4 + c]);
        r[4 + c] = _mm256_permute2f128_ps::<0x31>(u[c], u[4 + c]);
    }
    for j in 0..8 {
        if WHOLE || j < cols {
            // SAFETY: row `j` of `dst` exists and holds eight values.
            unsafe { _mm256_storeu_ps(dst.add(j * dst_stride), r[j]) };
        }
    }
}
