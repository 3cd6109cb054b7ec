//! What `onebit --version` says: at once, and whatever the machine is.

use onebit_kernels_cpu::Isa;

use crate::gpu;

/// The version of the command.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version, the CPU path in use, and the GPU's driver if there is one, a line each. No GPU is opened.
pub(crate) fn lines() -> String {
    let path = match Isa::from_env() {
        Ok(isa) => isa.name().to_string(),
        Err(_) => "none (ONEBIT_ISA names one that is not here; see onebit doctor)".to_string(),
    };
    let driver = gpu::driver().map_or(String::new(), |driver| format!("GPU driver: {driver}\n"));
    format!("onebit {VERSION}\nCPU path: {path}\n{driver}")
}
