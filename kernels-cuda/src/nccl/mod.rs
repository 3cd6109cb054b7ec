//! Sums and exchanges between GPUs: NCCL, found at run time.
//!
//! A [`Communicator`] is one process's place among those that train one model, a GPU each. Its operations run on a stream of their own, beside what the GPU computes:
//! [`Communicator::fork`] makes it wait for all that was launched so far, [`Communicator::join`] makes the GPU's own stream wait for all that was asked of it. Between the two
//! the GPU goes on computing, so the sum of one block's gradients is under way while the next block's are being made. All of it can be recorded ([`crate::Graph`]).
//!
//! **Everything is in place**, over an array that all ranks have at the same length:
//!
//! ```text
//! all_reduce       every rank has the sums                                        2·(W−1)/W bytes on the wire a byte
//! reduce_scatter   rank r has the sums of the r-th of W equal parts                 (W−1)/W
//! all_gather       every rank has what rank r had in the r-th part                  (W−1)/W
//! ```
//!
//! **Determinism.** NCCL adds in an order that follows from the number of ranks, the links between them and its own settings, not from timing; so the same job on the same machines gives the same
//! bytes, and of two numbers the sum is one whatever the order.
//!
//! **The library.** `libnccl.so.2` is looked for when the first communicator is made, as `libcuda` is; `ONEBIT_NCCL` names another file. The types are cudarc's; the functions are looked up
//! here, because cudarc looks for `libnccl.so` alone, which machines without NCCL's headers do not have, and ends the program if a function is missing.
//!
//! A communicator goes when the recordings of its operations have: NCCL waits for that.
//!
//! A rank that ends lets the operations of the others wait for ever: who uses this must watch the ranks by other means, and end the process.

mod library;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard};

use cudarc::driver::{result, sys};
use cudarc::nccl::sys::{ncclComm_t, ncclDataType_t, ncclRedOp_t, ncclUniqueId};
use half::bf16;

use crate::device::{CudaError, DeviceArray, Element, Gpu, Result};
use library::{Library, library};

/// What ranks add up.
pub trait Summed: Element {
    #[doc(hidden)]
    const TYPE: ncclDataType_t;
}
impl Summed for f32 {
    const TYPE: ncclDataType_t = ncclDataType_t::ncclFloat32;
}
impl Summed for bf16 {
    const TYPE: ncclDataType_t = ncclDataType_t::ncclBfloat16;
}
impl Summed for u32 {
    const TYPE: ncclDataType_t = ncclDataType_t::ncclUint32;
}

/// What the ranks of one communicator find each other by: made by one of them, brought to the others by other means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(ncclUniqueId);

impl std::fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UniqueId")
    }
}

impl UniqueId {
    /// Bytes of one.
    pub const BYTES: usize = 128;

    /// A new one.
    ///
    /// # Errors
    /// [`CudaError::NoNccl`]; no network device that NCCL can use.
    pub fn new() -> Result<Self> {
        let library = library()?;
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes 128 bytes.
        library.check("ncclGetUniqueId", unsafe { (library.get_unique_id)(&mut id) })?;
        Ok(UniqueId(id))
    }

    /// Its bytes, for the others.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.internal.map(|c| c as u8)
    }

    /// That of these bytes.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        UniqueId(ncclUniqueId {
            internal: bytes.map(|b| b as std::ffi::c_char),
        })
    }
}

/// The version of the NCCL that is found, such as `2.28.3`.
///
/// # Errors
/// [`CudaError::NoNccl`].
pub fn version() -> Result<String> {
    let library = library()?;
    Ok(library.version_text())
}

/// One rank's end of the links between GPUs.
#[derive(Debug)]
pub struct Communicator {
    gpu: Gpu,
    library: &'static Library,
    communicator: ncclComm_t,
    stream: sys::CUstream,
    /// The mark of [`fork`](Self::fork), and that of [`join`](Self::join).
    events: [sys::CUevent; 2],
    /// Held while NCCL is called.
    calls: Mutex<()>,
    rank: usize,
    size: usize,
}

