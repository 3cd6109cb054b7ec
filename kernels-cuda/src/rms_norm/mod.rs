//! Root-mean-square normalisation (Zhang and Sennrich 2019), together with what stands before and behind it: the residual addition and the quantiser.
//!
//! ```text
//! forward    x ← x + c·drop(branch)      r = 1 / sqrt(mean(x²) + eps)     y = (x·r)·w     → int8, bf16, or their blend (RowOutputs)
//! backward   x̂ = x·r    m = mean(dy·w·x̂)    dx = r·(dy·w − x̂·m)    dw = Σ_rows dy·x̂
//!            dres ← dres + dx            dbranch = c·drop(dres)           the gradient of the branch that was added before the norm
//! ```
//! The gradient at a row of zeros is zero, as on the CPU (`onebit_kernels_cpu::rms_norm` says why): the forward writes 0 for its `r`, which its output does not depend on.
//!
//! Everything is computed in f32. The residual stream is f32, branches and gradients of outputs are bf16.
//!
//! | function | input | bytes an element |
//! |---|---|---|
//! | [`residual_norm`] | residual stream | 4 + (2 + 4 with a branch) + outputs (1 int8, 2 bf16) |
//! | [`norm`] | bf16 rows (attention sub-norm) | 2 + outputs |
//! | [`residual_norm_backward`] | | 2 (dy) + 4 (x) + 8 (dres; 4 if fresh) + 2 with a branch |
//! | [`norm_backward`] | | 2 + 2 + 2 |
//!
//! Every byte is read once: a row stays in registers between its reductions. A warp has a row up to 1024 columns (512 in
//! the backward), a block from there on to 16384.
//!
//! **Order of sums**: a thread adds its elements in index order, a warp folds by halves, a block adds its warps in order. The CPU adds in another order, so `r` agrees
//! to f32 rounding, and codes by one in rare cases; from the same `r`, `y` and the codes are the CPU's bits. The gradient of the weight is summed by a fixed number of
//! workers over rows `worker, worker + workers, …`, and their partial sums in order by a second kernel.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod tests;

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};
use crate::dropout::Dropout;
use crate::quantize::{MAX_COLS, RowForm, RowOutputs, need, need_aligned, need_strided};

static MODULE: Module = ptx!("kernel.ptx");
const RESIDUAL_NORM: [Kernel; 4] = [
    MODULE.kernel("residual_norm_warp16"),
    MODULE.kernel("residual_norm_warp32"),
    MODULE.kernel("residual_norm_block16"),
    MODULE.kernel("residual_norm_block32"),
];
const NORM: [Kernel; 4] = [
    MODULE.kernel("norm_warp16"),
    MODULE.kernel("norm_warp32"),
    MODULE.kernel("norm_block16"),
    MODULE.kernel("norm_block32"),
];
static BACKWARD: Module = ptx!("backward.ptx");
const RESIDUAL_NORM_BACKWARD: [Kernel; 3] = [
    BACKWARD.kernel("residual_norm_backward_warp16"),
    BACKWARD.kernel("residual_norm_backward_block16"),
    BACKWARD.kernel("residual_norm_backward_block32"),
];
const NORM_BACKWARD: [Kernel; 3] = [
    BACKWARD.kernel("norm_backward_warp16"),
    BACKWARD.kernel("norm_backward_block16"),
    BACKWARD.kernel("norm_backward_block32"),
];
const COLUMN_SUMS: Kernel = BACKWARD.kernel("column_sums");

/// What a norm multiplies by, and what it adds under the root.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[cols]`.
    pub weight: &'a DeviceArray<f32>,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// What a block of the network adds to the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Branch<'a> {
    /// `[rows, cols]`.
    pub values: &'a DeviceArray<bf16>,
    /// What they are multiplied by.
    pub factor: f32,
    /// Applied to the values first.
    pub dropout: Option<Dropout<'a>>,
    /// Where the stream goes on, `[rows, cols]`; may be the stream itself.
    pub sum: &'a DeviceArray<f32>,
}

