//! Softmax cross-entropy over the vocabulary, with label smoothing; logits become their gradient in place.
//!
//! ```text
//! lse         = log Σ_j exp(x_j)
//! nll         = lse − x_target
//! smoothed    = (1 − a)·((1 − ε)·nll + ε·(lse − mean_j x_j)) + a·(lse − Σ_j q_j·x_j) + z·lse²
//! dx_j        = scale·((1 + 2·z·lse)·softmax(x)_j − (1 − a)·((1 − ε)·[j = target] + ε/vocab) − a·q_j)
//! ```
//! With a soft-cap C (Gemma 2, 2024) all of it is of `C·tanh(x / C)` in the place of x, and `dx_j` times `1 − tanh(x_j / C)²`. (Szegedy et al. 2016 for the smoothing ε, Hinton et al. 2015 for a teacher's q with share a, Chowdhery et al. 2022, *PaLM*, for z.) Logits are bf16 `[rows, stride]` of which `vocab` columns count: what a matrix product over a padded head
//! writes. The columns from `vocab` on may hold anything before, and hold 0 after. All is computed in f32 from differences with the row's maximum.
//!
//! A row is read once from memory and written once: 4 bytes a logit, 2 where no gradient is wanted. A row's first 200 KiB wait in shared memory for the
//! second pass, the rest in L2. [4096, 32768] moves 537 MB, [2048, 128256] 1.05 GB.
//!
//! A target that is not below `vocab` makes that row's losses NaN, and reads nothing outside the logits.

use half::bf16;

use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, need, ptx};

#[cfg(test)]
mod tests;

static MODULE: Module = ptx!("kernel.ptx");
const GRADIENT: Kernel = MODULE.kernel("cross_entropy");
const GRADIENT_SMOOTHED: Kernel = MODULE.kernel("cross_entropy_smoothed");
const GRADIENT_TAUGHT: Kernel = MODULE.kernel("cross_entropy_taught");
const GRADIENT_CAPPED: Kernel = MODULE.kernel("cross_entropy_capped");
const GRADIENT_CAPPED_TAUGHT: Kernel = MODULE.kernel("cross_entropy_capped_taught");
const SOFTEN: Kernel = MODULE.kernel("soften");
const SOFTEN_CAPPED: Kernel = MODULE.kernel("soften_capped");
const EVALUATE: Kernel = MODULE.kernel("cross_entropy_evaluate");
const EVALUATE_SMOOTHED: Kernel = MODULE.kernel("cross_entropy_evaluate_smoothed");
const EVALUATE_CAPPED: Kernel = MODULE.kernel("cross_entropy_evaluate_capped");
const SUMS: Kernel = MODULE.kernel("loss_sums");

/// Columns of a matrix of logits, and how its targets are smoothed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vocabulary {
    /// Columns that are tokens, at least 1.
    pub size: usize,
    /// Elements from one row to the next: at least `size`, a multiple of 8.
    pub stride: usize,
    /// ε of the label smoothing, in `[0, 1]`; 0 for none.
    pub smoothing: f32,
    /// z of the z-loss, which draws the log-sum-exp to 0; 0 for none.
    pub z_loss: f32,
    /// C of the soft-cap; none: the logits are what counts.
    pub softcap: Option<f32>,
}

/// What is written for each row, all `[rows]`, in nats.
#[derive(Clone, Copy, Debug)]
pub struct RowLosses<'a> {
    /// Log-sum-exp.
    pub lse: &'a DeviceArray<f32>,
    /// Negative log-likelihood of the target.
    pub nll: &'a DeviceArray<f32>,
    /// The loss that is minimised; `nll` where nothing is smoothed and z is 0.
    pub smoothed: &'a DeviceArray<f32>,
}

/// What teachers think likely.
#[derive(Clone, Copy, Debug)]
pub struct Likely<'a> {
    /// q, `[rows, stride]`, 0 in columns that do not count.
    pub probabilities: &'a DeviceArray<f32>,
    /// a: their share of the target, in `[0, 1]`.
    pub share: f32,
}

