//! Adding the pieces of sums that were cut: `reduce.cu`.

use super::problem::{Output, Problem};
use crate::device::{CudaError, DeviceArray, Gpu, Launch, Module, Result, ptx};

static MODULE: Module = ptx!("reduce.ptx");

const THREADS: usize = 128;

/// What a kernel does with its sums, in the numbers of `common/product.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Bf16 = 0,
    F32 = 1,
    Accumulate = 2,
    /// Sums as they are, f32 or i32, into a workspace.
    Partial = 3,
}

/// What partial sums are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    F32,
    /// The bits of i32, so that sums of int8 products stay exact.
    I32,
}

/// Output and distance of its rows as the next two arguments.
pub(super) fn output<'a>(launch: Launch<'a>, problem: &Problem) -> (Launch<'a>, Mode) {
    let (launch, mode) = match problem.output {
        Output::Bf16(c) => (launch.array(c), Mode::Bf16),
        Output::F32(c) => (launch.array(c), Mode::F32),
        Output::Accumulate(c) => (launch.array(c), Mode::Accumulate),
    };
    (launch.u64(problem.c_stride as u64), mode)
}

/// Scales and sizes of the output as the next arguments.
pub(super) fn scales<'a>(launch: Launch<'a>, problem: &Problem) -> Launch<'a> {
    let launch = launch.optional(problem.row_scale).optional(problem.col_scale);
    launch.f32(problem.alpha).u32(problem.m).u32(problem.n)
}

/// Adds `splits` pieces `[splits][partial_rows][partial_stride]` of the workspace in their order, scales the sums and writes the output.
///
/// # Errors
/// A workspace that is too small.
pub(super) fn run(
    gpu: &Gpu,
    problem: &Problem,
    splits: usize,
    pieces: Pieces,
    workspace: &DeviceArray<f32>,
) -> Result<()> {
    problem.check()?;
    let piece = problem.partial_rows() * problem.partial_stride();
    let threads = problem.m * problem.n.div_ceil(4);
    if workspace.len() < splits * piece || !workspace.address().is_multiple_of(16) || threads > i32::MAX as usize {
        let expected = format!("an aligned workspace of {splits} pieces of {piece} elements");
        return Err(CudaError::shape("gemm", expected, format!("{workspace:?}")));
    }
    let kernel = MODULE.kernel(match pieces {
        Pieces::F32 => "gemm_reduce_f32",
        Pieces::I32 => "gemm_reduce_i32",
    });
    let launch = Launch::new(gpu, kernel, [threads.div_ceil(THREADS) as u32, 1, 1], THREADS as u32);
    let launch = launch.array(workspace).u32(splits).u64(piece as u64);
    let (launch, mode) = output(launch, problem);
    let launch = scales(launch, problem).u32(mode as usize);
    // SAFETY: the workspace has all pieces, and `check` has compared output and scales with their arrays; a thread touches four columns of a row, and those
    // beyond n in the workspace alone, whose rows are whole fours.
    unsafe { launch.run() }
}
