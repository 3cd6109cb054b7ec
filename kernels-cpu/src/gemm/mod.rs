//! Dense f32 matrix product, packed and cache-blocked.
//!
//! ```text
//! NN  C[m,n] (+)= A[m,k] · B[k,n]        a linear layer backwards to its input: dX = dY · W
//! NT  C[m,n] (+)= A[m,k] · B[n,k]ᵀ       a linear layer forwards: Y = X · Wᵀ; attention scores Q · Kᵀ
//! TN  C[m,n] (+)= A[k,m]ᵀ · B[k,n]       a linear layer's weight gradient: dW = dYᵀ · X
//! ```
//!
//! Each row of A, B and C is contiguous and rows lie `lda`, `ldb`, `ldc` elements apart, so a head or a range of rows or
//! columns of a larger matrix needs no copy.
//!
//! # Numerics
//! Every element of C is computed alone, the same way on every instruction set:
//!
//! ```text
//! for each block of KC values of k, in order:
//!     t = 0;  for p in block: t = fma(a[p], b[p], t)        one chain, in index order
//!     c = t            (first block, not accumulating)   or   c = c + t
//! ```
//!
//! so the bits depend neither on the instruction set nor on how a caller splits `m` and `n` over threads.
//!
//! # Blocking
//! ```text
//!                      NC columns
//!                  ┌───┬───┬───┬───┐
//!                  │   │NR │   │   │ KC    B block: packed in panels of NR columns, [k][NR]; stays in L2
//!                  └───┴───┴───┴───┘
//!          KC
//!        ┌────┐    ┌───┬───┬───┬───┐
//!        ├ MR ┤    │   │ ▣ │   │   │       ▣ one tile of C, MR × NR, in registers for the whole KC block
//!     MC ├────┤    │   │   │   │   │
//!        └────┘    └───┴───┴───┴───┘       A block: packed in panels of MR rows, [k][W]; the panel in use stays in L1
//! ```
//!
//! The three layouts differ only in packing: one operand is copied row by row, another goes through a transpose in
//! registers. A tile step loads NR values of B and MR of A for MR·NR fused multiply-adds. An element of A is packed once for
//! each NC columns and an element of B once in all, for about half a cycle each, so packing shows only where `m` or `n` is
//! small; with at most five panels of rows, a B that needs no transpose is read in place.
//!
//! The loops and the packing are generic over the register tile: [`gemm_bf16`](crate::gemm_bf16) runs them on packed pairs of bf16.

/// What the [`Tile`]s of f32 have in common: a unit is a value, and `B` can be read where it lies.
macro_rules! single_units {
    ($lanes:expr) => {
        type Unit = f32;
        const DEPTH: usize = 1;

        #[inline(always)]
        fn zip(self, src: &[f32], _: usize, _: usize, cols: usize, dst: &mut [f32]) {
            crate::gemm::copy::<{ $lanes }>(src, cols, dst)
        }

        #[inline(always)]
        fn in_place(b: &[f32]) -> Option<&[f32]> {
            Some(b)
        }
    };
}
use single_units;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod scalar;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::isa::{FloatIsa, Isa};
#[cfg(target_arch = "x86_64")]
pub(crate) use pack::ROWS;

/// Units of k (values; pairs of them in bf16) in one chain of multiply-adds. Part of the numerics: the same on every instruction set.
pub const KC: usize = 256;
/// Columns of B packed at a time; a multiple of every `NR`.
const NC: usize = 512;
/// Lanes of packed rows of A at a time; a multiple of every `W`.
const MC: usize = 240;
/// Columns to which blocks of a B that is packed ahead are filled up; a multiple of every `NR`.
const PANEL: usize = 32;
/// Units in a cache line, to which the packed blocks are aligned.
const LINE: usize = 16;

/// Which operand is stored transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `A[m,k] · B[k,n]`.
    NN,
    /// `A[m,k] · B[n,k]ᵀ`.
    NT,
    /// `A[k,m]ᵀ · B[k,n]`.
    TN,
}

/// Elements of packing scratch that [`gemm`] needs, whatever the shape. It is written before it is read.
pub const fn scratch_len() -> usize {
    KC * NC + KC * MC + 2 * LINE
}

