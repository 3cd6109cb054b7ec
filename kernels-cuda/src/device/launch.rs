//! Launching a kernel.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::error::check;
use super::{CudaError, DeviceArray, Element, Gpu, Kernel, Module, Result, TensorMap};

/// One argument, by value.
enum Argument {
    Word([u8; 8]),
    Map(Box<TensorMap>),
}

/// A launch that is put together argument by argument, in the order of the kernel's parameters.
pub(crate) struct Launch<'a> {
    gpu: &'a Gpu,
    kernel: Kernel,
    arguments: Vec<Argument>,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    programmatic: bool,
    /// A size that the kernel's integers cannot hold.
    too_large: Option<usize>,
}

impl<'a> Launch<'a> {
    /// A launch of `kernel` on `grid` blocks of `block` threads.
    pub fn new(gpu: &'a Gpu, kernel: Kernel, grid: [u32; 3], block: u32) -> Self {
        Launch {
            gpu,
            kernel,
            arguments: Vec::new(),
            grid,
            block,
            shared: 0,
            programmatic: false,
            too_large: None,
        }
    }

    /// A launch of kernel `name`: of `overlapped`, beginning early, where the GPU can (compute capability 9.0), else of `plain`.
    pub fn chained(
        gpu: &'a Gpu,
        [plain, overlapped]: [&'static Module; 2],
        name: &'static str,
        [x, y]: [usize; 2],
        block: u32,
    ) -> Self {
        let overlaps = gpu.properties().capability.0 >= 9;
        let module = if overlaps { overlapped } else { plain };
        let kernel = Kernel {
            module,
            name,
            chained: true,
        };
        let launch = Launch::new(gpu, kernel, [x as u32, y as u32, 1], block);
        if overlaps { launch.programmatic() } else { launch }
    }

    /// As many such grids, numbered by the third index of a block.
    pub fn times(mut self, grids: usize) -> Self {
        self.grid[2] = grids as u32;
        self
    }

    /// Bytes of dynamic shared memory.
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes as u32;
        self
    }

    /// Lets the kernel begin before the one ahead of it has ended; it waits by itself (`griddepcontrol.wait`) before it reads what that one writes.
    pub fn programmatic(mut self) -> Self {
        self.programmatic = true;
        self
    }

    /// A pointer parameter.
    pub fn array<T: Element>(mut self, array: &DeviceArray<T>) -> Self {
        self.gpu.keep(&array.memory);
        self.arguments.push(Argument::Word(array.address().to_ne_bytes()));
        self
    }

    /// A pointer parameter that may be null.
    pub fn optional<T: Element>(self, array: Option<&DeviceArray<T>>) -> Self {
        match array {
            Some(array) => self.array(array),
            None => self.u64(0),
        }
    }

    /// An `unsigned` or `uint32_t` parameter; one that does not fit makes [`Launch::run`] refuse.
    pub fn u32(mut self, value: usize) -> Self {
        let narrow = u32::try_from(value).unwrap_or_else(|_| {
            self.too_large = Some(value);
            u32::MAX
        });
        self.word(&narrow.to_ne_bytes())
    }

    /// A `uint64_t` or `size_t` parameter.
    pub fn u64(self, value: u64) -> Self {
        self.word(&value.to_ne_bytes())
    }

    /// A `float` parameter.
    pub fn f32(self, value: f32) -> Self {
        self.word(&value.to_ne_bytes())
    }

    /// A `const __grid_constant__ CUtensorMap` parameter.
    pub fn map(mut self, map: TensorMap) -> Self {
        self.gpu.keep(&map.memory);
        self.arguments.push(Argument::Map(Box::new(map)));
        self
    }

    fn word(mut self, bytes: &[u8]) -> Self {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.arguments.push(Argument::Word(word));
        self
    }

    /// Launches it. An empty grid is nothing to do.
    ///
    /// # Errors
    /// [`CudaError::Shape`] if a size was too large for the kernel, or the driver's.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in number, order and type, and what it reads and writes lies within the arrays.
    pub unsafe fn run(mut self) -> Result<()> {
        if self.grid.contains(&0) || self.gpu.note(self.kernel) {
            return Ok(());
        }
        if let Some(size) = self.too_large {
            let found = size.to_string();
            return Err(CudaError::shape("launch", "sizes below 2^32", found));
        }
        self.gpu.bind()?;
        let function = self.gpu.function(self.kernel)?;
        let mut parameters: Vec<*mut c_void> = self
            .arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Word(word) => word.as_mut_ptr().cast(),
                Argument::Map(map) => (&raw mut map.map).cast(),
            })
            .collect();
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: self.gpu.0.stream,
            attrs: &mut attribute,
            numAttrs: u32::from(self.programmatic),
        };
        // SAFETY: the caller's promise; the driver copies the parameters before it returns.
        check(unsafe { sys::cuLaunchKernelEx(&config, function, parameters.as_mut_ptr(), std::ptr::null_mut()) })
    }
}
