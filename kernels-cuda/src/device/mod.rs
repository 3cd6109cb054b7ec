//! A GPU as the rest of the crate sees it: memory, modules, launches, recordings of them, and time.

mod error;
mod event;
mod gpu;
mod graph;
mod launch;
mod memory;
mod module;
mod staging;
mod tensor_map;
#[cfg(test)]
mod tests;

pub(crate) use error::need;
pub use error::{CudaError, Result};
pub use event::Event;
pub use gpu::{Gpu, Properties};
pub use graph::Graph;
pub(crate) use launch::Launch;
pub use memory::{Arena, DeviceArray, Element, Pinned};
pub(crate) use module::{Kernel, Module, ptx};
pub use staging::Staging;
pub(crate) use tensor_map::TensorMap;
