//! What the NVIDIA driver of this machine reports, if there is one.

use std::fmt;

use cudarc::driver::{result, sys};

use crate::device::{CudaError, Result};

/// What the driver reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it supports, such as `13.0`.
    pub cuda: String,
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

/// Opens the driver, once for all that follows.
pub(crate) fn initialize() -> Result<()> {
    // SAFETY: only opens the shared library and drops it again; loading NVIDIA's driver has no precondition.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    Ok(result::init()?)
}

/// Loads the driver and lists its GPUs.
///
/// # Errors
/// [`CudaError::NoDriver`] where there is none, [`CudaError::Driver`] where it fails.
pub fn driver() -> Result<Driver> {
    initialize()?;
    let count = result::device::get_count()?;
    let devices = (0..count)
        .map(|i| {
            let device = result::device::get(i)?;
            // SAFETY: the device is one that the driver has just given.
            Ok((result::device::get_name(device)?, unsafe {
                result::device::total_mem(device)?
            }))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Driver {
        cuda: supported()?,
        devices,
    })
}

/// The newest CUDA that the driver supports, such as `13.0`, where there is a driver. Nothing is initialised, no GPU is woken: this takes milliseconds.
pub fn cuda_version() -> Option<String> {
    // SAFETY: only opens the shared library and drops it again; loading NVIDIA's driver has no precondition.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    supported().ok()
}

fn supported() -> Result<String> {
    let mut version = 0;
    // SAFETY: writes one integer, and is allowed before the driver is initialised. The library is there: callers have looked.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_version_is_known_where_it_is() {
        match driver() {
            Ok(found) => assert_eq!(cuda_version(), Some(found.cuda)),
            Err(CudaError::NoDriver) => assert_eq!(cuda_version(), None),
            Err(error) => println!("SKIPPED (no GPU): the driver's version; {error}"),
        }
    }

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