/// Writes `weight` times the softmax of `logits`, capped where the vocabulary says so, `[rows, stride]`, to `likely`, as many, or, with `accumulate`, adds it. Columns that do not count become 0.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit.
pub fn soften(
    gpu: &Gpu,
    logits: &DeviceArray<bf16>,
    vocabulary: Vocabulary,
    weight: f32,
    accumulate: bool,
    likely: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "soften";
    let rows = logits.len() / vocabulary.stride.max(1);
    check(OP, vocabulary, logits, rows)?;
    need(OP, "likely", rows * vocabulary.stride, likely.len())?;
    if !likely.address().is_multiple_of(16) {
        return Err(CudaError::shape(OP, "probabilities at 16 bytes", format!("{likely:?}")));
    }
    let kernel = if vocabulary.softcap.is_some() {
        SOFTEN_CAPPED
    } else {
        SOFTEN
    };
    let launch = Launch::new(gpu, kernel, [rows as u32, 1, 1], threads(vocabulary.size / 8))
        .array(logits)
        .u32(vocabulary.size)
        .u32(vocabulary.stride)
        .f32(weight)
        .u32(usize::from(accumulate))
        .array(likely);
    let launch = match vocabulary.softcap {
        Some(cap) => launch.f32(cap),
        None => launch,
    };
    // SAFETY: a block a row, and both arrays have `rows` rows of `stride`, of which the kernel touches whole chunks of 8.
    unsafe { launch.run() }
}

/// Writes the losses of `logits` `[rows, stride]` against `targets` `[rows]` and what teachers think likely, and over the logits the gradient of `scale` times the sum over rows of the
/// smoothed loss. `scale` is 1 / (tokens of the batch · batches that are accumulated).
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit, or a share outside `[0, 1]`.
pub fn cross_entropy(
    gpu: &Gpu,
    logits: &DeviceArray<bf16>,
    targets: &DeviceArray<u32>,
    vocabulary: Vocabulary,
    likely: Option<Likely<'_>>,
    scale: f32,
    losses: RowLosses,
) -> Result<()> {
    if let Some(Likely { probabilities, share }) = &likely {
        need(
            "cross_entropy",
            "likely",
            targets.len() * vocabulary.stride,
            probabilities.len(),
        )?;
        if !(0.0..=1.0).contains(share) || !probabilities.address().is_multiple_of(16) {
            let expected = "a share of 0 to 1, and probabilities at 16 bytes";
            return Err(CudaError::shape("cross_entropy", expected, format!("{likely:?}")));
        }
    }
    let kernels = match likely {
        Some(_) => [GRADIENT_TAUGHT, GRADIENT_TAUGHT, GRADIENT_CAPPED_TAUGHT],
        None => [GRADIENT, GRADIENT_SMOOTHED, GRADIENT_CAPPED],
    };
    launch(gpu, kernels, logits, targets, vocabulary, likely, Some(scale), losses)
}

/// Writes the losses of `logits` `[rows, stride]` against `targets` `[rows]`; the logits stay.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit.
pub fn cross_entropy_evaluate(
    gpu: &Gpu,
    logits: &DeviceArray<bf16>,
    targets: &DeviceArray<u32>,
    vocabulary: Vocabulary,
    losses: RowLosses,
) -> Result<()> {
    let kernels = [EVALUATE, EVALUATE_SMOOTHED, EVALUATE_CAPPED];
    launch(gpu, kernels, logits, targets, vocabulary, None, None, losses)
}

