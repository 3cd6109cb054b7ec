//! The reference, and the path of a CPU without the instruction: two fused multiply-adds a pair.

use super::round_bits;
use crate::gemm::{self, Layout, Problem, Region, Tile, TileSize, extent};
use crate::simd::{LANES, Simd, simd_kernel};

simd_kernel! {
    /// The loops of the product over the vector of `isa`.
    pub fn blocks(problem: &Problem<'_, u32>, c: &mut [f32], scratch: &mut [u32]) = run;
}

simd_kernel! {
    /// A region of B, packed for the path of `isa`.
    pub fn pack_region(layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [u32]) = pack;
}

#[inline(always)]
fn pack<S: Simd>(s: S, layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [u32]) {
    gemm::pack_region(Emulated(s), layout, region, b, ldb, out);
}

#[inline(always)]
fn run<S: Simd>(s: S, problem: &Problem<'_, u32>, c: &mut [f32], scratch: &mut [u32]) {
    gemm::blocks(Emulated(s), problem, c, scratch);
}

/// What `vdpbf16ps` does, on the vector of another path.
#[derive(Clone, Copy)]
struct Emulated<S>(S);

/// Rows of the tile.
const MR: usize = 4;
/// Largest subnormal number.
const SUBNORMAL: f32 = f32::from_bits(0x007f_ffff);

impl<S: Simd> Emulated<S> {
    /// Subnormal lanes become zeros of their sign.
    #[inline(always)]
    fn flush(self, x: S::F) -> S::F {
        let s = self.0;
        s.select_gt(s.abs(x), s.splat(SUBNORMAL), x, s.mul(x, s.splat(0.0)))
    }

    /// The even and the odd values of `pairs`.
    #[inline(always)]
    fn split(self, pairs: &[u32; LANES]) -> (S::F, S::F) {
        let (mut evens, mut odds) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..LANES {
            evens[j] = even(pairs[j]);
            odds[j] = odd(pairs[j]);
        }
        (self.0.load(&evens), self.0.load(&odds))
    }
}

#[inline(always)]
fn even(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn odd(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

#[inline(always)]
fn pair(even: f32, odd: Option<f32>) -> u32 {
    round_bits(even) | round_bits(odd.unwrap_or(0.0)) << 16
}

impl<S: Simd> Tile for Emulated<S> {
    type Unit = u32;
    const DEPTH: usize = 2;
    const MR: usize = MR;
    const NR: usize = LANES;
    const W: usize = LANES;

    #[inline(always)]
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [u32], dst_stride: usize) {
        assert!((1..=LANES).contains(&rows) && (1..=2 * LANES).contains(&cols) && src.len() >= extent(rows, ld, cols));
        for p in 0..cols.div_ceil(2) {
            for (i, to) in dst[p * dst_stride..][..rows].iter_mut().enumerate() {
                let row = &src[i * ld..][..cols];
                *to = pair(row[2 * p], row.get(2 * p + 1).copied());
            }
        }
    }

    #[inline(always)]
    fn zip(self, src: &[f32], ld: usize, depth: usize, cols: usize, dst: &mut [u32]) {
        let below = if depth == 2 { &src[ld..][..cols] } else { &[] };
        for (j, to) in dst[..cols].iter_mut().enumerate() {
            *to = pair(src[j], below.get(j).copied());
        }
    }

    #[inline(always)]
    fn in_place(_: &[f32]) -> Option<&[u32]> {
        None
    }

    #[inline(always)]
    fn tile(self, size: TileSize, a: &[u32], b: &[u32], b_stride: usize, c: &mut [f32], ldc: usize, add: bool) {
        size.check::<Self>(a, b, b_stride, c, ldc);
        let s = self.0;
        let TileSize { mr, nr, kc } = size;
        let mut acc = [s.splat(0.0); MR];
        for p in 0..kc {
            let mut pairs = [0; LANES];
            pairs[..nr].copy_from_slice(&b[p * b_stride..][..nr]);
            let (even_b, odd_b) = self.split(&pairs);
            for (i, t) in acc.iter_mut().enumerate().take(mr) {
                let x = a[p * LANES + i];
                *t = self.flush(s.fma(s.splat(odd(x)), odd_b, *t));
                *t = self.flush(s.fma(s.splat(even(x)), even_b, *t));
            }
        }
        for (i, &t) in acc.iter().enumerate().take(mr) {
            let mut values = [0.0; LANES];
            s.store(t, &mut values);
            for (to, t) in c[i * ldc..][..nr].iter_mut().zip(values) {
                *to = if add { *to + t } else { t };
            }
        }
    }
}
