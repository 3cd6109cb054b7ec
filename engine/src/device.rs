//! Where tensors live and operations run.

use crate::{EngineError, Isa, Result};

/// A device. Holding one proves that it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU, on one of its instruction sets.
    Cpu(Isa),
}

impl Device {
    /// The CPU with its fastest path, or the one that `ONEBIT_ISA` names.
    ///
    /// # Errors
    /// [`EngineError::Isa`] if the variable names a path that this CPU lacks.
    pub fn cpu() -> Result<Device> {
        Isa::from_env().map(Device::Cpu).map_err(|_| EngineError::Isa {
            name: std::env::var("ONEBIT_ISA").unwrap_or_default(),
            available: Isa::available().map(Isa::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The device that `--device` names: `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// [`EngineError::Device`] for a name that is none of these, or for CUDA, whose kernels this version does not hold.
    pub fn by_name(name: &str) -> Result<Device> {
        match name {
            "auto" | "cpu" => Self::cpu(),
            _ if name == "cuda" || name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u32>().is_ok()) => {
                let why = match onebit_kernels_cuda::driver() {
                    Ok(driver) => format!(
                        "{driver} is present, but this version trains and runs on the CPU alone; use --device cpu"
                    ),
                    Err(error) => format!("{error}; use --device cpu"),
                };
                Err(EngineError::Device { name: name.into(), why })
            }
            _ => Err(EngineError::Device {
                name: name.into(),
                why: "expected auto, cpu, cuda or cuda:N".into(),
            }),
        }
    }

    /// The instruction set that kernels use.
    pub fn isa(self) -> Isa {
        let Device::Cpu(isa) = self;
        isa
    }

    /// One line that names the device: `cpu (avx512vnni, 2 threads)`.
    pub fn describe(self) -> String {
        format!("cpu ({}, {} threads)", self.isa().name(), rayon::current_num_threads())
    }
}
