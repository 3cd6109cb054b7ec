//! PTX in the binary, of which the driver compiles for the GPU at hand what is used: a kernel when it is first launched, those of a recording at the same time.
//!
//! Each kernel is loaded as a library (`cuLibraryLoadData`), because the driver compiles several of those side by side: the 45 kernels of a training step take 6.0 s with one thread
//! and 0.7 s with sixteen (an H200's host). As modules (`cuModuleLoadData`) they wait for each other: 6.3 s with one thread, 7.0 s with sixteen.

use std::collections::HashSet;
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::{result, sys};

use super::error::check;
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
    /// Whether it runs beside the kernels ahead of and behind it ([`Launch::chained`](super::Launch::chained)). Those must divide a multiprocessor's memory between shared memory and
    /// first-level cache alike, or it has to be empty before it takes the next; they ask for as much shared memory as there is.
    pub chained: bool,
}

impl Kernel {
    fn key(&self) -> (usize, &'static str) {
        (self.module.ptx.as_ptr() as usize, self.name)
    }
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
        Kernel {
            module: self,
            name,
            chained: false,
        }
    }
}

/// The part of `ptx` that is kernel `name`: a module of its own, so that the driver compiles what is launched and nothing else. Kernels have nothing in common but
/// what stands before the first of them and names of dynamic shared memory.
fn only(ptx: &str, name: &str) -> String {
    let mut kept = String::new();
    let mut keep = true;
    for line in ptx.trim_end_matches('\0').lines() {
        if let Some(entry) = line.strip_prefix(".visible .entry ") {
            keep = entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('('));
        }
        if keep || line.starts_with(".extern .shared") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

impl Gpu {
    /// The handle of `kernel`, which is compiled the first time.
    pub(super) fn function(&self, kernel: Kernel) -> Result<sys::CUfunction> {
        if let Some(function) = self.compiled(kernel) {
            return Ok(function);
        }
        let function = self.compile(kernel)?;
        let mut functions = self.0.functions.lock().unwrap_or_else(|e| e.into_inner());
        Ok(*functions.entry(kernel.key()).or_insert(function))
    }

    fn compiled(&self, kernel: Kernel) -> Option<sys::CUfunction> {
        let functions = self.0.functions.lock().unwrap_or_else(|e| e.into_inner());
        functions.get(&kernel.key()).copied()
    }

    /// Compiles those of `kernels` that have not been yet, as many at a time as there are cores.
    pub(super) fn prepare(&self, kernels: &[Kernel]) -> Result<()> {
        let mut seen = HashSet::new();
        let missing: Vec<Kernel> = kernels
            .iter()
            .filter(|k| seen.insert(k.key()) && self.compiled(**k).is_none())
            .copied()
            .collect();
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some(kernel) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.function(*kernel) {
                    failed.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(missing.len()) {
                scope.spawn(work);
            }
            work();
        });
        failed
            .into_inner()
            .unwrap_or_else(|e| e.into_inner())
            .map_or(Ok(()), Err)
    }

    /// A block may use all the shared memory that the GPU allows.
    fn compile(&self, kernel: Kernel) -> Result<sys::CUfunction> {
        self.bind()?;
        let text = |text: String| CString::new(text).unwrap_or_default();
        let (ptx, name) = (text(only(kernel.module.ptx, kernel.name)), text(kernel.name.into()));
        let (mut library, mut handle, mut function) = (null_mut(), null_mut(), null_mut());
        // SAFETY: the text ends with a zero, PTX is what it is, and there are no options.
        check(unsafe {
            let code = ptx.as_ptr().cast();
            sys::cuLibraryLoadData(&mut library, code, null_mut(), null_mut(), 0, null_mut(), null_mut(), 0)
        })?;
        self.0.libraries.lock().unwrap_or_else(|e| e.into_inner()).push(library);
        // SAFETY: the library stays loaded as long as the GPU is open, and the name ends with a zero.
        check(unsafe { sys::cuLibraryGetKernel(&mut handle, library, name.as_ptr()) })?;
        // SAFETY: the kernel was given just now, and the context is current.
        check(unsafe { sys::cuKernelGetFunction(&mut function, handle) })?;
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
            if kernel.chained {
                let most = sys::CUshared_carveout::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as i32;
                result::function::set_function_attribute(
                    function,
                    attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                    most,
                )?;
            }
        }
        Ok(function)
    }
}

#[cfg(test)]
mod tests {
    use super::only;

    const PTX: &str = ".version 9.0\n.extern .shared .b8 a[];\n.visible .entry one(\n\t.param .u32 x\n)\n{\n\tret;\n\n}\n\t// .globl\tone_more\n\
                       .visible .entry one_more()\n{\n}\n.extern .shared .b8 b[];\n.visible .entry two()\n{\n\texit;\n}\n\0";

    #[test]
    fn a_kernel_is_cut_out_with_what_all_share() {
        let head = ".version 9.0\n.extern .shared .b8 a[];\n";
        let one = ".visible .entry one(\n\t.param .u32 x\n)\n{\n\tret;\n\n}\n\t// .globl\tone_more\n";
        assert_eq!(only(PTX, "one"), format!("{head}{one}.extern .shared .b8 b[];\n"));
        let two = ".visible .entry two()\n{\n\texit;\n}\n";
        assert_eq!(only(PTX, "two"), format!("{head}.extern .shared .b8 b[];\n{two}"));
        assert_eq!(only(PTX, "none"), format!("{head}.extern .shared .b8 b[];\n"));
    }
}