/// The register tile of an instruction set and the two operations that need its instructions.
pub(crate) trait Tile: Copy {
    /// What packed operands consist of: [`Tile::DEPTH`] successive values of k of one row or column.
    type Unit: Copy;
    /// Values of k in a unit; the last unit of an operand is filled up with zeros.
    const DEPTH: usize;
    /// Rows of C in a tile, at most [`Tile::W`].
    const MR: usize;
    /// Columns of C in a tile, a multiple of [`Tile::W`].
    const NR: usize;
    /// Lanes of a vector: side of the square block that [`Tile::transpose`] handles, row length of a packed panel of A.
    const W: usize;

    /// Writes the transpose of `rows` (`1..=W`) rows of `cols` (`1..=W·DEPTH`) values of `src`, `ld` apart, to `dst`: for each unit of
    /// the columns a row of `W` units, `dst_stride` apart; what the lanes from `rows` on receive is unspecified.
    ///
    /// # Panics
    /// If a count is out of range, or `src` or `dst` is too short.
    fn transpose(self, src: &[f32], ld: usize, rows: usize, cols: usize, dst: &mut [Self::Unit], dst_stride: usize);

    /// Writes `cols` (`1..=W`) units to `dst`: unit `j` is value `j` of each of `depth` (`1..=DEPTH`) rows of `src`, `ld` apart.
    ///
    /// # Panics
    /// If a count is out of range, or `src` or `dst` is too short.
    fn zip(self, src: &[f32], ld: usize, depth: usize, cols: usize, dst: &mut [Self::Unit]);

    /// `b` as units, where a unit is what is stored.
    fn in_place(b: &[f32]) -> Option<&[Self::Unit]>;

    /// `C[mr, nr] = A · B` (or `+=` if `add`), `a` a packed panel `[kc][W]`, `b` rows of `nr` units, `b_stride` apart.
    ///
    /// # Panics
    /// If a slice is too short, or `mr` or `nr` is 0 or exceeds the tile.
    fn tile(
        self,
        size: TileSize,
        a: &[Self::Unit],
        b: &[Self::Unit],
        b_stride: usize,
        c: &mut [f32],
        ldc: usize,
        add: bool,
    );
}

/// The part of a tile that is in use; `kc` counts units.
#[derive(Clone, Copy)]
pub(crate) struct TileSize {
    pub(crate) mr: usize,
    pub(crate) nr: usize,
    pub(crate) kc: usize,
}

impl TileSize {
    /// Panics unless the operands hold what a tile of this size reads and writes.
    #[inline(always)]
    pub(crate) fn check<T: Tile>(self, a: &[T::Unit], b: &[T::Unit], b_stride: usize, c: &[f32], ldc: usize) {
        let Self { mr, nr, kc } = self;
        assert!(
            (1..=T::MR).contains(&mr) && (1..=T::NR).contains(&nr),
            "the tile fits its registers"
        );
        assert!(a.len() >= kc * T::W, "A holds kc rows of the panel");
        assert!(b.len() >= extent(kc, b_stride, nr), "B holds kc rows of nr");
        assert!(c.len() >= extent(mr, ldc, nr), "C holds mr rows of nr");
    }
}

/// Elements from the first of row 0 to the last of row `rows - 1`.
#[inline(always)]
pub(crate) fn extent(rows: usize, stride: usize, cols: usize) -> usize {
    if rows == 0 || cols == 0 {
        0
    } else {
        (rows - 1).saturating_mul(stride).saturating_add(cols)
    }
}

/// The first `cols` values of `src` to `dst`.
#[inline(always)]
fn copy<const W: usize>(src: &[f32], cols: usize, dst: &mut [f32]) {
    if cols == W {
        // The length is a constant here, so this is a vector move.
        dst[..W].copy_from_slice(&src[..W]);
    } else {
        dst[..cols].copy_from_slice(&src[..cols]);
    }
}

/// Panics unless `data` holds `rows` rows of `cols` values, `stride` apart.
fn check_matrix(name: &str, data: &[f32], rows: usize, cols: usize, stride: usize) {
    assert!(
        rows <= 1 || stride >= cols,
        "{name}: row stride {stride} is below the row length {cols}"
    );
    assert!(
        data.len() >= extent(rows, stride, cols),
        "{name}: {} elements for [{rows}, {cols}]",
        data.len()
    );
}

