//! A network in the block of ARCHITECTURE.md §2.3, with the bits of the CPU runtime: one token as a recording of five kernels a layer that runs again for
//! every token without the host, and prompts in chunks of up to 512 tokens.
//!
//! # A token
//! | kernel | reads | gives |
//! |---|---|---|
//! | `embed` | an id | the residual stream `x` |
//! | `normed_gemv` | `x`, q over k over v | q, k, v |
//! | `attend` | these, the cache | norm of q and k, rotation, cache, attention |
//! | `normed_gemv` | attention, o | `x +=` |
//! | `normed_gemv` | `x`, gate beside up | the activation's output |
//! | `normed_gemv` | that, down | `x +=` |
//! | `head` | `x` | logits, the largest, the next id and position |
//!
//! Position and ids lie on the GPU, so nothing of a launch changes from token to token.
//!
//! # Why not one kernel
//! A kernel that stays for the whole token waits between phases for all blocks by a counter in memory: about a microsecond each, as much as the border
//! between two kernels of a recording of which the second is there already (`griddepcontrol`). What one kernel could do beyond that, reading the
//! weights of the next phase while it waits, these do too: each fetches up to 64 KB a multiprocessor of its weights into shared memory before it waits. And
//! kernels that end can be tested one by one.
//!
//! # Budget
//! On an H100 (3 TB/s), 2B-4T, `t2`, int8 head: 17.4 MB a layer (5.8 µs), of which q, k, v 2.5, o 1.6, gate and up 8.8, down 4.4; 328 MB of head (110 µs); 284 µs a
//! token if memory never rests. A phase that has its weights takes: border 0.8 µs, activations from the second level 0.5, the norm's chain (160 fused multiply-adds one
//! after the other, 432 before down) 0.35 or 0.9, quantiser 0.2, product 0.4 (gate and up 1.0), end 0.2; attention of a short context 2.4. Together 12 µs a layer,
//! 490 µs a token: 2,000 tokens a second, bounded by latency, not by memory.
//!
//! # A chunk of a prompt
//! Up to 16 tokens go through the same kernels, which read the packed weights each time and attend to one token after the other. A longer piece
//! ([`DecodeModel::prefill`]) is a matter of the tensor cores, with the same bits: sums of bytes are exact in any order, and all that is rounded
//! is rounded by the same functions. For each matrix
//!
//! | kernel | reads | gives |
//! |---|---|---|
//! | `norm_quantize` | rows of f32 | bytes, and a scale for each token |
//! | `unpack` | packed weights | weights as bytes, once for the chunk |
//! | `gemm_s8` | both | sums, exact, as f32 (all factors are 1) |
//! | `finish_sums` | sums | q, k, v, or `x +=`, or the activation's output |
//!
//! and between them `place` and `attend_many` ([`attend_many`]).
//!
//! On an H100 (3 TB/s), 2B-4T, 512 tokens, a layer: weights 17 MB read and 70 written, 29 µs; products 71 G operations, 71 µs at 1,000 TOP/s; sums 47 MB written and
//! read and 43 MB of outputs, 45 µs, less what stays in the second cache level; `norm_quantize` 37 MB, 12 µs; attention 0.84 G fused multiply-adds, 29 µs if none of the
//! 128 lanes rests and perhaps 60 in truth; 18 borders between kernels, 25 µs. Together some 240 µs, 7.3 ms for 30 layers: 70,000 tokens a second expected. Steps
//! of 16 take 30 µs of products a layer each time, 29 ms for 32 of them, and attend to 512 tokens one after the other, at 3 µs and more a layer: 46 ms and more.

mod attention;
mod head;
mod prefill_attention;
mod state;
mod step;
#[cfg(test)]
mod tests;

pub use attention::{Attention, KvCache, KvKind, Rotation, attend};
pub use head::{FloatKind, HeadOutput, VocabularyMatrix, embed, head};
pub use prefill_attention::attend_many;
pub use state::{DecodeState, Room};
pub use step::{DecodeLayer, DecodeModel, DecodeShape, FeedForwardKind, Logits};
