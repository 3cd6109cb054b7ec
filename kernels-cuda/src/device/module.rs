//! PTX in the binary, compiled by the driver for the GPU at hand when a kernel of it is first used.

use std::ffi::CString;

use cudarc::driver::{result, sys};

use super::{Gpu, Result};

/// The PTX of one source.
#[derive(Debug)]
pub(crate) struct Module {
    /// With a zero at its end.
    pub ptx: &'static str,
}

/// A kernel of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub module: &'static Module,
    pub name: &'static str,
}

/// A [`Module`] of the file `$path` beside the source that names it.
macro_rules! ptx {
    ($path:literal) => {
        $crate::device::Module {
            ptx: concat!(include_str!($path), "\0"),
        }
    };
}
pub(crate) use ptx;

impl Module {
    /// Its kernel `name`.
    pub const fn kernel(&'static self, name: &'static str) -> Kernel {
        Kernel { module: self, name }
    }
}

impl Gpu {
    /// The handle of `kernel`, whose module is loaded the first time. A block may use all the shared memory that the GPU allows.
    pub(super) fn function(&self, kernel: Kernel) -> Result<sys::CUfunction> {
        let key = (kernel.module.ptx.as_ptr() as usize, kernel.name);
        let mut loaded = self.0.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(function) = loaded.get(&key) {
            return Ok(*function);
        }
        let mut modules = self.0.modules.lock().unwrap_or_else(|e| e.into_inner());
        let module = match modules.get(&key.0) {
            Some(module) => *module,
            None => {
                // SAFETY: the text ends with a zero, and PTX is what it is.
                let module = unsafe { result::module::load_data(kernel.module.ptx.as_ptr().cast())? };
                modules.insert(key.0, module);
                module
            }
        };
        let name = CString::new(kernel.name).unwrap_or_default();
        // SAFETY: the module stays loaded as long as the GPU is open.
        let function = unsafe { result::module::get_function(module, name)? };
        use sys::CUfunction_attribute_enum as attribute;
        // SAFETY: the function was given just now.
        let fixed = unsafe {
            result::function::get_function_attribute(function, attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?
        };
        let room = self.properties().shared_memory as i32 - fixed;
        // SAFETY: as above.
        unsafe {
            result::function::set_function_attribute(
                function,
                attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                room,
            )?;
        }
        loaded.insert(key, function);
        Ok(function)
    }
}
