//! Memory of a GPU, and pinned memory of the host that copies to it without waiting.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytemuck::Pod;
use cudarc::driver::{result, sys};
use half::bf16;

use super::{CudaError, Gpu, Result};

/// What arrays hold.
pub trait Element: Pod + Send + Sync + 'static {}
impl Element for u8 {}
impl Element for i8 {}
impl Element for u32 {}
impl Element for i32 {}
impl Element for u64 {}
impl Element for f32 {}
impl Element for bf16 {}

/// A piece of device memory, freed when its last array is gone.
pub(crate) struct Allocation {
    /// None where memory is only planned.
    gpu: Option<Gpu>,
    address: sys::CUdeviceptr,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(gpu) = &self.gpu {
            // SAFETY: allocated by `Gpu::uninitialized` and freed once; the driver waits for work in progress first.
            let _ = gpu.bind().map(|()| unsafe { result::free_sync(self.address) });
        }
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

/// `len` elements in the memory of a GPU. Clones and slices share the memory; the stream's order says who writes when.
pub struct DeviceArray<T> {
    pub(crate) memory: Arc<Allocation>,
    /// In bytes from the allocation's beginning.
    offset: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Clone for DeviceArray<T> {
    fn clone(&self) -> Self {
        DeviceArray {
            memory: self.memory.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for DeviceArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{}; {}] at {:#x}",
            std::any::type_name::<T>(),
            self.len,
            self.address()
        )
    }
}

impl<T> DeviceArray<T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// # Panics
    /// An array that is only planned.
    pub(crate) fn address(&self) -> sys::CUdeviceptr {
        assert!(
            self.memory.gpu.is_some(),
            "an array that is only planned has no address"
        );
        self.memory.address + self.offset as u64
    }
}

impl<T: Element> DeviceArray<T> {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Elements `range`, in the same memory.
    ///
    /// # Panics
    /// A range outside the array.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let Range { start, end } = range_of(range, self.len);
        assert!(start <= end && end <= self.len, "{start}..{end} of {}", self.len);
        DeviceArray {
            memory: self.memory.clone(),
            offset: self.offset + start * size_of::<T>(),
            len: end - start,
            element: PhantomData,
        }
    }

    /// The same bytes as elements of another type.
    ///
    /// # Panics
    /// Bytes that are no whole number of elements, or not aligned for them.
    pub fn cast<U: Element>(&self) -> DeviceArray<U> {
        assert!(
            self.bytes().is_multiple_of(size_of::<U>()) && self.offset.is_multiple_of(size_of::<U>()),
            "{self:?} as {}",
            std::any::type_name::<U>()
        );
        DeviceArray {
            memory: self.memory.clone(),
            offset: self.offset,
            len: self.bytes() / size_of::<U>(),
            element: PhantomData,
        }
    }
}

/// One piece of device memory that arrays are cut out of, one behind the other; or the plan of one, which knows how large it will be.
///
/// A function that takes its arrays from an arena runs twice: first on a plan, which tells how much memory there must be, then on the memory.
#[derive(Debug)]
pub struct Arena {
    memory: Arc<Allocation>,
    bytes: usize,
    used: usize,
}

impl Arena {
    /// Bytes that every array begins at a multiple of: what 16-byte accesses and bulk tensor copies want.
    pub const ALIGNMENT: usize = 256;

    /// A plan. Its arrays have lengths and no memory; no kernel can be given them.
    pub fn plan() -> Self {
        Arena {
            memory: Arc::new(Allocation { gpu: None, address: 0 }),
            bytes: usize::MAX,
            used: 0,
        }
    }

    /// `bytes` of the memory of `gpu`, with every byte 0.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let all = gpu.zeros::<u8>(bytes)?;
        Ok(Arena {
            memory: all.memory,
            bytes,
            used: 0,
        })
    }

    /// The next `len` elements.
    ///
    /// # Panics
    /// An arena that is smaller than its plan.
    pub fn take<T: Element>(&mut self, len: usize) -> DeviceArray<T> {
        let offset = self.used;
        self.used += (len * size_of::<T>()).next_multiple_of(Self::ALIGNMENT);
        assert!(
            self.used <= self.bytes,
            "an arena of {} bytes, of which {} are taken",
            self.bytes,
            self.used
        );
        DeviceArray {
            memory: self.memory.clone(),
            offset,
            len,
            element: PhantomData,
        }
    }

    /// Bytes that were taken.
    pub fn used(&self) -> usize {
        self.used
    }
}

fn range_of(range: impl RangeBounds<usize>, len: usize) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&i) => i,
        Bound::Excluded(&i) => i + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&i) => i + 1,
        Bound::Excluded(&i) => i,
        Bound::Unbounded => len,
    };
    start..end
}