/// Sums `nll` and `smoothed` `[rows]` over all rows, in f64 and always in the same order, to `sums[slot]` of `sums` `[slots, 2]`. `slot` `[1]` is read
/// on the GPU, so that one recording serves every batch that is accumulated; a slot that `sums` does not have gets nothing.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that do not fit.
pub fn loss_sums(
    gpu: &Gpu,
    nll: &DeviceArray<f32>,
    smoothed: &DeviceArray<f32>,
    slot: &DeviceArray<u32>,
    sums: &DeviceArray<f32>,
) -> Result<()> {
    const OP: &str = "loss_sums";
    let rows = nll.len();
    need(OP, "smoothed", rows, smoothed.len())?;
    need(OP, "slot", 1, slot.len())?;
    if rows > i32::MAX as usize || !sums.len().is_multiple_of(2) || sums.len() > i32::MAX as usize {
        return Err(CudaError::shape(OP, "sums [slots, 2]", sums.len()));
    }
    let launch = Launch::new(gpu, SUMS, [2, 1, 1], 1024)
        .array(nll)
        .array(smoothed)
        .u32(rows)
        .array(slot)
        .u32(sums.len() / 2)
        .array(sums);
    // SAFETY: both inputs have `rows` elements, and a slot is compared with the number of slots.
    unsafe { launch.run() }
}

fn launch(
    gpu: &Gpu,
    [plain, smoothed, capped]: [Kernel; 3],
    logits: &DeviceArray<bf16>,
    targets: &DeviceArray<u32>,
    vocabulary: Vocabulary,
    likely: Option<Likely<'_>>,
    scale: Option<f32>,
    losses: RowLosses,
) -> Result<()> {
    const OP: &str = "cross_entropy";
    let Vocabulary {
        size,
        stride,
        smoothing,
        z_loss,
        softcap,
    } = vocabulary;
    let rows = targets.len();
    check(OP, vocabulary, logits, rows)?;
    need(OP, "lse", rows, losses.lse.len())?;
    need(OP, "nll", rows, losses.nll.len())?;
    need(OP, "smoothed", rows, losses.smoothed.len())?;
    let chunks = size / 8;
    let cached = match scale {
        // A little is the kernel's own.
        Some(_) => chunks.min((gpu.properties().shared_memory as usize - 2048) / 16),
        None => 0,
    };
    let kernel = match softcap {
        Some(_) => capped,
        None if smoothing == 0.0 => plain,
        None => smoothed,
    };
    let launch = Launch::new(gpu, kernel, [rows as u32, 1, 1], threads(chunks))
        .shared(cached * 16)
        .array(logits)
        .array(targets)
        .u32(size)
        .u32(stride)
        .u32(cached)
        .f32(smoothing)
        .f32(z_loss)
        .f32(scale.unwrap_or(0.0))
        .optional(likely.map(|likely| likely.probabilities))
        .f32(likely.map_or(0.0, |likely| likely.share))
        .array(losses.lse)
        .array(losses.nll)
        .array(losses.smoothed);
    let launch = match softcap {
        Some(cap) => launch.f32(cap),
        None => launch,
    };
    // SAFETY: a block a row, and `logits` has `rows` rows of `stride`, of which the kernel touches the first `stride / 8` chunks of 16 bytes; a target is
    // compared with `size`, at most `stride`, before it is an index; the rest has an element a row; `cached` chunks of shared memory are there; the kernel that is taught has as many probabilities as logits, compared by its caller.
    unsafe { launch.run() }
}

/// That `logits` are rows that the kernels read.
fn check(op: &'static str, vocabulary: Vocabulary, logits: &DeviceArray<bf16>, rows: usize) -> Result<()> {
    let Vocabulary { size, stride, .. } = vocabulary;
    if size == 0
        || stride < size
        || !stride.is_multiple_of(8)
        || stride > 1 << 30
        || rows > i32::MAX as usize
        || !logits.address().is_multiple_of(16)
    {
        let expected = "rows a multiple of 8 logits apart, at 16 bytes, of at least one token";
        return Err(CudaError::shape(op, expected, format!("{vocabulary:?}, {logits:?}")));
    }
    need(op, "logits", rows * stride, logits.len())
}

/// Threads for a row of so many 16-byte chunks: few enough that several blocks share a multiprocessor while their rows fit its shared memory.
fn threads(chunks: usize) -> u32 {
    let most = match chunks {
        0..=2048 => 256,
        2049..=6144 => 384,
        _ => 1024,
    };
    chunks.next_multiple_of(32).clamp(32, most) as u32
}
