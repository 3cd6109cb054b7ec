//! The CUDA side of OneBit-LLM: the NVIDIA driver, found at run time.
//!
//! Nothing of CUDA is needed to build or to start: `libcuda` is looked for when [`driver`] is called, and a machine
//! without it gets a plain [`CudaError::NoDriver`].

use std::fmt;

use cudarc::driver::{CudaContext, DriverError, sys};

/// Why CUDA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// `libcuda` is not on this machine.
    #[error("no NVIDIA driver on this machine (libcuda was not found)")]
    NoDriver,
    /// The driver is there but answered with an error.
    #[error("the NVIDIA driver failed: {0}")]
    Driver(#[from] DriverError),
}

/// What the driver reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Name and memory in bytes of each GPU.
    pub devices: Vec<(String, usize)>,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, bytes)) in self.devices.iter().enumerate() {
            let separator = if i > 0 { ", " } else { "" };
            write!(f, "{separator}cuda:{i} {name} ({} MiB)", bytes >> 20)?;
        }
        Ok(())
    }
}

/// Loads the driver and lists its GPUs.
///
/// # Errors
/// [`CudaError::NoDriver`] where there is none, [`CudaError::Driver`] where it fails.
pub fn driver() -> Result<Driver, CudaError> {
    // SAFETY: only opens the shared library and drops it again; loading NVIDIA's driver has no precondition.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    let count = CudaContext::device_count()?;
    let devices = (0..count)
        .map(|i| {
            let context = CudaContext::new(i as usize)?;
            Ok((context.name()?, context.total_mem()?))
        })
        .collect::<Result<Vec<_>, DriverError>>()?;
    Ok(Driver { devices })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        match driver() {
            Ok(found) => println!("driver found: {found}"),
            Err(error) => {
                println!("SKIPPED (no GPU): listing devices; {error}");
                assert!(error.to_string().contains("NVIDIA driver"));
            }
        }
    }
}