impl Gpu {
    /// `len` elements whose values are whatever was there.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn uninitialized<T: Element>(&self, len: usize) -> Result<DeviceArray<T>> {
        self.bind()?;
        let bytes = len * size_of::<T>();
        // SAFETY: at least one byte is asked for; who writes it first is the caller's affair, and bytes are valid elements whatever they are.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory {
                needed: bytes as u64,
                free: self.free_memory().unwrap_or(0),
            },
            _ => error.into(),
        })?;
        Ok(DeviceArray {
            memory: Arc::new(Allocation {
                gpu: Some(self.clone()),
                address,
            }),
            offset: 0,
            len,
            element: PhantomData,
        })
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn zeros<T: Element>(&self, len: usize) -> Result<DeviceArray<T>> {
        let array = self.uninitialized(len)?;
        self.fill_bytes(&array, 0)?;
        Ok(array)
    }

    /// `len` elements of which every byte is 0xFF, which is no number for floats: what a test writes results over.
    #[cfg(test)]
    pub(crate) fn poisoned<T: Element>(&self, len: usize) -> Result<DeviceArray<T>> {
        let array = self.uninitialized(len)?;
        self.fill_bytes(&array, 0xff)?;
        Ok(array)
    }

    /// Sets every byte of `array`.
    ///
    /// # Errors
    /// The driver's.
    pub fn fill_bytes<T: Element>(&self, array: &DeviceArray<T>, value: u8) -> Result<()> {
        if array.is_empty() {
            return Ok(());
        }
        self.bind()?;
        self.keep(&array.memory);
        // SAFETY: the array's own bytes.
        unsafe { result::memset_d8_async(array.address(), value, array.bytes(), self.0.stream) }
            .map_err(CudaError::from)
    }

    /// A copy of `values` on the GPU.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<DeviceArray<T>> {
        let array = self.uninitialized(values.len())?;
        self.write(&array, values)?;
        Ok(array)
    }

    /// Copies `values` over `array`, and waits until they are there.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn write<T: Element>(&self, array: &DeviceArray<T>, values: &[T]) -> Result<()> {
        super::error::need("write", "values", array.len(), values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the lengths are equal, and the copy is over before `values` can go.
        unsafe { result::memcpy_htod_async(array.address(), values, self.0.stream)? };
        self.synchronize()
    }

    /// The values of `array`, after everything that was launched.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn download<T: Element>(&self, array: &DeviceArray<T>) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); array.len()];
        if !values.is_empty() {
            self.bind()?;
            // SAFETY: the lengths are equal, and the copy is over before `values` is given away.
            unsafe { result::memcpy_dtoh_async(&mut values, array.address(), self.0.stream)? };
            self.synchronize()?;
        }
        Ok(values)
    }

    /// Copies `from` over `to` on the GPU.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn copy<T: Element>(&self, from: &DeviceArray<T>, to: &DeviceArray<T>) -> Result<()> {
        super::error::need("copy", "destination", from.len(), to.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.bind()?;
        self.keep(&from.memory);
        self.keep(&to.memory);
        // SAFETY: both arrays have these bytes.
        unsafe { result::memcpy_dtod_async(to.address(), from.address(), from.bytes(), self.0.stream) }
            .map_err(CudaError::from)
    }

    /// `len` zeros in pinned memory of the host.
    ///
    /// # Errors
    /// The driver's.
    pub fn pinned<T: Element>(&self, len: usize) -> Result<Pinned<T>> {
        self.bind()?;
        // SAFETY: at least one byte.
        let memory = unsafe { result::malloc_host((len * size_of::<T>()).max(1), 0)? }.cast::<T>();
        // SAFETY: fresh memory of that length; zero is a valid element.
        unsafe { memory.write_bytes(0, len) };
        Ok(Pinned {
            gpu: self.clone(),
            memory,
            len,
        })
    }

    /// Starts copying `values` over `array`; they must not be changed before the stream has come that far.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn write_pinned<T: Element>(&self, array: &DeviceArray<T>, values: &Pinned<T>) -> Result<()> {
        super::error::need("write_pinned", "values", array.len(), values.len)?;
        self.bind()?;
        self.keep(&array.memory);
        // SAFETY: the lengths are equal; pinned memory is freed only after the stream has come to rest.
        unsafe { result::memcpy_htod_async(array.address(), values.as_slice(), self.0.stream) }.map_err(CudaError::from)
    }

    /// Starts copying `array` over `values`; they are there once an [`Event`](super::Event) recorded after this is done.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn read_pinned<T: Element>(&self, array: &DeviceArray<T>, values: &mut Pinned<T>) -> Result<()> {
        super::error::need("read_pinned", "values", array.len(), values.len)?;
        self.bind()?;
        self.keep(&array.memory);
        // SAFETY: the lengths are equal; pinned memory is freed only after the stream has come to rest.
        unsafe { result::memcpy_dtoh_async(values.as_mut_slice(), array.address(), self.0.stream) }
            .map_err(CudaError::from)
    }
}

/// Memory of the host that the GPU copies from and to by itself.
pub struct Pinned<T: Element> {
    gpu: Gpu,
    memory: *mut T,
    len: usize,
}

// SAFETY: it owns its memory, like a `Vec`.
unsafe impl<T: Element> Send for Pinned<T> {}

impl<T: Element> Pinned<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` initialised elements that it owns.
        unsafe { std::slice::from_raw_parts(self.memory, self.len) }
    }

    /// The values, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised elements that it owns, borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.len) }
    }
}

impl<T: Element> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _ = self.gpu.synchronize();
        // SAFETY: allocated by `Gpu::pinned` and freed once; no copy is under way.
        let _ = unsafe { result::free_host(self.memory.cast()) };
    }
}

impl<T: Element> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pinned [{}; {}]", std::any::type_name::<T>(), self.len)
    }
}
