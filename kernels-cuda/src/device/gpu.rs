//! An open GPU: its context, and the stream on which everything runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cudarc::driver::{result, sys};

use super::error::check;
use super::graph::Recording;
use super::{CudaError, Result};
use crate::driver::initialize;

/// What a GPU is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// As the driver calls it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may ask for.
    pub shared_memory: u32,
    /// Bytes of memory.
    pub memory: u64,
}

impl Properties {
    /// Whether `wgmma` and the bulk tensor copies of Hopper are there (PTX for `sm_90a` runs on 9.0 alone).
    pub fn is_hopper(&self) -> bool {
        self.capability == (9, 0)
    }
}

/// A GPU, open. Clones share it.
#[derive(Clone, Debug)]
pub struct Gpu(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    ordinal: usize,
    device: sys::CUdevice,
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    properties: Properties,
    /// Kernels by the address of their PTX and their name; each is in a library of its own.
    pub(super) functions: Mutex<HashMap<(usize, &'static str), sys::CUfunction>>,
    pub(super) libraries: Mutex<Vec<sys::CUlibrary>>,
    pub(super) recording: Mutex<Recording>,
}

// SAFETY: contexts, streams, libraries and functions are handles that the driver allows any thread to use once the context is current to it,
// which `Gpu::bind` sees to before each call.
unsafe impl Send for Inner {}
// SAFETY: as above; what changes here is behind a mutex.
unsafe impl Sync for Inner {}

impl Gpu {
    /// Opens GPU `ordinal`, counted from 0.
    ///
    /// # Errors
    /// No driver, no such GPU, a driver or a GPU that is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        initialize()?;
        let count = result::device::get_count()? as usize;
        if ordinal >= count {
            return Err(CudaError::NoSuchDevice { ordinal, count });
        }
        let mut version = 0;
        // SAFETY: writes one integer.
        check(unsafe { sys::cuDriverGetVersion(&mut version) })?;
        if version < 13_000 {
            let found = format!("{}.{}", version / 1000, version % 1000 / 10);
            return Err(CudaError::OldDriver { found });
        }
        let device = result::device::get(ordinal as i32)?;
        let properties = properties(device)?;
        if properties.capability.0 < 8 {
            let (major, minor) = properties.capability;
            return Err(CudaError::OldDevice {
                name: properties.name,
                found: format!("{major}.{minor}"),
            });
        }
        // SAFETY: the device is one that the driver has just given.
        let context = unsafe { result::primary_ctx::retain(device)? };
        // SAFETY: the context was retained just now.
        unsafe { result::ctx::set_current(context)? };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        Ok(Gpu(Arc::new(Inner {
            ordinal,
            device,
            context,
            stream,
            properties,
            functions: Mutex::default(),
            libraries: Mutex::default(),
            recording: Mutex::default(),
        })))
    }

    /// The first GPU, or, where there is none, nothing after a line that says that test `name` was skipped.
    #[cfg(test)]
    pub(crate) fn for_test(name: &str) -> Option<Self> {
        match Gpu::open(0) {
            Ok(gpu) => Some(gpu),
            Err(error) => {
                println!("SKIPPED (no GPU): {name}; {error}");
                None
            }
        }
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// What it is.
    pub fn properties(&self) -> &Properties {
        &self.0.properties
    }

    /// Makes its context the one that this thread talks to.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.0.context) }.map_err(CudaError::from)
    }

    /// The stream on which everything runs.
    pub(crate) fn stream(&self) -> sys::CUstream {
        self.0.stream
    }

    /// Waits until everything that was launched is done.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.0.stream) }.map_err(CudaError::from)
    }

    /// Bytes of memory that are free, whoever uses the rest.
    ///
    /// # Errors
    /// The driver's.
    pub fn free_memory(&self) -> Result<u64> {
        self.bind()?;
        Ok(result::mem_get_info()?.0 as u64)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Errors cannot be told from here, and the process gives everything back at its end.
        // SAFETY: handles of this context, destroyed once, after the last user of them.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            for library in self.libraries.get_mut().into_iter().flat_map(|l| l.drain(..)) {
                let _ = sys::cuLibraryUnload(library);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn properties(device: sys::CUdevice) -> Result<Properties> {
    use sys::CUdevice_attribute_enum as attribute;
    // SAFETY: the device is one that the driver has given.
    let get = |a| unsafe { result::device::get_attribute(device, a) };
    Ok(Properties {
        name: result::device::get_name(device)?,
        capability: (
            get(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            get(attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: get(attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        shared_memory: get(attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device)? } as u64,
    })
}
