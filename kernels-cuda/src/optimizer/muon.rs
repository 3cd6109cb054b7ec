//! Muon (Jordan et al. 2024) around its matrix products, for a batch of matrices of one size that lie in the arenas.
//!
//! ```text
//! momentum(…)                 momentum ← c·momentum + scale·g, sums of squares of scale·g + c·momentum
//! normalize(…)                X = (scale·g + c·momentum) / its Frobenius norm, bf16
//! five times:                 A = X·Xᵀ (Xᵀ·X where there are more rows than columns), A², both bf16
//!   combine(b, A, c, A²)      P = b·A + c·A²
//!   combine(a, X, 1, P·X)     X ← a·X + P·X
//! update(…)                   parameter ← (1 − lr·weight_decay)·parameter − lr·size·X, size = 0.2·√max(rows, cols)
//! ```
//! Cost in bytes an element: 12, 10, 6 each, 10. All but `combine` do nothing while the guard is shut.
//!
//! A model has many matrices of few sizes. One by one those of a small model are hundreds of launches that leave most of a GPU idle; in batches a launch does
//! the same for all of them.

use half::bf16;

use super::*;
use crate::device::{Kernel, Module, ptx};

static MODULE: Module = ptx!("muon.ptx");
const MOMENTUM: Kernel = MODULE.kernel("muon_momentum");
const NORMALIZE: Kernel = MODULE.kernel("muon_normalize");
const COMBINE: Kernel = MODULE.kernel("muon_combine");
const UPDATE: Kernel = MODULE.kernel("muon_update");

/// The most matrices of a batch.
pub const MAX_BATCH: usize = 128;

/// Elements of a chunk, which a thread takes at a time.
const CHUNK: usize = 4;

/// Matrices of equal sizes within arenas of one layout.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where each begins, in chunks.
    table: DeviceArray<u64>,
    /// Elements of a matrix.
    n: usize,
    /// Elements that an arena must have.
    end: usize,
}

impl Batch {
    /// Matrices of `n` elements at elements `begins` of their arenas, of which `table` `[begins.len()]` will hold the places.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for more than [`MAX_BATCH`] matrices, a table of another length, or sizes and places that are no multiples of 4 elements; failures of the GPU.
    pub fn new(gpu: &Gpu, table: DeviceArray<u64>, begins: &[usize], n: usize) -> Result<Self> {
        const OP: &str = "muon batch";
        need(OP, "table", begins.len(), table.len())?;
        let whole = |x: &usize| x.is_multiple_of(CHUNK);
        if begins.len() > MAX_BATCH || !whole(&n) || n / CHUNK / 256 >= i32::MAX as usize || !begins.iter().all(whole) {
            let expected = format!("at most {MAX_BATCH} matrices of multiples of {CHUNK} elements");
            return Err(CudaError::shape(OP, expected, format!("{n} elements at {begins:?}")));
        }
        let chunks: Vec<u64> = begins.iter().map(|begin| (begin / CHUNK) as u64).collect();
        gpu.write(&table, &chunks)?;
        Ok(Batch {
            table,
            n,
            end: begins.iter().max().map_or(0, |begin| begin + n),
        })
    }

    /// Matrices.
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// Sums of squares of one matrix.
    fn sums(&self) -> usize {
        let most = NORM_PARTIALS / self.count().max(1);
        (self.n / CHUNK).div_ceil(256).clamp(1, most)
    }

    fn chunks(&self) -> usize {
        self.n / CHUNK
    }

    /// Checks that arenas of `lens` elements at `addresses` hold all matrices, where 16-byte accesses can reach them.
    fn check(&self, op: &'static str, lens: &[usize], addresses: &[u64]) -> Result<()> {
        if lens.iter().all(|&len| len >= self.end) && addresses.iter().all(|at| at.is_multiple_of(16)) {
            return Ok(());
        }
        let expected = format!("arenas of {} elements or more, at 16 bytes", self.end);
        Err(CudaError::shape(op, expected, format!("{lens:?} at {addresses:x?}")))
    }
}

/// Updates the matrices of `batch` in the arena `momentum` by those in the arena `gradients` times the scale of `guard`, at decay `c`, and writes to `partials`
/// `[NORM_PARTIALS]` what [`normalize`] takes.
///
/// # Errors
/// [`CudaError::Shape`] for arrays that are too short.
pub fn momentum(
    gpu: &Gpu,
    batch: &Batch,
    gradients: &DeviceArray<f32>,
    momentum: &DeviceArray<f32>,
    c: f32,
    guard: &DeviceArray<u32>,
    partials: &DeviceArray<u64>,
) -> Result<()> {
    const OP: &str = "muon momentum";
    batch.check(
        OP,
        &[gradients.len(), momentum.len()],
        &[gradients.address(), momentum.address()],
    )?;
    need(OP, "guard", GUARD_WORDS, guard.len())?;
    check_partials(OP, batch, partials)?;
    let launch = Launch::new(gpu, MOMENTUM, [batch.sums() as u32, batch.count() as u32, 1], 256)
        .array(gradients)
        .array(momentum)
        .array(&batch.table)
        .u64(batch.chunks() as u64)
        .f32(c)
        .array(guard)
        .array(partials);
    // SAFETY: both arenas have every matrix of the table, whose places `Batch::new` wrote, and each of at most `NORM_PARTIALS` blocks writes one sum.
    unsafe { launch.run() }
}

