//! Rows of the embedding table by token id, and the gradient of the table.
//!
//! `table` is f32 `[vocab, dim]`, `ids` `[tokens]`, `x` and `dx` f32 `[tokens, dim]`; `dim` is a multiple of 4.
//!
//! ```text
//! x[t]      = table[ids[t]]
//! dtable[i] += Σ dx[t] over the t with ids[t] = i
//! ```
//! The backward has no atomics: the host makes a plan of each batch ([`Planner`]), after which every row of the gradient is written by one block, its
//! terms added in the order of the text within pieces of 32, and the pieces in order. Equal batches give equal bytes.
//!
//! Cost in bytes an element: forward 4 read and 4 written (6 with bf16); backward 4 read an element of `dx`, 8 moved (4 without accumulation) an element of a
//! row that occurs, and 4 written one of a row that does not (without accumulation).

mod planner;
#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, need, ptx};

pub use planner::{PlanShape, Planner, SEGMENT};

static MODULE: Module = ptx!("kernel.ptx");
const FORWARD: Kernel = MODULE.kernel("embedding");
const ZERO_ABSENT: Kernel = MODULE.kernel("embedding_zero_absent");
const SEGMENTS: Kernel = MODULE.kernel("embedding_segments");
const FREQUENT: Kernel = MODULE.kernel("embedding_frequent");

/// Writes `x[t] = table[ids[t]]`, `[tokens, dim]`, and the same in bf16 to `narrow`. An id outside the table gives a row of NaN.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit, or a `dim` that is not a multiple of 4.
pub fn embedding(
    gpu: &Gpu,
    table: &DeviceArray<f32>,
    ids: &DeviceArray<u32>,
    dim: usize,
    x: &DeviceArray<f32>,
    narrow: Option<&DeviceArray<bf16>>,
) -> Result<()> {
    const OP: &str = "embedding";
    let tokens = ids.len();
    let vocab = rows(OP, table, dim)?;
    rows(OP, x, dim)?;
    need(OP, "x", tokens * dim, x.len())?;
    if let Some(narrow) = narrow {
        need(OP, "narrow", tokens * dim, narrow.len())?;
        aligned(OP, narrow)?;
    }
    let columns = dim / 4;
    let threads = columns.next_multiple_of(32).clamp(32, 256);
    let launch = Launch::new(gpu, FORWARD, [tokens as u32, 1, 1], threads as u32)
        .array(table)
        .array(ids)
        .u32(vocab)
        .u32(columns)
        .array(x)
        .optional(narrow);
    // SAFETY: a block a token, of which each output has a row of `columns` chunks; an id is compared with `vocab`, the rows that the table has.
    unsafe { launch.run() }
}

/// Adds to each row `i` of `dtable` `[vocab, dim]` the rows of `dx` `[tokens, dim]` whose id is `i`, by the `plan` that a [`Planner`] of `shape` made of
/// the ids. With `accumulate` the rows are added to what is there; without, `dtable` becomes the gradient, with zeros for ids that do not occur.
/// `partials` is scratch memory, `[shape.partial_rows(), dim]`. What a wrong plan names beyond the arrays is left out.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit, or a `dim` that is not a multiple of 4.
pub fn embedding_backward(
    gpu: &Gpu,
    dx: &DeviceArray<f32>,
    plan: &DeviceArray<u32>,
    shape: PlanShape,
    partials: &DeviceArray<f32>,
    dtable: &DeviceArray<f32>,
    accumulate: bool,
) -> Result<()> {
    const OP: &str = "embedding_backward";
    let PlanShape { tokens, vocab } = shape;
    if tokens == 0 || vocab == 0 || tokens > i32::MAX as usize || vocab > i32::MAX as usize {
        return Err(CudaError::shape(
            OP,
            "at least one token and one id",
            format!("{shape:?}"),
        ));
    }
    let dim = dx.len() / tokens;
    rows(OP, dx, dim)?;
    rows(OP, dtable, dim)?;
    rows(OP, partials, dim)?;
    need(OP, "dx", tokens * dim, dx.len())?;
    need(OP, "plan", shape.words(), plan.len())?;
    need(OP, "partials", shape.partial_rows() * dim, partials.len())?;
    need(OP, "dtable", vocab * dim, dtable.len())?;
    let columns = dim / 4;
    let counts = plan.slice(..4);
    let segments = plan.slice(shape.segments_at()..shape.frequent_at());
    let frequent = plan.slice(shape.frequent_at()..shape.order_at());
    let order = plan.slice(shape.order_at()..shape.present_at());
    let present = plan.slice(shape.present_at()..);
    if !accumulate {
        let threads = columns.next_multiple_of(32).clamp(32, 256);
        let launch = Launch::new(gpu, ZERO_ABSENT, [vocab as u32, 1, 1], threads as u32)
            .array(&present)
            .u32(columns)
            .array(dtable);
        // SAFETY: a block a row of `dtable`, for each of which `present` has a bit.
        unsafe { launch.run()? };
    }
    // Enough blocks for 16 a multiprocessor, whatever the batch; each takes every so many segments.
    let threads = columns.next_multiple_of(32).clamp(32, 128);
    let tiles = columns.div_ceil(threads);
    let wide = (16 * gpu.properties().multiprocessors as usize)
        .div_ceil(tiles)
        .min(tokens);
    let launch = Launch::new(gpu, SEGMENTS, [wide as u32, tiles as u32, 1], threads as u32)
        .array(dx)
        .array(&counts)
        .array(&segments)
        .array(&order)
        .u32(tokens)
        .u32(vocab)
        .u32(shape.partial_rows())
        .u32(columns)
        .u32(accumulate.into())
        .array(partials)
        .array(dtable);
    // SAFETY: `segments` has a pair more than `tokens`, the most that the kernel counts to; starts, positions, ids and rows of partial sums that it reads
    // are compared with the lengths given here before they are used.
    unsafe { launch.run()? };
    let tiles = columns.div_ceil(32);
    let wide = (4 * gpu.properties().multiprocessors as usize)
        .div_ceil(tiles)
        .min(shape.frequent());
    let launch = Launch::new(gpu, FREQUENT, [wide as u32, tiles as u32, 1], 512)
        .array(partials)
        .array(&counts)
        .array(&frequent)
        .u32(shape.frequent())
        .u32(vocab)
        .u32(shape.partial_rows())
        .u32(columns)
        .u32(accumulate.into())
        .array(dtable);
    // SAFETY: `frequent` has as many triples as the kernel counts to; ids and rows of partial sums are compared with the lengths given here.
    unsafe { launch.run() }
}

/// Rows of `dim` elements that `array` has.
fn rows(op: &'static str, array: &DeviceArray<f32>, dim: usize) -> Result<usize> {
    if dim == 0 || !dim.is_multiple_of(4) || !array.len().is_multiple_of(dim) || array.len() / dim > i32::MAX as usize {
        return Err(CudaError::shape(
            op,
            format!("rows of {dim} elements, a multiple of 4"),
            array.len(),
        ));
    }
    aligned(op, array)?;
    Ok(array.len() / dim)
}

/// Chunks of 16 bytes are moved.
fn aligned<T>(op: &'static str, array: &DeviceArray<T>) -> Result<()> {
    if array.address().is_multiple_of(16) {
        Ok(())
    } else {
        Err(CudaError::shape(
            op,
            "an array at a multiple of 16 bytes",
            format!("{array:?}"),
        ))
    }
}