/// Where the gradient of a weight `[cols]` goes.
#[derive(Clone, Copy, Debug)]
pub struct WeightGradient<'a> {
    /// `[cols]`.
    pub total: &'a DeviceArray<f32>,
    /// Whether it is added to what is there.
    pub accumulate: bool,
    /// Scratch, [`partial_len`]`(cols)` elements or more.
    pub partials: &'a DeviceArray<f32>,
}

/// Streaming multiprocessors that the number of workers is chosen for: a constant, because the order of sums depends on it.
const MULTIPROCESSORS: usize = 132;

/// How the threads of a backward lie over rows: the kernel among `[warp16, block16, block32]`, threads, rows in hand at once, blocks.
pub(crate) struct Workers {
    pub kernel: usize,
    pub threads: u32,
    pub blocks: usize,
}

impl Workers {
    /// For `rows` rows of `cols` elements, warps having the short ones if there is a kernel `warps`.
    pub fn new(rows: usize, cols: usize, warps: bool) -> Self {
        let form = if warps && cols <= 512 {
            RowForm::WARP16
        } else {
            RowForm::block(cols)
        };
        Workers {
            kernel: form.kernel.saturating_sub(1),
            threads: form.threads,
            blocks: rows.div_ceil(form.rows).min(MULTIPROCESSORS * resident(&form)),
        }
    }

    /// Bytes of shared memory for sums that the registers do not hold: 32 elements a thread.
    fn shared(&self) -> usize {
        if self.kernel == 2 {
            32 * 4 * self.threads as usize
        } else {
            0
        }
    }
}

/// Blocks of `form` that run at once on a multiprocessor: the kernels take at most 80 registers (16 elements a thread) or 128 (32).
fn resident(form: &RowForm) -> usize {
    let threads = if form.kernel == 3 { 512 } else { 768 };
    (threads / form.threads as usize).clamp(1, 8)
}

/// Elements of scratch that the gradient of a weight `[cols]` takes at most, whatever the number of rows.
pub fn partial_len(cols: usize) -> usize {
    MULTIPROCESSORS * resident(&RowForm::block(cols)).max(resident(&RowForm::WARP16)) * cols
}

/// Normalises the residual stream `x` `[rows, cols]`, after adding `branch` to it; `rows` is the length of `rstd`, `cols` that of the weight.
///
/// Writes `rstd` (`1 / sqrt(mean(x²) + eps)`, which the backward reads), the forms of the normalised rows in `out`, and the new stream if there is a branch.
///
/// # Errors
/// `cols` that is no multiple of 4 or above [`MAX_COLS`], lengths that differ, a dropout probability outside `[0, 1)`.
pub fn residual_norm(
    gpu: &Gpu,
    x: &DeviceArray<f32>,
    branch: Option<&Branch<'_>>,
    norm: &Norm<'_>,
    rstd: &DeviceArray<f32>,
    out: &RowOutputs<'_>,
) -> Result<()> {
    const OP: &str = "residual_norm";
    let (rows, cols) = (rstd.len(), norm.weight.len());
    let form = RowForm::new(OP, cols, 4)?;
    need_aligned(OP, "x", x, rows * cols)?;
    need_aligned(OP, "weight", norm.weight, cols)?;
    need(OP, "rstd", rstd, rows)?;
    if let Some(branch) = branch {
        need_aligned(OP, "branch", branch.values, rows * cols)?;
        need_aligned(OP, "sum", branch.sum, rows * cols)?;
    }
    out.check(OP, rows, cols)?;
    let launch = Launch::new(gpu, RESIDUAL_NORM[form.kernel], form.grid(OP, rows)?, form.threads)
        .array(x)
        .optional(branch.map(|b| b.values))
        .optional(branch.map(|b| b.sum))
        .f32(branch.map_or(0.0, |b| b.factor));
    let launch = Dropout::push(branch.and_then(|b| b.dropout.as_ref()), OP, launch)?
        .array(norm.weight)
        .f32(norm.eps)
        .array(rstd);
    // SAFETY: every array holds `rows` rows, and threads leave alone what is at or behind column `cols`; a stream that is its own sum is read before it is written,
    // element by element, by one thread.
    unsafe { out.push(launch).u32(rows).u32(cols).run() }
}