/// `C = A · B`, or `C += A · B` if `accumulate`; shapes by [`Layout`], C `[m, n]`; single-threaded.
///
/// `scratch` holds at least [`scratch_len`] elements. With `k == 0` and without `accumulate`, C is set to zero.
///
/// # Panics
/// If a row stride is below its row length, or a slice is shorter than its matrix or `scratch` than [`scratch_len`].
pub fn gemm(
    isa: Isa,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    lda: usize,
    b: &[f32],
    ldb: usize,
    accumulate: bool,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut [f32],
) {
    let problem = Problem {
        layout,
        m,
        n,
        k,
        a,
        lda,
        b: Right::Stored(b, ldb),
        ldc,
        accumulate,
    };
    if !problem.check(c, scratch.len()) {
        return;
    }
    match isa.floats() {
        FloatIsa::Scalar(t) => blocks(t, &problem, c, scratch),
        // Training alone has a use for it, and nobody trains in a browser.
        #[cfg(target_feature = "simd128")]
        FloatIsa::Simd128(_) => blocks(crate::isa::Scalar, &problem, c, scratch),
        #[cfg(target_arch = "aarch64")]
        FloatIsa::Neon(t) => blocks(t, &problem, c, scratch),
        #[cfg(target_arch = "x86_64")]
        FloatIsa::Avx2(t) => {
            #[target_feature(enable = "avx2,fma")]
            fn enter(t: crate::isa::Avx2, problem: &Problem<f32>, c: &mut [f32], scratch: &mut [f32]) {
                blocks(t, problem, c, scratch)
            }
            // SAFETY: the token proves that the CPU has AVX2 and FMA.
            unsafe { enter(t, &problem, c, scratch) }
        }
        #[cfg(target_arch = "x86_64")]
        FloatIsa::Avx512(t) => {
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn enter(t: crate::isa::Avx512, problem: &Problem<f32>, c: &mut [f32], scratch: &mut [f32]) {
                blocks(t, problem, c, scratch)
            }
            // SAFETY: the token proves that the CPU has AVX-512 F and what it includes.
            unsafe { enter(t, &problem, c, scratch) }
        }
    }
}

/// The right operand.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a, U> {
    /// As the layout says, rows so far apart.
    Stored(&'a [f32], usize),
    /// By [`pack_region`], all regions in order.
    Packed(&'a [U]),
}

/// A part of B that is packed on its own: `cols` columns from `first_col`, `depth` values of k from `first`, in `len` units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    first_col: usize,
    cols: usize,
    first: usize,
    depth: usize,
    /// Units that it takes.
    pub len: usize,
}

/// The regions of a B of `n` columns and `k` values in units of `unit`, in the order in which they lie behind one another.
pub(crate) fn regions(n: usize, k: usize, unit: usize) -> impl Iterator<Item = Region> {
    /// Columns of a region: long enough runs, and several regions to share out.
    const COLS: usize = 128;
    let in_block = move |jc: usize| {
        let end = n.min(jc + NC);
        let in_rows = move |pc: usize| {
            let depth = (KC * unit).min(k - pc);
            (jc..end).step_by(COLS).map(move |j| {
                let cols = COLS.min(end - j);
                Region {
                    first_col: j,
                    cols,
                    first: pc,
                    depth,
                    len: cols.next_multiple_of(PANEL) * depth.div_ceil(unit),
                }
            })
        };
        (0..k).step_by(KC * unit).flat_map(in_rows)
    };
    (0..n).step_by(NC).flat_map(in_block)
}

/// Packs a region of B, which is stored as `layout` says.
#[inline(always)]
pub(crate) fn pack_region<T: Tile>(t: T, layout: Layout, region: &Region, b: &[f32], ldb: usize, out: &mut [T::Unit]) {
    let &Region {
        first_col,
        cols,
        first,
        depth,
        ..
    } = region;
    match layout {
        Layout::NT => pack::b_transposed(t, &b[first_col * ldb + first..], ldb, cols, depth, out),
        _ => pack::b_rows(t, &b[first * ldb + first_col..], ldb, cols, depth, out),
    }
}