// SAFETY: handles that any thread may use, one at a time.
unsafe impl Send for Communicator {}
// SAFETY: every use of NCCL's handle, which only one thread may have at a time, is under `calls`; the driver's handles are any thread's.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Joins the `size` ranks that know `id`, as number `rank`; waits until all of them have come.
    ///
    /// # Errors
    /// [`CudaError::NoNccl`], what NCCL finds wrong with the links.
    pub fn new(gpu: &Gpu, id: &UniqueId, rank: usize, size: usize) -> Result<Self> {
        if rank >= size || size > i32::MAX as usize {
            return Err(CudaError::shape("ranks", format!("a rank below {size}"), rank));
        }
        let library = library()?;
        gpu.bind()?;
        let mut communicator: ncclComm_t = std::ptr::null_mut();
        // SAFETY: the context is current; the numbers fit.
        let answer = unsafe { (library.comm_init_rank)(&mut communicator, size as i32, id.0, rank as i32) };
        library.check("ncclCommInitRank", answer)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let event = || result::event::create(sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING);
        Ok(Communicator {
            gpu: gpu.clone(),
            library,
            communicator,
            stream,
            events: [event()?, event()?],
            calls: Mutex::default(),
            rank,
            size,
        })
    }

    /// This process's number.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The part of an array of `len` elements, which must be as many equal parts as there are ranks, that [`reduce_scatter`](Self::reduce_scatter) leaves here.
    pub fn part(&self, len: usize) -> std::ops::Range<usize> {
        let part = len / self.size;
        self.rank * part..(self.rank + 1) * part
    }

    /// Lets what is asked for from here on begin when everything that was launched so far is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn fork(&self) -> Result<()> {
        self.order(self.gpu.stream(), self.stream, self.events[0])
    }

    /// Lets what is launched from here on begin when everything that was asked for is done.
    ///
    /// # Errors
    /// The driver's.
    pub fn join(&self) -> Result<()> {
        self.order(self.stream, self.gpu.stream(), self.events[1])
    }

    /// Lets `second` wait for what is on `first` now. A mark may be set anew as soon as it is waited for: who waits has what it was.
    fn order(&self, first: sys::CUstream, second: sys::CUstream, event: sys::CUevent) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: the handles are live.
        unsafe {
            result::event::record(event, first)?;
            result::stream::wait_event(second, event, sys::CUevent_wait_flags_enum::CU_EVENT_WAIT_DEFAULT)?;
        }
        Ok(())
    }

    /// Adds up `array` over all ranks.
    ///
    /// # Errors
    /// NCCL's.
    pub fn all_reduce<T: Summed>(&self, array: &DeviceArray<T>) -> Result<()> {
        let Some(_call) = self.begins(array)? else {
            return Ok(());
        };
        let at = array.address() as *mut std::ffi::c_void;
        // SAFETY: the array has these elements, and is kept by whoever launches.
        let answer = unsafe {
            let sum = ncclRedOp_t::ncclSum;
            (self.library.all_reduce)(at, at, array.len(), T::TYPE, sum, self.communicator, self.stream.cast())
        };
        self.library.check("ncclAllReduce", answer)
    }

    /// Adds up `array` over all ranks; only this rank's [`part`](Self::part) has the sums; the rest stays as it was, for NCCL takes it as constant.
    ///
    /// # Errors
    /// A length that is no multiple of the number of ranks; NCCL's.
    pub fn reduce_scatter<T: Summed>(&self, array: &DeviceArray<T>) -> Result<()> {
        self.check_parts("reduce_scatter", array.len())?;
        let Some(_call) = self.begins(array)? else {
            return Ok(());
        };
        let part = array.slice(self.part(array.len()));
        let (from, to) = (
            array.address() as *const std::ffi::c_void,
            part.address() as *mut std::ffi::c_void,
        );
        // SAFETY: the arrays have these elements, and the part is where NCCL wants it for an operation in place.
        let answer = unsafe {
            let sum = ncclRedOp_t::ncclSum;
            (self.library.reduce_scatter)(
                from,
                to,
                part.len(),
                T::TYPE,
                sum,
                self.communicator,
                self.stream.cast(),
            )
        };
        self.library.check("ncclReduceScatter", answer)
    }

    /// Brings every rank's [`part`](Self::part) of `array` to all.
    ///
    /// # Errors
    /// A length that is no multiple of the number of ranks; NCCL's.
    pub fn all_gather<T: Element>(&self, array: &DeviceArray<T>) -> Result<()> {
        self.check_parts("all_gather", array.len())?;
        let Some(_call) = self.begins(array)? else {
            return Ok(());
        };
        let part = array.slice(self.part(array.len()));
        let (from, to) = (
            part.address() as *const std::ffi::c_void,
            array.address() as *mut std::ffi::c_void,
        );
        // SAFETY: as above; bytes are bytes whatever they stand for.
        let answer = unsafe {
            let bytes = ncclDataType_t::ncclUint8;
            (self.library.all_gather)(from, to, part.bytes(), bytes, self.communicator, self.stream.cast())
        };
        self.library.check("ncclAllGather", answer)
    }

    fn check_parts(&self, op: &'static str, len: usize) -> Result<()> {
        if len.is_multiple_of(self.size) {
            return Ok(());
        }
        Err(CudaError::shape(
            op,
            format!("a multiple of {} elements", self.size),
            len,
        ))
    }

    /// The right to call NCCL, if an operation on `array` has anything to do; not where a recording only looks for kernels.
    fn begins<T: Element>(&self, array: &DeviceArray<T>) -> Result<Option<MutexGuard<'_, ()>>> {
        if array.is_empty() || self.gpu.notes_kernels() {
            return Ok(None);
        }
        self.gpu.bind()?;
        self.gpu.keep(&array.memory);
        Ok(Some(self.calls.lock().unwrap_or_else(|e| e.into_inner())))
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // A rank that is lost keeps the others' operations from ending, and with them everything below: whoever notices that ends the process.
        if self.gpu.bind().is_err() {
            return;
        }
        // SAFETY: handles of this communicator, used by nothing any more once its stream is at rest.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            let _ = (self.library.comm_destroy)(self.communicator);
            for event in self.events {
                let _ = result::event::destroy(event);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}
