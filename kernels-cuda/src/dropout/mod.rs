//! Dropout (Srivastava et al. 2014), in place and as a part of other kernels: its mask is a pure function of a random-number key and an index.
//!
//! ```text
//! drop_in_place        x[i]    ← drop(x[i], number i)
//! drop_rows_in_place   x[r, ·] ← drop(x[r, ·], number ids[r] or ⌊r / together⌋)
//! ```
//! The backward is the same on the gradient. Rows of an id are word dropout: a word is gone wherever it stands (Gal and Ghahramani 2016, *A theoretically grounded
//! application of dropout in recurrent neural networks*). Rows of a sequence are stochastic depth (Huang et al. 2016): a block does nothing for it.

use half::bf16;

use crate::device::{CudaError, DeviceArray, Element, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::quantize::{need, need_aligned};

#[cfg(test)]
mod tests;

static MODULE: Module = ptx!("kernel.ptx");

/// What is dropped in place: f32 and bf16.
pub trait Droppable: Element {
    #[doc(hidden)]
    const DROP: Drops;
}

/// The kernels of a type.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Drops {
    elements: &'static str,
    rows: &'static str,
}

impl Droppable for f32 {
    const DROP: Drops = Drops {
        elements: "drop_f32",
        rows: "drop_rows_f32",
    };
}

impl Droppable for bf16 {
    const DROP: Drops = Drops {
        elements: "drop_bf16",
        rows: "drop_rows_bf16",
    };
}

/// Which number decides about a row.
#[derive(Clone, Copy, Debug)]
pub enum RowNumbers<'a> {
    /// That of its id, `[rows]`.
    Ids(&'a DeviceArray<u32>),
    /// So many rows, one after the other, share one.
    Together(usize),
}

/// `x[i] / (1 − p)` where number `i` of the stream (`seed`, `purpose`, `step`) is at least `p`, else 0.
///
/// The stream is Philox4x32-10, as `onebit_kernels_cpu::rng::Key` has it, and the mask that of `onebit_kernels_cpu::dropout` over the whole array, bit for bit.
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// Probability of zeroing an element, in `[0, 1)`.
    pub p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// What the stream is for: the purpose of dropout plus the number of the place in the network.
    pub purpose: u32,
    /// A number that differs for each micro-batch, `[1]`.
    pub step: &'a DeviceArray<u32>,
}

impl Dropout<'_> {
    /// Appends the arguments that kernels take it as; without one, a null pointer to the step.
    pub(crate) fn push<'g>(this: Option<&Self>, op: &'static str, launch: Launch<'g>) -> Result<Launch<'g>> {
        let Some(d) = this else {
            return Ok(launch.u64(0).u64(0).u32(0).u32(0).f32(1.0));
        };
        if !(0.0..1.0).contains(&d.p) {
            return Err(CudaError::shape(op, "a dropout probability in [0, 1)", d.p));
        }
        need(op, "step of dropout", d.step, 1)?;
        // A uniform number is (word >> 8)·2⁻²⁴, so that comparing it with `p` is a comparison of integers.
        let exact = d.p * 16_777_216.0;
        let threshold = exact as usize + usize::from(exact as u32 as f32 != exact);
        Ok(launch
            .array(d.step)
            .u64(d.seed)
            .u32(d.purpose as usize)
            .u32(threshold)
            .f32(1.0 / (1.0 - d.p)))
    }
}

/// Drops elements of `x` in place: those of the embedding or of the head's input, and of their gradients. 8 bytes an element of f32, 4 of bf16.
///
/// # Errors
/// A length that is no multiple of 4, a probability outside `[0, 1)`.
pub fn drop_in_place<T: Droppable>(gpu: &Gpu, x: &DeviceArray<T>, dropout: &Dropout<'_>) -> Result<()> {
    const OP: &str = "drop_in_place";
    let vectors = vectors(OP, x)?;
    let launch = over(gpu, T::DROP.elements, OP, vectors)?.array(x);
    // SAFETY: `x` holds four times `vectors` elements.
    unsafe { Dropout::push(Some(dropout), OP, launch)?.u64(vectors as u64).run() }
}

/// Drops whole rows of `x`, `[rows, cols]`, in place.
///
/// # Errors
/// `cols` that is no multiple of 4, a length that is no whole number of rows, as many ids as there are not rows, a probability outside `[0, 1)`.
pub fn drop_rows_in_place<T: Droppable>(
    gpu: &Gpu,
    x: &DeviceArray<T>,
    cols: usize,
    numbers: RowNumbers<'_>,
    dropout: &Dropout<'_>,
) -> Result<()> {
    const OP: &str = "drop_rows_in_place";
    if cols == 0 || !cols.is_multiple_of(4) || !x.len().is_multiple_of(cols) {
        return Err(CudaError::shape(
            OP,
            "rows of a multiple of 4 elements",
            format!("{} elements in rows of {cols}", x.len()),
        ));
    }
    let (ids, together) = match numbers {
        RowNumbers::Ids(ids) => {
            need(OP, "ids", ids, x.len() / cols)?;
            (Some(ids), 1)
        }
        RowNumbers::Together(0) => return Err(CudaError::shape(OP, "at least one row together", 0)),
        RowNumbers::Together(rows) => (None, rows),
    };
    let vectors = vectors(OP, x)?;
    let launch = over(gpu, T::DROP.rows, OP, vectors)?.array(x);
    let launch = Dropout::push(Some(dropout), OP, launch)?
        .u64(vectors as u64)
        .u32(cols / 4)
        .optional(ids)
        .u32(together);
    // SAFETY: `x` holds four times `vectors` elements, a whole number of rows, and there is an id for each of these.
    unsafe { launch.run() }
}

fn vectors<T: Droppable>(op: &'static str, x: &DeviceArray<T>) -> Result<usize> {
    need_aligned(op, "x", x, x.len() / 4 * 4)?;
    Ok(x.len() / 4)
}

fn over<'a>(gpu: &'a Gpu, name: &'static str, op: &'static str, vectors: usize) -> Result<Launch<'a>> {
    let Ok(blocks) = u32::try_from(vectors.div_ceil(256)) else {
        return Err(CudaError::shape(op, "fewer than 2^42 elements", 4 * vectors));
    };
    let kernel: Kernel = MODULE.kernel(name);
    Ok(Launch::new(gpu, kernel, [blocks, 1, 1], 256))
}