/// The arguments of [`gemm`].
#[derive(Clone, Copy)]
pub(crate) struct Problem<'a, U> {
    pub(crate) layout: Layout,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: &'a [f32],
    pub(crate) lda: usize,
    pub(crate) b: Right<'a, U>,
    pub(crate) ldc: usize,
    pub(crate) accumulate: bool,
}

impl<U> Problem<'_, U> {
    /// Whether there is something to multiply; sets C to zero where the product is an empty sum.
    ///
    /// # Panics
    /// As [`gemm`].
    pub(crate) fn check(&self, c: &mut [f32], scratch: usize) -> bool {
        let &Self { layout, m, n, k, .. } = self;
        let (a_rows, a_cols) = if layout == Layout::TN { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if layout == Layout::NT { (n, k) } else { (k, n) };
        check_matrix("A", self.a, a_rows, a_cols, self.lda);
        if let Right::Stored(b, ldb) = self.b {
            check_matrix("B", b, b_rows, b_cols, ldb);
        }
        check_matrix("C", c, m, n, self.ldc);
        assert!(
            scratch >= scratch_len(),
            "scratch: {scratch} elements of {}",
            scratch_len()
        );
        if k == 0 && !self.accumulate && n > 0 {
            for row in c.chunks_mut(self.ldc.max(1)).take(m) {
                row[..n].fill(0.0);
            }
        }
        m > 0 && n > 0 && k > 0
    }
}

/// The loops over blocks; see the picture of the [module](self). `problem` is checked and not empty.
#[inline(always)]
pub(crate) fn blocks<T: Tile>(t: T, problem: &Problem<T::Unit>, c: &mut [f32], scratch: &mut [T::Unit]) {
    let &Problem {
        layout,
        m,
        n,
        k,
        a,
        lda,
        b: right,
        ldc,
        accumulate,
    } = problem;
    let start = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
    let (b_pack, a_pack) = scratch[start..].split_at_mut(KC * NC);
    // Panels of equal height: a last panel of one or two rows would leave most of the multiply-adders idle.
    let mr_step = m.div_ceil(m.div_ceil(T::MR));
    let mc_step = MC / T::W * mr_step;
    // Packing pays only when the panel is read several times.
    let in_place = match right {
        Right::Stored(b, ldb) if layout != Layout::NT && m <= 5 * T::MR => T::in_place(b).map(|b| (b, ldb)),
        _ => None,
    };
    let units = k.div_ceil(T::DEPTH);

    for jc in (0..n).step_by(NC) {
        let nc = NC.min(n - jc);
        for pc in (0..k).step_by(KC * T::DEPTH) {
            let depth = (KC * T::DEPTH).min(k - pc);
            let kc = depth.div_ceil(T::DEPTH);
            let add = accumulate || pc > 0;
            let panels: &[T::Unit] = match (in_place, right) {
                (Some(_), _) => &[],
                (None, Right::Packed(all)) => &all[jc * units + pc / T::DEPTH * nc.next_multiple_of(PANEL)..],
                (None, Right::Stored(b, ldb)) => {
                    let region = Region {
                        first_col: jc,
                        cols: nc,
                        first: pc,
                        depth,
                        len: KC * NC,
                    };
                    pack_region(t, layout, &region, b, ldb, b_pack);
                    b_pack
                }
            };
            for ic in (0..m).step_by(mc_step) {
                let mc = mc_step.min(m - ic);
                match layout {
                    Layout::TN => pack::a_rows(t, &a[pc * lda + ic..], lda, mc, mr_step, depth, a_pack),
                    _ => pack::a_transposed(t, &a[ic * lda + pc..], lda, mc, mr_step, depth, a_pack),
                }
                for (panel, ir) in (0..mc).step_by(mr_step).enumerate() {
                    let a_panel = &a_pack[panel * kc * T::W..];
                    for jr in (0..nc).step_by(T::NR) {
                        let size = TileSize {
                            mr: mr_step.min(mc - ir),
                            nr: T::NR.min(nc - jr),
                            kc,
                        };
                        let c_tile = &mut c[(ic + ir) * ldc + jc + jr..];
                        match in_place {
                            Some((b, ldb)) => t.tile(size, a_panel, &b[pc * ldb + jc + jr..], ldb, c_tile, ldc, add),
                            None => t.tile(size, a_panel, &panels[jr * kc..], T::NR, c_tile, ldc, add),
                        }
                    }
                }
            }
        }
    }
}