/// Writes to `x` `[count, n]` what is made orthogonal: Nesterov's look ahead, at Frobenius norm 1. Arguments as for [`momentum()`], which ran just before.
///
/// # Errors
/// [`CudaError::Shape`] for arrays that are too short.
pub fn normalize(
    gpu: &Gpu,
    batch: &Batch,
    gradients: &DeviceArray<f32>,
    momentum: &DeviceArray<f32>,
    c: f32,
    guard: &DeviceArray<u32>,
    partials: &DeviceArray<u64>,
    x: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "muon normalize";
    batch.check(
        OP,
        &[gradients.len(), momentum.len()],
        &[gradients.address(), momentum.address(), x.address()],
    )?;
    need(OP, "x", batch.count() * batch.n, x.len())?;
    need(OP, "guard", GUARD_WORDS, guard.len())?;
    check_partials(OP, batch, partials)?;
    let blocks = batch.chunks().div_ceil(256).clamp(1, NORM_PARTIALS);
    let launch = Launch::new(gpu, NORMALIZE, [blocks as u32, batch.count() as u32, 1], 256)
        .array(gradients)
        .array(momentum)
        .array(&batch.table)
        .u64(batch.chunks() as u64)
        .f32(c)
        .array(guard)
        .array(partials)
        .u32(batch.sums())
        .array(x);
    // SAFETY: the arenas have every matrix of the table, `x` one of each, and `partials` the sums that are read.
    unsafe { launch.run() }
}

/// `out = alpha·x + beta·y`, all `[n]`; `out` may be one of the others.
///
/// # Errors
/// [`CudaError::Shape`] for lengths that differ, or an `n` that is not a multiple of 8.
pub fn combine(
    gpu: &Gpu,
    (alpha, x): (f32, &DeviceArray<bf16>),
    (beta, y): (f32, &DeviceArray<bf16>),
    out: &DeviceArray<bf16>,
) -> Result<()> {
    const OP: &str = "muon combine";
    let n = out.len();
    let addresses = [x.address(), y.address(), out.address()];
    if !n.is_multiple_of(8) || n / 8 / 256 >= i32::MAX as usize || !addresses.iter().all(|at| at.is_multiple_of(16)) {
        return Err(CudaError::shape(OP, "a multiple of 8 elements at 16 bytes", n));
    }
    need(OP, "x", n, x.len())?;
    need(OP, "y", n, y.len())?;
    let launch = Launch::new(gpu, COMBINE, [(n / 8).div_ceil(256) as u32, 1, 1], 256)
        .f32(alpha)
        .array(x)
        .f32(beta)
        .array(y)
        .array(out)
        .u64(n as u64 / 8);
    // SAFETY: the three arrays have `n / 8` chunks of eight elements; a thread reads its chunk before it writes it.
    unsafe { launch.run() }
}

/// Decays the matrices of `batch` in the arena `parameters` and moves each by −lr·`size` times its own in `x` `[count, n]`, with the numbers of the step in
/// `scalars` `[STEP_WORDS]`.
///
/// # Errors
/// [`CudaError::Shape`] for arrays that are too short.
pub fn update(
    gpu: &Gpu,
    batch: &Batch,
    parameters: &DeviceArray<f32>,
    x: &DeviceArray<bf16>,
    size: f32,
    scalars: &DeviceArray<u32>,
    guard: &DeviceArray<u32>,
) -> Result<()> {
    const OP: &str = "muon update";
    batch.check(OP, &[parameters.len()], &[parameters.address(), x.address()])?;
    need(OP, "x", batch.count() * batch.n, x.len())?;
    check_step(OP, scalars, guard)?;
    let blocks = batch.chunks().div_ceil(256).max(1);
    let launch = Launch::new(gpu, UPDATE, [blocks as u32, batch.count() as u32, 1], 256)
        .array(parameters)
        .array(x)
        .array(&batch.table)
        .u64(batch.chunks() as u64)
        .f32(size)
        .array(scalars)
        .array(guard);
    // SAFETY: the arena has every matrix of the table, `x` one of each, and the other two the words that are read.
    unsafe { launch.run() }
}

fn check_partials(op: &'static str, batch: &Batch, partials: &DeviceArray<u64>) -> Result<()> {
    if partials.len() >= batch.count() * batch.sums() {
        return Ok(());
    }
    let expected = format!("{} partial sums or more", batch.count() * batch.sums());
    Err(CudaError::shape(op, expected, partials.len()))
}
