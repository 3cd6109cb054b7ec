//! A network in the block of ARCHITECTURE.md §2.3, with the bits of the CPU runtime: one token as a recording of five kernels a layer that runs again for
//! every token without the host, and prompts in chunks of up to 512 tokens.
//!
//! # A token
//! | kernel | reads | gives |
//! |---|---|---|
//! | `embed` | an id | the residual stream `x` |
//! | `normed_single` | `x`, q over k over v | q, k, v |
//! | `attend_head` | these, the cache | norm of q and k, rotation, cache, attention |
//! | `attended_single` | attention, o | `x +=` |
//! | `normed_single` | `x`, gate beside up | the activation's output |
//! | `normed_single` | that, down | `x +=` |
//! | `head` | `x` | logits, the largest, the next id and position |
//! | or `sketch_estimate` | `x` | of each logit how far up and down it can be |
//! | and `sketch_settle` | these, a few rows of the head | the largest, the next id and position |
//!
//! Position and ids lie on the GPU, so nothing of a launch changes from token to token. Attention leaves a part for each block of 128 positions; up to eight of them are put together by
//! the product behind it, and more by the last block of attention to end. The grid has blocks for the positions that are seen
//! ([`DecodeState::expecting`]): those that would end at once cost 4 µs a layer.
//!
//! That is a network of which the matrices over one input are binary, ternary or int8, all of one code. Where they are of several, or floats or int4, the product is a few
//! ([`mixed_linear`](crate::mixed_linear)), behind a kernel for the norm; and where embedding or head are packed, a row is opened by a kernel for its code, and the head is a linear's product
//! with `choose_largest` behind it ([`Vocabulary`]).
//!
//! # Why not one kernel
//! A kernel that stays for the whole token waits between phases for all blocks by a counter in memory. That was tried between these kernels, in the place of `griddepcontrol.wait`: 1.2 µs
//! *more* for each border, because a release waits for all that its multiprocessor has under way, the next phase's weights among it. What one kernel could do beyond that, reading the weights of
//! the next phase while it waits, these do too: each fetches up to 72 KB a multiprocessor of its weights into shared memory before it waits. And kernels that end can be tested one by one.
//!
//! For that two kernels must be on a multiprocessor at the same time, and so all of them ask for the same division of its memory
//! ([`Launch::chained`](crate::device::Launch::chained)): where neighbours differed, the multiprocessor ran empty first.
//!
//! # Budget
//! On an H200 (4.2 TB/s), 2B-4T, `t2`, int8 head: 17.4 MB a layer (4.1 µs), 328 MB of head (78 µs); 200 µs a token if memory never rests. Measured (NOTES.md): 659 µs, of
//! which the head takes 84 and each layer 18.8: q, k, v 3.2, attention 3.6, o 3.1, gate and up 4.1, down 4.8. A phase that has its weights is made of the border (some 1.5 µs), activations from the
//! second level 0.3, the norm's chains 0.1 to 0.3, quantiser 0.3, product 0.2 to 0.6, end 0.2: bounded by latency, not by memory.
//!
//! A head of 16 bits has twice the bytes, 156 µs of that memory. Where only the largest logit is wanted ([`Logits::Largest`]) its [sketch](HeadSketch) is read in its
//! place, 328 MB, and some 40 rows of the head: 95 µs. The bounds are rigorous, so that the ids are those of the head.
//!
//! # A chunk of a prompt
//! Up to 16 tokens go through the same kernels, which read the packed weights each time and attend to one token after the other. A longer piece
//! ([`DecodeModel::prefill`]) is a matter of the tensor cores, with the same bits: sums of bytes are exact in any order, and all that is rounded
//! is rounded by the same functions. For each matrix
//!
//! | kernel | reads | gives |
//! |---|---|---|
//! | `norm_quantize` | rows of f32 | bytes, and a scale for each token |
//! | `unpack` | packed weights | weights as bytes, once for the chunk (of int8 only their order changes) |
//! | `gemm_s8` | both | sums, exact, as f32 (all factors are 1) |
//! | `finish_sums` | sums | q, k, v, or `x +=`, or the activation's output |
//!
//! and between them `place` and `attend_many` ([`attend_many`]). Sums of floats have an order that tensor cores do not keep: those of floats and int4 are made by
//! [`chain_gemv`](crate::chain_gemv::chain_gemv), eight tokens at a time.
//!
//! On an H100 (3 TB/s), 2B-4T, 512 tokens, a layer: weights 17 MB read and 70 written, 29 µs; products 71 G operations, 71 µs at 1,000 TOP/s; sums 47 MB written and
//! read and 43 MB of outputs, 45 µs, less what stays in the second cache level; `norm_quantize` 37 MB, 12 µs; attention 0.84 G fused multiply-adds, 29 µs if none of the
//! 128 lanes rests and perhaps 60 in truth; 18 borders between kernels, 25 µs. Together some 240 µs, 7.3 ms for 30 layers: 70,000 tokens a second expected. Steps
//! of 16 take 30 µs of products a layer each time, 29 ms for 32 of them, and attend to 512 tokens one after the other, at 3 µs and more a layer: 46 ms and more.
//!
//! # Many sequences
//! [`DecodeModel::step_batch`] reads tokens of many sequences as one such chunk, or as one such step where they are few; `batch.rs` says how attention finds each token's cache.

mod attention;
mod batch;
mod batch_attention;
mod cache;
mod head;
mod packed;
mod prefill_attention;
mod sketch;
mod state;
mod step;
#[cfg(test)]
mod tests;

pub use attention::{Attention, Rotation, attend};
pub use batch::{BatchRoom, BatchState, BatchTurn};
pub use cache::{KvCache, KvKind};
pub use head::{FloatKind, HeadOutput, VocabularyMatrix, embed, head};
pub use packed::{Vocabulary, VocabularyKind};
pub use prefill_attention::attend_many;
pub use sketch::{HeadSketch, SketchBuffers, largest};
pub use state::{DecodeState, Room};
pub use step::{DecodeLayer, DecodeModel, DecodeShape, FeedForwardKind, Logits};
