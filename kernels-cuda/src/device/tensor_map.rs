//! Descriptions of matrices for the bulk tensor copies of Hopper.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;

use super::error::check;
use super::memory::Allocation;
use super::{CudaError, DeviceArray, Element, Result};

/// A row-major matrix in device memory, and the box that one copy takes of it.
///
/// In shared memory a box is rows of 128 bytes, the 16-byte chunk `c` of row `r` at `c xor (r mod 8)`: what `wgmma` calls the 128-byte swizzle.
pub(crate) struct TensorMap {
    pub(super) map: sys::CUtensorMap,
    pub(super) memory: Arc<Allocation>,
}

impl TensorMap {
    /// `rows` × `cols` elements of `array`, rows `stride` elements apart, in boxes of `box_rows` × `box_cols`. What lies outside the matrix is read as zero and
    /// not written.
    pub fn matrix<T: Element>(
        array: &DeviceArray<T>,
        (rows, cols): (usize, usize),
        stride: usize,
        (box_rows, box_cols): (usize, usize),
    ) -> Result<Self> {
        const OP: &str = "tensor map";
        let size = size_of::<T>();
        let fits = rows > 0
            && cols > 0
            && cols <= stride
            && (rows - 1) * stride + cols <= array.len()
            && (stride * size).is_multiple_of(16)
            && array.address().is_multiple_of(16)
            && box_rows <= 256
            && box_cols <= 256;
        if !fits {
            return Err(CudaError::shape(
                OP,
                "a matrix within its array, rows a multiple of 16 bytes apart",
                format!("{rows}x{cols}, rows {stride} apart, boxes {box_rows}x{box_cols}, in {array:?}"),
            ));
        }
        use sys::CUtensorMapDataType_enum as types;
        let kind = match size {
            1 => types::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2 => types::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => types::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        };
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let extent = [cols as u64, rows as u64];
        let strides = [(stride * size) as u64];
        let block = [box_cols as u32, box_rows as u32];
        let steps = [1u32, 1];
        // SAFETY: the arrays have as many entries as the rank of 2 asks for, and the matrix lies within the array, which the map keeps.
        check(unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                kind,
                2,
                array.address() as *mut c_void,
                extent.as_ptr(),
                strides.as_ptr(),
                block.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        })?;
        Ok(TensorMap {
            map,
            memory: array.memory.clone(),
        })
    }
}
