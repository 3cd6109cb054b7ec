//! The CUDA side of OneBit-LLM: every kernel's source, its PTX, and the functions that launch it.
//!
//! **Nothing of CUDA is needed to build or to start.** PTX is compiled beforehand (`build-ptx.sh`), committed, and part of the binary; `libcuda` is
//! looked for when a [`Gpu`] is opened, and a machine without it gets a plain [`CudaError::NoDriver`].
//!
//! **A folder per operation**: `kernel.cu` with the maths and the cost on top, `mod.rs` with the function that launches it, its PTX, and tests against a CPU twin.
//! `common/` holds what kernels share. A launch function is safe: it compares the lengths of its [`DeviceArray`]s with what the kernel will touch, and returns
//! [`CudaError::Shape`] rather than start one that would leave them.
//!
//! **Order.** A [`Gpu`] has one stream, on which launches and copies run one after the other; nothing waits for the host but [`Gpu::synchronize`] and downloads.
//! A [`Graph`] is a recording of launches that runs again as one.
//!
//! **Determinism.** No kernel adds floats in an order that depends on timing: there are no float atomics, and reductions over blocks go through a buffer
//! and a second kernel. Equal inputs give equal bytes.
//!
//! ```
//! use onebit_kernels_cuda::{CudaError, Gpu};
//!
//! match Gpu::open(0) {
//!     Ok(gpu) => {
//!         let numbers = gpu.upload(&[1.0f32, 2.0, 3.0])?;
//!         assert_eq!(gpu.download(&numbers)?, [1.0, 2.0, 3.0]);
//!     }
//!     // A machine without a GPU is no error of the program's.
//!     Err(error) => println!("the CPU does the work: {error}"),
//! }
//! # Ok::<(), CudaError>(())
//! ```

pub mod activation;
pub mod attention;
pub mod chain_gemv;
pub mod cross_entropy;
pub mod decode;
pub mod device;
mod driver;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
pub mod mixed_linear;
pub mod nccl;
pub mod optimizer;
pub mod quantize;
pub mod rms_norm;
pub mod rope;
pub mod shards;
pub mod ternary_gemm;
pub mod ternary_gemv;
pub mod weights;

pub use device::{Arena, CudaError, DeviceArray, Element, Event, Gpu, Graph, Pinned, Result, Staging};
pub use driver::{Driver, cuda_version, driver};
