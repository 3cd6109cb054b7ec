//! `vdpbf16ps` on the 14 × 32 tile of the f32 product.

use core::arch::x86_64::*;

use crate::gemm::avx512::{self, LANES, MR, NR, first, to_bf16};
use crate::gemm::{self, Layout, Problem, ROWS, Region, Tile, TileSize, extent};
use crate::isa::Isa;

/// Rows of the source between what is packed and what is asked for: those that packing takes next.
const AHEAD: usize = 2 * ROWS;

/// Proof that the CPU has AVX-512 BF16 beside what [`Avx512`](crate::isa::Avx512) proves.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// The token, if `isa` is the AVX-512 path and the CPU has BF16.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        #[cfg(feature = "std")]
        let has = std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = "avx512bf16");
        match isa {
            Isa::Avx512(_) if has => Some(Self(())),
            _ => None,
        }
    }
}

/// The loops of the product.
pub(super) fn blocks(t: Avx512Bf16, problem: &Problem<'_, u32>, c: &mut [f32], scratch: &mut [u32]) {
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw")]
    fn enter(t: Avx512Bf16, problem: &Problem<'_, u32>, c: &mut [f32], scratch: &mut [u32]) {
        gemm::blocks(t, problem, c, scratch)
    }
    // SAFETY: the token proves AVX-512 F and BW and what they include.
    unsafe { enter(t, problem, c, scratch) }
}

/// A region of B, packed.
pub(super) fn pack_region(t: Avx512Bf16, layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [u32]) {
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw")]
    fn enter(t: Avx512Bf16, layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [u32]) {
        gemm::pack_region(t, layout, region, b, ldb, out)
    }
    // SAFETY: the token proves AVX-512 F and BW and what they include.
    unsafe { enter(t, layout, region, b, ldb, out) }
}

impl Tile for Avx512Bf16 {
    type Unit = u32;
    const DEPTH: usize = 2;
    const MR: usize = MR;
    const NR: usize = NR;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [u32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=2 * LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        assert!(dst.len() >= extent(cols.div_ceil(2), dst_stride, LANES));
        // SAFETY: the token proves AVX-512 F and BF16; the asserts are what the function asks for.
        unsafe { avx512::transpose::<true>(src.as_ptr(), ld, rows, cols, dst.as_mut_ptr().cast(), dst_stride) }
    }

    #[inline(always)]
    fn zip(self, src: &[f32], ld: usize, depth: usize, cols: usize, dst: &mut [u32]) {
        assert!((1..=2).contains(&depth) && (1..=LANES).contains(&cols));
        assert!(src.len() >= extent(depth, ld, cols) && dst.len() >= cols);
        // SAFETY: the token proves AVX-512 F, BW and BF16; the asserts are what the function asks for.
        unsafe {
            if depth == 2 && cols == LANES {
                zip::<true>(src.as_ptr(), ld, depth, cols, dst.as_mut_ptr())
            } else {
                zip::<false>(src.as_ptr(), ld, depth, cols, dst.as_mut_ptr())
            }
        }
    }

    #[inline(always)]
    fn in_place(_: &[f32]) -> Option<&[u32]> {
        None
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[u32], b: &[u32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        let (a, b) = (a.as_ptr().cast(), b.as_ptr().cast());
        // SAFETY: the token proves AVX-512 F and BF16; `check` compared the slices with what a tile of this size touches.
        unsafe { avx512::tile::<true>(size, a, b, b_stride, c.as_mut_ptr(), ldc, add) }
    }
}

/// # Safety
/// The CPU has AVX-512 F, BW and BF16. `src` is good for reading `depth` (1 or 2) rows of `cols` (at most sixteen), `ld` apart; `dst` for
/// writing `cols` pairs. `WHOLE` says that there are two rows of sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn zip<const WHOLE: bool>(src: *const f32, ld: usize, depth: usize, cols: usize, dst: *mut u32) {
    let mask = first(cols);
    // Value j of the first row (words 0..16), then of the second (words 16..32).
    let order = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
        16, 0,
    );
    // SAFETY: what the caller vouches for; the masks end short rows, and a prefetch may point anywhere.
    unsafe {
        if WHOLE {
            // Rows lie too far apart for the hardware to guess the next ones.
            _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add(AHEAD * ld).cast());
            _mm_prefetch::<_MM_HINT_T0>(src.wrapping_add((AHEAD + 1) * ld).cast());
            let both = to_bf16(_mm512_loadu_ps(src), _mm512_loadu_ps(src.wrapping_add(ld)));
            _mm512_storeu_si512(dst.cast(), _mm512_permutexvar_epi16(order, both));
        } else {
            let below = if depth == 2 { mask } else { 0 };
            let low = _mm512_maskz_loadu_ps(mask, src);
            let high = _mm512_maskz_loadu_ps(below, src.wrapping_add(ld));
            let pairs = _mm512_permutexvar_epi16(order, to_bf16(low, high));
            _mm512_mask_storeu_epi32(dst.cast(), mask, pairs);
        }
    }
}
