//! Where tensors live and operations run: on the CPU. What runs on a GPU is planned as a whole (`onebit_model::network::cuda`), not tensor by tensor.

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
