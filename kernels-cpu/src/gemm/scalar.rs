//! The reference: the formula, over sixteen columns at a time.

use super::{Tile, TileSize, extent};
use crate::isa::Scalar;
use crate::simd::{LANES, Simd};

impl Tile for Scalar {
    super::single_units!(LANES);
    const MR: usize = 4;
    const NR: usize = LANES;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [f32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        for j in 0..cols {
            for (i, to) in dst[j * dst_stride..][..rows].iter_mut().enumerate() {
                *to = src[i * ld + j];
            }
        }
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[f32], b: &[f32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        let TileSize { mr, nr, kc } = size;
        let mut acc = [self.splat(0.0); Self::MR];
        for p in 0..kc {
            let row = self.load_or(&b[p * b_stride..][..nr], 0.0);
            for (i, t) in acc.iter_mut().enumerate().take(mr) {
                *t = self.fma(self.splat(a[p * LANES + i]), row, *t);
            }
        }
        for (i, t) in acc.iter().enumerate().take(mr) {
            for (to, &t) in c[i * ldc..][..nr].iter_mut().zip(t) {
                *to = if add { *to + t } else { t };
            }
        }
    }
}
