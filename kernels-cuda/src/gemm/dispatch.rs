//! Which path a product takes.

use std::sync::OnceLock;

use super::problem::{Layout, Problem};
use super::{mma, wgmma};
use crate::device::{CudaError, DeviceArray, Gpu, Result};

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every GPU.
    Mma,
    /// Hopper.
    Wgmma,
}

impl Path {
    /// The one for sums of `k`, unless `forced` says otherwise.
    fn of(hopper: bool, k: usize, forced: Option<&str>) -> Result<Path> {
        // Sums of nothing are zeros, which is not worth a tensor map: `mma` writes them everywhere.
        match forced {
            None | Some("") | Some("wgmma") if hopper => Ok(if k > 0 { Path::Wgmma } else { Path::Mma }),
            None | Some("") | Some("mma") => Ok(Path::Mma),
            Some(other) => Err(CudaError::shape(
                "ONEBIT_CUDA_PATH",
                "mma, or wgmma on a GPU of compute capability 9.0",
                other,
            )),
        }
    }
}

/// What `ONEBIT_CUDA_PATH` says.
fn forced() -> Option<&'static str> {
    static FORCED: OnceLock<Option<String>> = OnceLock::new();
    FORCED.get_or_init(|| std::env::var("ONEBIT_CUDA_PATH").ok()).as_deref()
}

/// The product on the path that suits it.
pub(super) fn run(gpu: &Gpu, problem: &Problem, workspace: &DeviceArray<f32>) -> Result<()> {
    let path = match Path::of(gpu.properties().is_hopper(), problem.k, forced())? {
        Path::Wgmma if !wgmma::supports(gpu, problem) => Path::Mma,
        path => path,
    };
    run_on(gpu, path, problem, workspace)
}

/// A batch of products, with sums in one piece: those that are too small to fill a GPU one by one fill it together, on `mma`, whose blocks know nothing of each
/// other. `none`: an empty workspace.
pub(super) fn run_batch(gpu: &Gpu, problem: &Problem, none: &DeviceArray<f32>) -> Result<()> {
    match problem.batch.count {
        0 => Ok(()),
        1 => run(gpu, problem, none),
        count => {
            let multiprocessors = gpu.properties().multiprocessors;
            let plan = mma::plan(multiprocessors, problem.sizes(), problem.is_int8(), none.len(), count);
            mma::run(gpu, problem, plan, none)
        }
    }
}

/// The product on `path`.
pub(super) fn run_on(gpu: &Gpu, path: Path, problem: &Problem, workspace: &DeviceArray<f32>) -> Result<()> {
    let sizes = problem.sizes();
    let int8 = problem.is_int8();
    let multiprocessors = gpu.properties().multiprocessors;
    match path {
        Path::Mma => {
            let plan = mma::plan(multiprocessors, sizes, int8, workspace.len(), 1);
            mma::run(gpu, problem, plan, workspace)
        }
        Path::Wgmma => {
            let plan = wgmma::plan(multiprocessors, sizes, int8, workspace.len());
            wgmma::run(gpu, problem, plan, workspace)
        }
    }
}

/// Elements of workspace that the product of `sizes` makes use of, on the path that it takes.
pub(super) fn workspace_len(gpu: &Gpu, _layout: Layout, sizes: (usize, usize, usize), int8: bool) -> usize {
    let multiprocessors = gpu.properties().multiprocessors;
    let splits = match Path::of(gpu.properties().is_hopper(), sizes.2, forced()) {
        Ok(Path::Wgmma) => wgmma::plan(multiprocessors, sizes, int8, usize::MAX).splits,
        _ => mma::plan(multiprocessors, sizes, int8, usize::MAX, 1).splits,
    };
    mma::workspace_len(sizes, splits)
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn the_path_is_that_of_the_gpu_unless_one_is_forced() {
        for (hopper, k, forced, path) in [
            (true, 64, None, Path::Wgmma),
            (true, 64, Some("mma"), Path::Mma),
            (true, 64, Some("wgmma"), Path::Wgmma),
            (true, 0, None, Path::Mma),
            (false, 64, None, Path::Mma),
            (false, 64, Some("mma"), Path::Mma),
        ] {
            assert_eq!(Path::of(hopper, k, forced).unwrap(), path, "{hopper} {k} {forced:?}");
        }
        assert!(Path::of(false, 64, Some("wgmma")).is_err());
        assert!(Path::of(true, 64, Some("cublas")).is_err());
    }
}
