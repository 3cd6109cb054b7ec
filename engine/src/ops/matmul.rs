//! Matrix products in the three layouts that training needs.

use std::cell::RefCell;

use onebit_kernels_cpu::gemm;
pub use onebit_kernels_cpu::gemm::Layout;
use onebit_kernels_cpu::gemm_bf16::{gemm_bf16_packed, is_fast, pack_region, regions};
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::error::shape_error;
use crate::{Device, Result, Tensor};

/// Rows of C that a thread takes at least: below this, packing B again costs more than a second thread brings.
const MIN_ROWS: usize = 48;

/// What the factors of a product are rounded to; sums are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Not rounded.
    #[default]
    F32,
    /// To bf16, which some CPUs multiply at twice the rate; every CPU computes the same bits
    /// ([`gemm_bf16`](mod@onebit_kernels_cpu::gemm_bf16)).
    Bf16,
}

impl Arithmetic {
    /// Whether `device` multiplies bf16 faster than f32.
    pub fn bf16_is_fast(device: Device) -> bool {
        is_fast(device.isa())
    }
}

/// The arithmetic of a layer's products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Products {
    /// Of the output.
    pub forward: Arithmetic,
    /// Of the gradients.
    pub backward: Arithmetic,
}

/// Packing space of a thread.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    pairs: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { values: Vec::new(), pairs: Vec::new() })
    };
}

/// `A·B` with `A`, `B` stored as `layout` says: NN `[m,k]·[k,n]`, NT `[m,k]·[n,k]ᵀ`, TN `[k,m]ᵀ·[k,n]`; result `[m,n]`.
/// Outer dimensions of the operands are taken together as rows.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn matmul(layout: Layout, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    matmul_in(Arithmetic::F32, layout, a, b)
}

/// As [`matmul`], in the given arithmetic.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn matmul_in(arithmetic: Arithmetic, layout: Layout, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (m, n, _) = extents(layout, a, b)?;
    let mut c = Tensor::for_overwrite(a.device(), [m, n]);
    matmul_into(arithmetic, layout, a, b, false, &mut c)?;
    Ok(c)
}

/// As [`matmul_in`], written to `c`, or added to it if `accumulate`.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn matmul_into(
    arithmetic: Arithmetic,
    layout: Layout,
    a: &Tensor,
    b: &Tensor,
    accumulate: bool,
    c: &mut Tensor,
) -> Result<()> {
    let (m, n, k) = extents(layout, a, b)?;
    if c.len() != m * n {
        return Err(shape_error("matmul", format!("a result of [{m}, {n}]"), c.shape()));
    }
    if m == 0 || n == 0 {
        return Ok(());
    }
    if arithmetic == Arithmetic::Bf16 {
        return matmul_right_into(layout, a, &Right::new(layout, b)?, accumulate, c);
    }
    let isa = a.device().isa();
    let (lda, ldb) = (a.shape().last(), b.shape().last());
    let (a, b, c) = (a.f32()?, b.f32()?, c.f32_mut()?);
    let rows = m.div_ceil(rayon::current_num_threads()).max(MIN_ROWS);
    c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
        let (a, rows) = (from_row(layout, a, lda, i * rows), c.len() / n);
        SCRATCH.with_borrow_mut(|Scratch { values, .. }| {
            values.resize(gemm::scratch_len(), 0.0);
            gemm::gemm(isa, layout, rows, n, k, a, lda, b, ldb, accumulate, c, n, values);
        });
    });
    Ok(())
}

/// The right operand of products in bf16, rounded and packed once: all threads read it, and so may several products.
pub struct Right {
    packed: Buffer<u32>,
    layout: Layout,
    n: usize,
    k: usize,
}

impl Right {
    /// Packs `b`, stored as `layout` says.
    ///
    /// # Errors
    /// Elements that are not f32.
    pub fn new(layout: Layout, b: &Tensor) -> Result<Self> {
        let (rows, ldb) = (b.shape().rows(), b.shape().last());
        let (n, k) = if layout == Layout::NT { (rows, ldb) } else { (ldb, rows) };
        let isa = b.device().isa();
        let data = b.f32()?;
        let mut packed = Buffer::<u32>::for_overwrite(regions(n, k).map(|r| r.len).sum());
        let mut parts = Vec::new();
        let mut rest = &mut packed[..];
        for region in regions(n, k) {
            let (out, after) = std::mem::take(&mut rest).split_at_mut(region.len);
            parts.push((region, out));
            rest = after;
        }
        parts
            .into_par_iter()
            .for_each(|(region, out)| pack_region(isa, layout, &region, data, ldb, out));
        Ok(Right { packed, layout, n, k })
    }
}

/// `A·B` in bf16 for a packed B.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn matmul_right(layout: Layout, a: &Tensor, b: &Right) -> Result<Tensor> {
    let m = if layout == Layout::TN {
        a.shape().last()
    } else {
        a.shape().rows()
    };
    let mut c = Tensor::for_overwrite(a.device(), [m, b.n]);
    matmul_right_into(layout, a, b, false, &mut c)?;
    Ok(c)
}

fn matmul_right_into(layout: Layout, a: &Tensor, b: &Right, accumulate: bool, c: &mut Tensor) -> Result<()> {
    /// Tasks a thread, so that one that is slowed down leaves some of its share to others.
    const TASKS: usize = 4;
    let (ar, ac) = (a.shape().rows(), a.shape().last());
    let (m, k) = if layout == Layout::TN { (ac, ar) } else { (ar, ac) };
    if k != b.k || c.len() != m * b.n || (layout == Layout::NT) != (b.layout == Layout::NT) {
        let expected = format!("{layout:?} with a packed [{}, {}] of {:?}", b.k, b.n, b.layout);
        return Err(shape_error(
            "matmul",
            expected,
            format!("{} to {}", a.shape(), c.shape()),
        ));
    }
    let isa = a.device().isa();
    let (a, c, n) = (a.f32()?, c.f32_mut()?, b.n);
    if m == 0 || n == 0 {
        return Ok(());
    }
    let rows = m.div_ceil(TASKS * rayon::current_num_threads()).max(MIN_ROWS);
    c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
        let (a, rows) = (from_row(layout, a, ac, i * rows), c.len() / n);
        SCRATCH.with_borrow_mut(|Scratch { pairs, .. }| {
            pairs.resize(gemm::scratch_len(), 0);
            gemm_bf16_packed(isa, layout, rows, n, k, a, ac, &b.packed, accumulate, c, n, pairs);
        });
    });
    Ok(())
}

/// `a` from row `first` of the product on.
fn from_row(layout: Layout, a: &[f32], lda: usize, first: usize) -> &[f32] {
    a.get(if layout == Layout::TN { first } else { first * lda }..)
        .unwrap_or(&[])
}

fn extents(layout: Layout, a: &Tensor, b: &Tensor) -> Result<(usize, usize, usize)> {
    let (ar, ac, br, bc) = (a.shape().rows(), a.shape().last(), b.shape().rows(), b.shape().last());
    let (m, ka, kb, n) = match layout {
        Layout::NN => (ar, ac, br, bc),
        Layout::NT => (ar, ac, bc, br),
        Layout::TN => (ac, ar, br, bc),
    };
    if ka != kb {
        return Err(shape_error(
            "matmul",
            format!("inner extents that agree for {layout:?}"),
            format!("{} and {}", a.shape(), b.shape()),
        ));
    }
    Ok((m, n, ka))
}
