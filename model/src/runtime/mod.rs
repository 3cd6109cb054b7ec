//! Inference over packed weights, `no_std + alloc`: [`PackedModel`] holds the weights, [`Session`] a sequence.
//!
//! ```text
//! tensors ─ from_parts ─→ PackedModel ─┬─→ Session: prefill(prompt) → logits, decode(token) → logits, …
//! (quantised as they load)             └─→ Session of another user, over the same weights
//! ```
//!
//! Every linear in a quantised mode takes int8 activations, one scale a token, and sums exactly in `i32`
//! (ARCHITECTURE.md §2.1); the linears in mode `f16`, the embedding and the head stay float. The same tokens come out for any
//! instruction set, thread count, chunk and split over calls (§2.2).
//!
//! The threads are an [`Executor`]: [`Serial`], or a `Pool` with the `std` feature.

mod attention;
mod batch;
mod buffers;
mod build;
mod cache;
mod check;
mod columns;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod executor;
mod floats;
mod forward;
mod layout;
mod linear;
mod load;
#[cfg(feature = "std")]
mod loaded;
mod logits;
mod lookahead;
#[cfg(feature = "std")]
mod pick;
#[cfg(feature = "std")]
mod pool;
mod product;
#[cfg(feature = "std")]
mod resume;
mod sequence;
mod session;
mod shortlist;
mod sketch;
mod snapshot;
mod storage;
#[cfg(feature = "std")]
#[allow(
    unsafe_code,
    reason = "threads share a borrowed job and disjoint pieces of borrowed slices"
)]
mod team;
mod turns;
mod values;
mod weights;
mod winners;

pub use batch::Batch;
pub use build::TensorSource;
#[cfg(feature = "std")]
pub(crate) use build::{LinearSite, norm, table};
pub use error::RuntimeError;
pub use executor::{Executor, Serial, Shares};
#[cfg(feature = "std")]
pub(crate) use layout::smallest;

pub use floats::{FloatMatrix, FloatValues};
#[cfg(feature = "std")]
pub use loaded::LoadError;
pub use lookahead::{LONGEST_DRAFT, Lookahead, LookaheadCounts};
pub use onebit_kernels_cpu::attention::cached::KvType;
#[cfg(feature = "std")]
pub use pool::Pool;
#[cfg(feature = "std")]
pub use resume::Resume;
pub use sequence::Sequence;
pub use session::{Session, SessionOptions};
pub(crate) use sketch::RowFigures;
pub use sketch::{HeadSketch, SketchCounts, Top};
pub use storage::FloatStorage;
pub use turns::{Turn, Wanted};
pub use values::{SharedBytes, Values};
pub use weights::{Block, Linear, PackedModel, WeightBytes};
