//! The path of every GPU from compute capability 8.0 on: `mma.cu`.

use super::problem::{Batch, Layout, Operands, Problem};
use super::reduce::{self, Mode, Pieces};
use crate::device::{CudaError, DeviceArray, Gpu, Kernel, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("mma.ptx");

const THREADS: u32 = 128;
/// Bytes of a row of an operand that a step along k takes.
const STEP_BYTES: usize = 64;
const STAGES: usize = 4;

/// How a product is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rows and columns of a block's results: 128 or 64.
    pub tile: usize,
    /// Pieces of the sums.
    pub splits: usize,
}

/// Values of k in a step.
fn step(int8: bool) -> usize {
    if int8 { STEP_BYTES } else { STEP_BYTES / 2 }
}

/// As [`Problem::workspace_len`], before there is a problem.
pub(super) fn workspace_len((m, n, _): (usize, usize, usize), splits: usize) -> usize {
    if splits > 1 {
        splits * m.next_multiple_of(128) * n.next_multiple_of(4)
    } else {
        0
    }
}

/// The fastest plan for `count` products of `m` × `n` sums of `k` whose partial sums fit `workspace` elements, by a count of cycles. Sums of more than one
/// product are not cut.
pub(super) fn plan(
    multiprocessors: u32,
    (m, n, k): (usize, usize, usize),
    int8: bool,
    workspace: usize,
    count: usize,
) -> Plan {
    let steps = k.div_ceil(step(int8)).max(1);
    let mut best = (u64::MAX, Plan { tile: 64, splits: 1 });
    // Cycles of a step and of beginning and end, of a block that shares a multiprocessor. 128 x 128: the rate of tensor cores, nearly (1024 multiply-adds of bf16
    // a cycle). 64 x 64 reads twice as much for each product, and is bound by that.
    for (tile, step_cycles, block_cycles) in [(128, 560, 3000), (64, 220, 1500)] {
        let tiles = m.div_ceil(tile) * n.div_ceil(tile) * count;
        // Pieces of less than four steps would begin and end only.
        let most = if count == 1 { (steps / 4).clamp(1, 32) } else { 1 };
        for splits in 1..=most {
            let steps_each = steps.div_ceil(splits);
            let partial = workspace_len((m, n, k), splits);
            if partial > workspace || steps.div_ceil(steps_each) != splits {
                continue;
            }
            let rounds = (tiles * splits).div_ceil(multiprocessors as usize);
            let mut cycles = (rounds * (steps_each * step_cycles + block_cycles)) as u64;
            if splits > 1 {
                // Partial sums are written and read, at some 16 bytes a cycle and multiprocessor, and a second kernel starts.
                cycles += 5000 + (8 * partial / (16 * multiprocessors as usize)) as u64;
            }
            if cycles < best.0 {
                best = (cycles, Plan { tile, splits });
            }
        }
    }
    best.1
}

fn kernel(problem: &Problem, tile: usize) -> Kernel {
    let name = match (problem.operands, problem.layout, tile) {
        (Operands::Bf16 { .. }, Layout::NT, 128) => "gemm_nt_bf16_128",
        (Operands::Bf16 { .. }, Layout::NN, 128) => "gemm_nn_bf16_128",
        (Operands::Bf16 { .. }, Layout::TN, 128) => "gemm_tn_bf16_128",
        (Operands::Bf16 { .. }, Layout::NT, _) => "gemm_nt_bf16_64",
        (Operands::Bf16 { .. }, Layout::NN, _) => "gemm_nn_bf16_64",
        (Operands::Bf16 { .. }, Layout::TN, _) => "gemm_tn_bf16_64",
        (Operands::Int8 { .. }, _, 128) => "gemm_nt_s8_128",
        (Operands::Int8 { .. }, _, _) => "gemm_nt_s8_64",
    };
    MODULE.kernel(name)
}

/// The product, cut as `plan` says.
pub(super) fn run(gpu: &Gpu, problem: &Problem, plan: Plan, workspace: &DeviceArray<f32>) -> Result<()> {
    problem.check()?;
    let step = step(problem.is_int8());
    let k_piece = problem.k.div_ceil(step).div_ceil(plan.splits).max(1) * step;
    // Fewer than were asked for where they do not come out even.
    let splits = problem.k.div_ceil(k_piece).max(1);
    if problem.batch.count != 1 && splits > 1 {
        return Err(CudaError::shape("gemm", "whole sums in a batch", format!("{plan:?}")));
    }
    let needed = problem.workspace_len(splits);
    if workspace.len() < needed || !(needed == 0 || workspace.address().is_multiple_of(16)) {
        let expected = format!("a workspace of {needed} elements, 16-byte aligned");
        return Err(CudaError::shape("gemm", expected, format!("{workspace:?}")));
    }
    let tiles = problem.m.div_ceil(plan.tile) * problem.n.div_ceil(plan.tile);
    let launch = Launch::new(
        gpu,
        kernel(problem, plan.tile),
        [tiles as u32, splits as u32, problem.batch.count as u32],
        THREADS,
    )
    .shared(STAGES * 2 * plan.tile * STEP_BYTES);
    let launch = match problem.operands {
        Operands::Bf16 { a, b } => {
            let launch = launch.array(a).u64(problem.a_stride as u64);
            launch.array(b).u64(problem.b_stride as u64)
        }
        Operands::Int8 { a, b } => {
            let launch = launch.array(a).u64(problem.a_stride as u64);
            launch.array(b).u64(problem.b_stride as u64)
        }
    };
    let launch = launch.u32(problem.k).u32(k_piece);
    let (launch, mode) = if splits > 1 {
        let launch = launch.array(workspace).u64(problem.partial_stride() as u64);
        (launch, Mode::Partial)
    } else {
        reduce::output(launch, problem)
    };
    let launch = reduce::scales(launch, problem)
        .u32(mode as usize)
        .u64((problem.partial_rows() * problem.partial_stride()) as u64);
    let Batch {
        a_step, b_step, c_step, ..
    } = problem.batch;
    let launch = launch.u64(a_step as u64).u64(b_step as u64).u64(c_step as u64);
    // SAFETY: `check` has compared operands, output and scales with their arrays, and the workspace was compared above; the kernel reads no byte outside the rows and
    // columns of A and B, writes none outside those of the output, and of the workspace nothing but rows below m of each piece.
    unsafe { launch.run()? };
    if splits > 1 {
        let pieces = if problem.is_int8() { Pieces::I32 } else { Pieces::F32 };
        reduce::run(gpu, problem, splits, pieces, workspace)?;
    }
    Ok(())
}
