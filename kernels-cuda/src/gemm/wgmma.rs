//! The path of Hopper: `wgmma.cu`.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod model;
#[cfg(test)]
mod protocol;

use super::problem::{Layout, Operands, Output, Problem};
use super::reduce::{self, Mode, Pieces};
use crate::device::{CudaError, DeviceArray, Element, Gpu, Kernel, Launch, Module, Result, TensorMap, ptx};

static MODULE: Module = ptx!("wgmma.ptx");

const OP: &str = "gemm";
const THREADS: u32 = 384;
/// Rows of C of a block; a cluster has two such tiles, one below the other.
const TILE_M: usize = 128;
/// Bytes of a row of an operand that a stage of the ring has, and that a row of a box on its way out has.
const ROW_BYTES: usize = 128;
/// Rows of C that a warp stores at a time, from two boxes in shared memory each of the eight warps.
const BOX_ROWS: usize = 16;
const BOXES: usize = 8 * 2;

/// Who multiplies what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Two warpgroups share a tile of 128 × 256: fewest bytes a product, for long sums.
    Cooperative,
    /// Two warpgroups have a tile of 128 × 128 each, and one stores while the other multiplies: for short sums.
    PingPong,
}

impl Schedule {
    const ALL: [Schedule; 2] = [Schedule::Cooperative, Schedule::PingPong];

    fn tile_n(self) -> usize {
        match self {
            Schedule::Cooperative => 256,
            Schedule::PingPong => 128,
        }
    }

    fn stages(self) -> usize {
        match self {
            Schedule::Cooperative => 4,
            Schedule::PingPong => 6,
        }
    }

    /// Bytes of dynamic shared memory: the ring, the boxes, and two barriers a stage.
    fn shared(self) -> usize {
        self.stages() * ((TILE_M + self.tile_n()) * ROW_BYTES + 16) + BOXES * BOX_ROWS * ROW_BYTES
    }
}

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub schedule: Schedule,
    /// Pieces of the sums.
    pub splits: usize,
}

/// Whether `gpu` and `problem` are for this path: Hopper, sums of something, and rows of C that are whole chunks of 16 bytes, because a bulk copy writes its last
/// chunk whole, with what lies behind the row.
pub(super) fn supports(gpu: &Gpu, problem: &Problem) -> bool {
    let chunk = match problem.output {
        Output::Bf16(_) => 8,
        Output::F32(_) | Output::Accumulate(_) => 4,
    };
    gpu.properties().is_hopper() && problem.k > 0 && problem.n.is_multiple_of(chunk)
}

/// Stages that sums of `k` take.
fn blocks(k: usize, int8: bool) -> usize {
    k.div_ceil(if int8 { ROW_BYTES } else { ROW_BYTES / 2 })
}

/// The fastest plan for a product of `m` × `n` sums of `k` whose partial sums fit `workspace` elements, by a count of cycles.
pub(super) fn plan(multiprocessors: u32, (m, n, k): (usize, usize, usize), int8: bool, workspace: usize) -> Plan {
    let clusters = (multiprocessors as usize / 2).max(1);
    let blocks = blocks(k, int8);
    let mut best = (
        usize::MAX,
        Plan {
            schedule: Schedule::PingPong,
            splits: 1,
        },
    );
    for schedule in Schedule::ALL {
        let tiles = m.div_ceil(2 * TILE_M) * n.div_ceil(schedule.tile_n());
        // Pieces of less than four stages would begin and end only.
        for splits in 1..=(blocks / 4).clamp(1, 64) {
            let partial = if splits > 1 {
                splits * m.next_multiple_of(128) * n.next_multiple_of(4)
            } else {
                0
            };
            if partial > workspace {
                continue;
            }
            let turns = (tiles * splits).div_ceil(clusters);
            let each = blocks.div_ceil(splits);
            let store = if splits > 1 { 3000 } else { 2000 };
            // Estimates: at full rate a stage of the larger tile takes 1024 cycles and one of the smaller 512.
            let mut cycles = match schedule {
                Schedule::Cooperative => turns * (each * 1250 + store),
                Schedule::PingPong => {
                    let multiply = each * 720;
                    turns * multiply.max((multiply + store) / 2) + store
                }
            };
            if splits > 1 {
                // Partial sums are written and read, at some 16 bytes a cycle and multiprocessor, and a second kernel starts.
                cycles += 5000 + 8 * partial / (32 * clusters);
            }
            if cycles < best.0 {
                best = (cycles, Plan { schedule, splits });
            }
        }
    }
    best.1
}

fn kernel(problem: &Problem, schedule: Schedule) -> Kernel {
    use Schedule::{Cooperative, PingPong};
    let name = match (schedule, problem.operands, problem.layout) {
        (Cooperative, Operands::Int8 { .. }, _) => "cooperative_s8_nt",
        (Cooperative, Operands::Bf16 { .. }, Layout::NT) => "cooperative_bf16_nt",
        (Cooperative, Operands::Bf16 { .. }, Layout::NN) => "cooperative_bf16_nn",
        (Cooperative, Operands::Bf16 { .. }, Layout::TN) => "cooperative_bf16_tn",
        (PingPong, Operands::Int8 { .. }, _) => "pingpong_s8_nt",
        (PingPong, Operands::Bf16 { .. }, Layout::NT) => "pingpong_bf16_nt",
        (PingPong, Operands::Bf16 { .. }, Layout::NN) => "pingpong_bf16_nn",
        (PingPong, Operands::Bf16 { .. }, Layout::TN) => "pingpong_bf16_tn",
    };
    MODULE.kernel(name)
}

