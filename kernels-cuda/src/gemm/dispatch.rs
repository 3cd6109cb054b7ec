//! Which path a product takes.

use std::sync::OnceLock;

use super::mma;
use super::problem::{Layout, Problem};
use crate::device::{CudaError, DeviceArray, Gpu, Result};

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every GPU.
    Mma,
}

impl Path {
    /// Those that `gpu` has.
    #[cfg(test)]
    pub fn all(_gpu: &Gpu) -> Vec<Path> {
        vec![Path::Mma]
    }

    /// The one for `problem`.
    fn of(_gpu: &Gpu, _problem: &Problem) -> Result<Path> {
        static FORCED: OnceLock<Option<String>> = OnceLock::new();
        match FORCED.get_or_init(|| std::env::var("ONEBIT_CUDA_PATH").ok()).as_deref() {
            Some("mma") | Some("") | None => Ok(Path::Mma),
            Some(other) => Err(CudaError::shape("ONEBIT_CUDA_PATH", "mma or wgmma", other)),
        }
    }
}

/// The product on the path that suits it.
pub(super) fn run(gpu: &Gpu, problem: &Problem, workspace: &DeviceArray<f32>) -> Result<()> {
    run_on(gpu, Path::of(gpu, problem)?, problem, workspace)
}

/// The product on `path`.
pub(super) fn run_on(gpu: &Gpu, path: Path, problem: &Problem, workspace: &DeviceArray<f32>) -> Result<()> {
    match path {
        Path::Mma => {
            let sizes = (problem.m, problem.n, problem.k);
            let multiprocessors = gpu.properties().multiprocessors;
            let plan = mma::plan(multiprocessors, sizes, mma::is_int8(problem), workspace.len());
            mma::run(gpu, problem, plan, workspace)
        }
    }
}

/// Elements of workspace that the product of `sizes` makes use of.
pub(super) fn workspace_len(gpu: &Gpu, _layout: Layout, sizes: (usize, usize, usize), int8: bool) -> usize {
    let plan = mma::plan(gpu.properties().multiprocessors, sizes, int8, usize::MAX);
    mma::workspace_len(sizes, plan.splits)
}