/// Normalises rows of bf16: `x` `[rows, stride]`, of which the first `cols` columns count; `rows` is the length of `rstd`, `cols` that of the weight.
///
/// # Errors
/// `cols` or `stride` that are no multiple of 8, `cols` above [`MAX_COLS`], lengths that differ.
pub fn norm(
    gpu: &Gpu,
    x: &DeviceArray<bf16>,
    stride: usize,
    norm: &Norm<'_>,
    rstd: &DeviceArray<f32>,
    out: &RowOutputs<'_>,
) -> Result<()> {
    const OP: &str = "norm";
    let (rows, cols) = (rstd.len(), norm.weight.len());
    let form = RowForm::new(OP, cols, 8)?;
    need_strided(OP, "x", x, rows, cols, stride)?;
    need_aligned(OP, "weight", norm.weight, cols)?;
    need(OP, "rstd", rstd, rows)?;
    out.check(OP, rows, cols)?;
    let launch = Launch::new(gpu, NORM[form.kernel], form.grid(OP, rows)?, form.threads)
        .array(x)
        .u64(stride as u64)
        .array(norm.weight)
        .f32(norm.eps)
        .array(rstd);
    // SAFETY: every array holds `rows` rows, and threads leave alone what is at or behind column `cols`.
    unsafe { out.push(launch).u32(rows).u32(cols).run() }
}

/// The gradient of a branch: `factor · drop(dres)`.
#[derive(Clone, Copy, Debug)]
pub struct BranchGradient<'a> {
    /// Written, `[rows, cols]`; may be the same array as `dy`.
    pub values: &'a DeviceArray<bf16>,
    /// That of the forward.
    pub factor: f32,
    /// That of the forward.
    pub dropout: Option<Dropout<'a>>,
}

/// What [`residual_norm_backward`] reads and writes; `rows` is the length of `rstd`, `cols` that of the weight.
#[derive(Clone, Copy, Debug)]
pub struct ResidualBackward<'a> {
    /// Gradient of the normalised rows, `[rows, cols]`.
    pub dy: &'a DeviceArray<bf16>,
    /// A second one, to be added to the first.
    pub dy2: Option<&'a DeviceArray<bf16>>,
    /// The stream that was normalised (after the branch was added), `[rows, cols]`.
    pub x: &'a DeviceArray<f32>,
    /// As the forward left it, `[rows]`.
    pub rstd: &'a DeviceArray<f32>,
    /// `[cols]`.
    pub weight: &'a DeviceArray<f32>,
    /// Gradient of the stream behind the norm on entry, before it on return, `[rows, cols]`.
    pub dres: &'a DeviceArray<f32>,
    /// Whether `dres` counts as zero on entry (and is not read).
    pub fresh: bool,
    /// Gradient of the branch that the forward added.
    pub branch: Option<BranchGradient<'a>>,
    /// Gradient of the weight.
    pub dw: WeightGradient<'a>,
}

/// The backward of [`residual_norm`].
///
/// # Errors
/// As [`residual_norm`].
pub fn residual_norm_backward(gpu: &Gpu, a: &ResidualBackward<'_>) -> Result<()> {
    const OP: &str = "residual_norm_backward";
    let (rows, cols) = (a.rstd.len(), a.weight.len());
    RowForm::new(OP, cols, 4)?.grid(OP, rows)?;
    need_aligned(OP, "dy", a.dy, rows * cols)?;
    if let Some(dy2) = a.dy2 {
        need_aligned(OP, "second dy", dy2, rows * cols)?;
    }
    need_aligned(OP, "x", a.x, rows * cols)?;
    need(OP, "rstd", a.rstd, rows)?;
    need_aligned(OP, "weight", a.weight, cols)?;
    need_aligned(OP, "dres", a.dres, rows * cols)?;
    if let Some(branch) = &a.branch {
        need_aligned(OP, "gradient of the branch", branch.values, rows * cols)?;
    }
    check_weight_gradient(OP, &a.dw, cols)?;
    let workers = Workers::new(rows, cols, true);
    let launch = Launch::new(
        gpu,
        RESIDUAL_NORM_BACKWARD[workers.kernel],
        [workers.blocks as u32, 1, 1],
        workers.threads,
    )
    .shared(workers.shared())
    .array(a.dy)
    .optional(a.dy2)
    .array(a.x)
    .array(a.rstd)
    .array(a.weight)
    .array(a.dres)
    .u32(usize::from(a.fresh))
    .optional(a.branch.map(|b| b.values))
    .f32(a.branch.map_or(0.0, |b| b.factor));
    let launch = Dropout::push(a.branch.as_ref().and_then(|b| b.dropout.as_ref()), OP, launch)?;
    // SAFETY: every array holds `rows` rows, threads leave alone what is at or behind column `cols`, and there is a row of partial sums for each block.
    unsafe { launch.array(a.dw.partials).u32(rows).u32(cols).run()? };
    column_sums(gpu, &a.dw, workers.blocks, cols)
}

