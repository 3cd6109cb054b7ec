//! Matrix products in the three layouts that training needs.

use std::cell::RefCell;

use onebit_kernels_cpu::gemm;
pub use onebit_kernels_cpu::gemm::Layout;
use onebit_kernels_cpu::gemm_bf16::{gemm_bf16, is_fast};
use rayon::prelude::*;

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
    let isa = a.device().isa();
    let (lda, ldb) = (a.shape().last(), b.shape().last());
    let (a, b, c) = (a.f32()?, b.f32()?, c.f32_mut()?);
    if m == 0 || n == 0 {
        return Ok(());
    }
    let rows = m.div_ceil(rayon::current_num_threads()).max(MIN_ROWS);
    c.par_chunks_mut(rows * n).enumerate().for_each(|(i, c)| {
        let first = i * rows;
        let a = match layout {
            Layout::NN | Layout::NT => &a[first * lda..],
            Layout::TN => a.get(first..).unwrap_or(&[]),
        };
        let rows = c.len() / n;
        SCRATCH.with_borrow_mut(|Scratch { values, pairs }| match arithmetic {
            Arithmetic::F32 => {
                values.resize(gemm::scratch_len(), 0.0);
                gemm::gemm(isa, layout, rows, n, k, a, lda, b, ldb, accumulate, c, n, values);
            }
            Arithmetic::Bf16 => {
                pairs.resize(gemm::scratch_len(), 0);
                gemm_bf16(isa, layout, rows, n, k, a, lda, b, ldb, accumulate, c, n, pairs);
            }
        });
    });
    Ok(())
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