/// The map of an operand: boxes of 128 bytes of k by `rows` where k is contiguous, else of 64 values of m or n by a stage's k.
fn operand<T: Element>(
    array: &DeviceArray<T>,
    shape: (usize, usize),
    stride: usize,
    k_contiguous: bool,
    rows: usize,
) -> Result<TensorMap> {
    let width = ROW_BYTES / size_of::<T>();
    let rows = if k_contiguous { rows } else { width };
    TensorMap::matrix(array, shape, stride, (rows, width))
}

fn output<T: Element>(array: &DeviceArray<T>, shape: (usize, usize), stride: usize) -> Result<TensorMap> {
    TensorMap::matrix(array, shape, stride, (BOX_ROWS, ROW_BYTES / size_of::<T>()))
}

/// The product, cut as `plan` says. Where there is more than one piece, that is `[splits][partial_rows][partial_stride]` of partial sums in `workspace`, f32 or
/// (of int8) the bits of i32, which [`reduce::run`] adds up.
///
/// # Errors
/// A problem without sums, more pieces than stages, a workspace that is too small, and those of [`Problem::check`].
pub(super) fn launch(gpu: &Gpu, problem: &Problem, plan: Plan, workspace: &DeviceArray<f32>) -> Result<()> {
    problem.check()?;
    let Problem { m, n, k, .. } = *problem;
    if m == 0 || n == 0 {
        return Ok(());
    }
    let Plan { schedule, splits } = plan;
    let int8 = problem.is_int8();
    if !supports(gpu, problem) || splits == 0 || splits > blocks(k, int8) {
        let found = format!("{splits} pieces of sums of {k} on {}", gpu.properties().name);
        return Err(CudaError::shape(OP, "Hopper, and pieces of at least one stage", found));
    }
    let needed = problem.workspace_len(splits);
    if workspace.len() < needed || !(needed == 0 || workspace.address().is_multiple_of(16)) {
        let expected = format!("a workspace of {needed} elements, 16-byte aligned");
        return Err(CudaError::shape(OP, expected, format!("{workspace:?}")));
    }
    let (m_pairs, columns) = (m.div_ceil(2 * TILE_M), n.div_ceil(schedule.tile_n()));
    let tiles = (m_pairs * columns).saturating_mul(splits);
    let small = |value: usize| value < 1 << 30;
    let rows = splits * problem.partial_rows();
    if ![tiles, m, n, k, rows, blocks(k, int8) * (splits + 1)]
        .into_iter()
        .all(small)
    {
        return Err(CudaError::shape(OP, "sizes below 2^30", format!("{m}x{n}x{k}")));
    }

    let (a_k, b_k) = (problem.layout != Layout::TN, problem.layout == Layout::NT);
    // Each block of a cluster brings half of the columns of B.
    let (a_rows, b_rows) = (TILE_M, schedule.tile_n() / 2);
    let (a, b) = match problem.operands {
        Operands::Bf16 { a, b } => (
            operand(a, problem.a_shape(), problem.a_stride, a_k, a_rows)?,
            operand(b, problem.b_shape(), problem.b_stride, b_k, b_rows)?,
        ),
        Operands::Int8 { a, b } => (
            operand(a, problem.a_shape(), problem.a_stride, a_k, a_rows)?,
            operand(b, problem.b_shape(), problem.b_stride, b_k, b_rows)?,
        ),
    };
    let (c, mode) = if splits > 1 {
        (output(workspace, (rows, n), problem.partial_stride())?, Mode::Partial)
    } else {
        match problem.output {
            Output::Bf16(c) => (output(c, (m, n), problem.c_stride)?, Mode::Bf16),
            Output::F32(c) => (output(c, (m, n), problem.c_stride)?, Mode::F32),
            Output::Accumulate(c) => (output(c, (m, n), problem.c_stride)?, Mode::Accumulate),
        }
    };
    let (row_scale, col_scale, alpha) = if splits > 1 {
        (None, None, 1.0)
    } else {
        (problem.row_scale, problem.col_scale, problem.alpha)
    };
    let clusters = (gpu.properties().multiprocessors as usize / 2).clamp(1, tiles);
    let launch = Launch::new(gpu, kernel(problem, schedule), [2 * clusters as u32, 1, 1], THREADS)
        .shared(schedule.shared())
        .map(a)
        .map(b)
        .map(c)
        .optional(row_scale)
        .optional(col_scale)
        .f32(alpha)
        .u32(m)
        .u32(n)
        .u32(k)
        .u32(splits)
        .u32(problem.partial_rows())
        .u32(mode as usize);
    // SAFETY: matrices and workspace are read and written through maps alone, which do not leave them; `check` has compared the scales with m and n, below which
    // the kernel reads them. The grid is whole clusters, and the shared memory is that of the kernel's stages, boxes and barriers.
    unsafe { launch.run() }
}

/// [`launch`], and the sum of the pieces.
///
/// # Errors
/// As [`launch`].
pub(super) fn run(gpu: &Gpu, problem: &Problem, plan: Plan, workspace: &DeviceArray<f32>) -> Result<()> {
    launch(gpu, problem, plan, workspace)?;
    if plan.splits > 1 && problem.m > 0 && problem.n > 0 {
        let pieces = if problem.is_int8() { Pieces::I32 } else { Pieces::F32 };
        reduce::run(gpu, problem, plan.splits, pieces, workspace)?;
    }
    Ok(())
}
