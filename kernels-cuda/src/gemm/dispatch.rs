//! Which path a product takes.

use half::bf16;

use super::{Layout, Matrix, Output, Scales};
use crate::device::{CudaError, DeviceArray, Gpu, Result};

pub(super) fn gemm_bf16(
    _gpu: &Gpu,
    _layout: Layout,
    _sizes: (usize, usize, usize),
    _a: Matrix<bf16>,
    _b: Matrix<bf16>,
    _out: Output,
    _scales: Scales,
    _workspace: &DeviceArray<f32>,
) -> Result<()> {
    Err(CudaError::shape("gemm_bf16", "a kernel", "none"))
}

pub(super) fn gemm_s8(
    _gpu: &Gpu,
    _sizes: (usize, usize, usize),
    _a: Matrix<i8>,
    _b: Matrix<i8>,
    _out: Output,
    _scales: Scales,
    _workspace: &DeviceArray<f32>,
) -> Result<()> {
    Err(CudaError::shape("gemm_s8", "a kernel", "none"))
}

pub(super) fn workspace_len(_gpu: &Gpu, _layout: Layout, _sizes: (usize, usize, usize), _int8: bool) -> usize {
    0
}