/// The backward of [`norm`]: writes `dx`, laid out as `x`, from `dy` `[rows, cols]`. `dx` may be the same array as `x` (or as `dy`, where `stride` is `cols`).
///
/// # Errors
/// As [`norm`].
pub fn norm_backward(
    gpu: &Gpu,
    dy: &DeviceArray<bf16>,
    x: &DeviceArray<bf16>,
    stride: usize,
    weight: &DeviceArray<f32>,
    rstd: &DeviceArray<f32>,
    dx: &DeviceArray<bf16>,
    dw: &WeightGradient<'_>,
) -> Result<()> {
    const OP: &str = "norm_backward";
    let (rows, cols) = (rstd.len(), weight.len());
    RowForm::new(OP, cols, 8)?.grid(OP, rows)?;
    need_aligned(OP, "dy", dy, rows * cols)?;
    need_strided(OP, "x", x, rows, cols, stride)?;
    need_strided(OP, "dx", dx, rows, cols, stride)?;
    need_aligned(OP, "weight", weight, cols)?;
    need(OP, "rstd", rstd, rows)?;
    check_weight_gradient(OP, dw, cols)?;
    let workers = Workers::new(rows, cols, true);
    // SAFETY: as in `residual_norm_backward`.
    unsafe {
        Launch::new(
            gpu,
            NORM_BACKWARD[workers.kernel],
            [workers.blocks as u32, 1, 1],
            workers.threads,
        )
        .array(dy)
        .array(x)
        .u64(stride as u64)
        .array(weight)
        .array(rstd)
        .array(dx)
        .array(dw.partials)
        .u32(rows)
        .u32(cols)
        .run()?;
    }
    column_sums(gpu, dw, workers.blocks, cols)
}

/// Compares the lengths of `dw` with `cols` columns.
pub(crate) fn check_weight_gradient(op: &'static str, dw: &WeightGradient<'_>, cols: usize) -> Result<()> {
    need(op, "gradient of the weight", dw.total, cols)?;
    let len = partial_len(cols);
    if dw.partials.len() < len {
        let expected = format!("scratch of {len} elements or more");
        return Err(CudaError::shape(op, expected, dw.partials.len()));
    }
    need_aligned(op, "scratch", &dw.partials.slice(..len), len)
}

/// `total[j] (+)= Σ_i partials[i, j]` over `rows` rows, in an order that depends on `rows` alone. The lengths were compared by [`check_weight_gradient`].
pub(crate) fn column_sums(gpu: &Gpu, dw: &WeightGradient<'_>, rows: usize, cols: usize) -> Result<()> {
    debug_assert!(cols <= MAX_COLS && rows * cols <= dw.partials.len());
    // SAFETY: there are `rows` rows of partial sums, and threads leave alone what is at or behind column `cols`.
    unsafe {
        Launch::new(gpu, COLUMN_SUMS, [cols.div_ceil(32) as u32, 1, 1], 1024)
            .array(dw.partials)
            .array(dw.total)
            .u32(usize::from(dw.accumulate))
            .u32(rows)
            .u32(cols)
            .run()
    }
}
