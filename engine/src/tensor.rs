//! The tensor.

use std::fmt;
use std::sync::Arc;

use crate::buffer::Buffer;
use crate::{DType, Device, EngineError, Result, Shape};

#[derive(Clone)]
enum Storage {
    F32(Buffer<f32>),
    I8(Buffer<i8>),
    U32(Buffer<u32>),
}

/// A contiguous, row-major array on a [`Device`]. Clones share memory; [`Tensor::f32_mut`] copies first if shared.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    device: Device,
    storage: Arc<Storage>,
}

impl Tensor {
    fn new(device: Device, shape: Shape, storage: Storage) -> Self {
        Tensor {
            shape,
            device,
            storage: Arc::new(storage),
        }
    }

    /// f32 values in row-major order.
    ///
    /// # Errors
    /// [`EngineError::Length`] if `data` does not fill `shape`.
    pub fn from_f32(device: Device, shape: impl Into<Shape>, data: Vec<f32>) -> Result<Self> {
        let shape = shape.into();
        check_len(data.len(), &shape)?;
        Ok(Self::new(device, shape, Storage::F32(data.into())))
    }

    /// i8 values in row-major order.
    ///
    /// # Errors
    /// [`EngineError::Length`] if `data` does not fill `shape`.
    pub fn from_i8(device: Device, shape: impl Into<Shape>, data: Vec<i8>) -> Result<Self> {
        let shape = shape.into();
        check_len(data.len(), &shape)?;
        Ok(Self::new(device, shape, Storage::I8(data.into())))
    }

    /// Token ids in row-major order.
    ///
    /// # Errors
    /// [`EngineError::Length`] if `data` does not fill `shape`.
    pub fn from_u32(device: Device, shape: impl Into<Shape>, data: Vec<u32>) -> Result<Self> {
        let shape = shape.into();
        check_len(data.len(), &shape)?;
        Ok(Self::new(device, shape, Storage::U32(data.into())))
    }

    /// f32 zeros.
    pub fn zeros(device: Device, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = Buffer::zeroed(shape.elements());
        Self::new(device, shape, Storage::F32(data))
    }

    /// f32 elements all `value`.
    pub fn full(device: Device, shape: impl Into<Shape>, value: f32) -> Self {
        let mut t = Self::for_overwrite(device, shape);
        if let Ok(data) = t.f32_mut() {
            data.fill(value);
        }
        t
    }

    /// f32 elements of unspecified content: the caller writes all of them.
    pub(crate) fn for_overwrite(device: Device, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let data = Buffer::for_overwrite(shape.elements());
        Self::new(device, shape, Storage::F32(data))
    }

    /// i8 elements of unspecified content: the caller writes all of them.
    pub(crate) fn i8_from_buffer(device: Device, shape: Shape, data: Buffer<i8>) -> Self {
        debug_assert_eq!(data.len(), shape.elements());
        Self::new(device, shape, Storage::I8(data))
    }

    /// Extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where the tensor lives.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &*self.storage {
            Storage::F32(_) => DType::F32,
            Storage::I8(_) => DType::I8,
            Storage::U32(_) => DType::U32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.elements()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The f32 elements.
    ///
    /// # Errors
    /// [`EngineError::DType`] for another element type.
    pub fn f32(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::F32(v) => Ok(v),
            _ => Err(self.dtype_error(DType::F32)),
        }
    }

    /// The f32 elements, to write; copied first if another tensor shares them.
    ///
    /// # Errors
    /// [`EngineError::DType`] for another element type.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        let found = self.dtype();
        match Arc::make_mut(&mut self.storage) {
            Storage::F32(v) => Ok(v),
            _ => Err(EngineError::DType {
                op: "tensor",
                expected: DType::F32,
                found,
            }),
        }
    }

    /// The i8 elements.
    ///
    /// # Errors
    /// [`EngineError::DType`] for another element type.
    pub fn i8(&self) -> Result<&[i8]> {
        match &*self.storage {
            Storage::I8(v) => Ok(v),
            _ => Err(self.dtype_error(DType::I8)),
        }
    }

    /// The token ids.
    ///
    /// # Errors
    /// [`EngineError::DType`] for another element type.
    pub fn u32(&self) -> Result<&[u32]> {
        match &*self.storage {
            Storage::U32(v) => Ok(v),
            _ => Err(self.dtype_error(DType::U32)),
        }
    }

    /// The single f32 element of a tensor of one.
    ///
    /// # Errors
    /// [`EngineError::Shape`] if there is not exactly one.
    pub fn item(&self) -> Result<f32> {
        match self.f32()? {
            [x] => Ok(*x),
            _ => Err(crate::error::shape_error("item", "one element", &self.shape)),
        }
    }

    /// The same elements under another shape; shares memory.
    ///
    /// # Errors
    /// [`EngineError::Length`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        check_len(self.len(), &shape)?;
        Ok(Tensor {
            shape,
            device: self.device,
            storage: Arc::clone(&self.storage),
        })
    }

    fn dtype_error(&self, expected: DType) -> EngineError {
        EngineError::DType {
            op: "tensor",
            expected,
            found: self.dtype(),
        }
    }
}

fn check_len(len: usize, shape: &Shape) -> Result<()> {
    if len == shape.elements() {
        Ok(())
    } else {
        Err(EngineError::Length {
            len,
            shape: shape.clone(),
        })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor({:?} {} on {})",
            self.dtype(),
            self.shape,
            self.device.describe()
        )
    }
}
