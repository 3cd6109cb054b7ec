//! The GPU of a build that has CUDA, and what stands for it in one that has none.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod driver;
#[cfg(not(feature = "cuda"))]
mod none;

#[cfg(feature = "train")]
pub(crate) use cuda::count;
#[cfg(feature = "cuda")]
pub(crate) use cuda::{Gpu, describe, find, open};
#[cfg(feature = "cuda")]
pub(crate) use driver::driver;
#[cfg(not(feature = "cuda"))]
pub(crate) use none::{Gpu, describe, driver, find, open};
