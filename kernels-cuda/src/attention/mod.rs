//! Causal, grouped-query attention for training, forward and backward, without ever storing the scores.
//!
//! ```text
//! s[i,j] = q[i]·k[j] / sqrt(head_dim)     j ≤ i          p[i,j] = exp(s[i,j] − lse[i])     lse[i] = ln Σ_j exp(s[i,j])
//! o[i]   = Σ_j p[i,j] v[j]
//!
//! dv[j] = Σ_i p[i,j] do[i]        delta[i] = do[i]·o[i]          ds[i,j] = p[i,j] (do[i]·v[j] − delta[i]) / sqrt(head_dim)
//! dq[i] = Σ_j ds[i,j] k[j]        dk[j] = Σ_i ds[i,j] q[i]
//! ```
//!
//! Query head `h` reads key and value head `h / (heads / kv_heads)` (Ainslie et al., *GQA*, 2023). A block takes a tile of queries and walks over
//! the keys with a running maximum and sum of each row (Dao, *FlashAttention-2*, 2023); products are bf16 with f32 sums, the softmax is f32.
//!
//! **Layout.** `qkv` is `[batch·seq, (heads + 2·kv_heads)·head_dim]`: the queries of a token, its keys, its values; sequences lie one after the other
//! and do not see each other. Kernels exist for heads of 32, 64 and 128; others (multiples of 8) are padded with zeros on the way to shared memory.
//!
//! **The backward** is two kernels, so that no two blocks add to the same element: one owns tiles of queries (`delta`, `dq`), the other tiles of keys
//! (`dk`, `dv`, over the query heads of the group). Each recomputes the scores from `lse`: seven matrix products instead of five, and no atomics.
//!
//! **Dropout** of probabilities (Vaswani et al. 2017): with mask `m` (0 or 1) and probability `P` the output is that of `p[i,j] m[i,j]/(1 − P)`, and so is `dv`; `do[i]·v[j]`
//! becomes `do[i]·v[j] m[i,j]/(1 − P)`, and `delta` stays as it is, because `Σ_j p[i,j]` times that is still `do[i]·o[i]`. Nothing is stored: each kernel makes the
//! masks it needs again, those of `onebit_kernels_cpu::attention::AttentionDropout` for the sequences of the batch in order, bit for bit. Kernels without dropout are others.
//!
//! **Kernels.** Those of `sm_80` run everywhere; for heads of 64 and 128 there are a forward (`wgmma.cu`; padded heads too) and a backward
//! (`backward_queries_wgmma.cu`, `backward_keys_wgmma.cu`) with Hopper's products of a warpgroup, which a Hopper takes unless `ONEBIT_CUDA_PATH` is `mma` or
//! probabilities are dropped.
//!
//! **Order of blocks.** Heads are taken in sections whose keys and values stay in the second-level cache, and within a section the longest tiles go first.

mod backward;
mod backward_hopper;
#[cfg(test)]
mod benches;
#[cfg(test)]
mod dropout_tests;
mod forward;
#[cfg(test)]
mod path_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use backward::attention_backward;
pub use forward::attention;

use std::sync::OnceLock;

use crate::device::{CudaError, DeviceArray, Element, Gpu, Result};

/// The shape of attention over sequences of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head: a multiple of 8, at most 128.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Elements of a token's queries, keys and values.
    pub fn qkv_row(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Elements of a token's output.
    pub fn o_row(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of scores: one for each head of each token.
    pub fn rows(&self) -> usize {
        self.tokens() * self.heads
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens() == 0 || self.heads == 0
    }

    /// Fails if no kernel has this form.
    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let fits = self.kv_heads > 0
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(8)
            && self.head_dim <= 128
            // Kernels count rows of scores, and elements of a sequence, in 31 bits.
            && self.rows() < 1 << 31
            && (self.seq + 128).saturating_mul(self.qkv_row()) < 1 << 31;
        if fits {
            Ok(())
        } else {
            Err(CudaError::shape(
                op,
                "kv_heads that divide heads, head_dim a multiple of 8 up to 128, below 2^31 rows of scores and elements of a sequence",
                format!("{self:?}"),
            ))
        }
    }

    /// Elements of a head as the kernels have it.
    fn padded(&self) -> usize {
        match self.head_dim {
            0..=32 => 32,
            33..=64 => 64,
            _ => 128,
        }
    }

    /// Key and value heads in a section: as many as keep `bytes` a token within a third of the second-level cache.
    fn section(&self, bytes: usize) -> usize {
        const CACHE: usize = 16 << 20;
        (CACHE / (self.seq * bytes).max(1)).clamp(1, self.batch * self.kv_heads)
    }

    /// The factor of the scores, `1/sqrt(head_dim)`.
    fn scale(&self) -> f32 {
        (1.0 / (self.head_dim as f64).sqrt()) as f32
    }
}

/// Whether there are kernels of Hopper's own for this GPU and this shape.
fn has_hopper_kernel(gpu: &Gpu, shape: &AttentionShape) -> bool {
    gpu.properties().is_hopper() && shape.padded() >= 64
}

/// Whether they are to be taken: where there are, unless `ONEBIT_CUDA_PATH` forbids it.
fn takes_hopper_kernel(gpu: &Gpu, shape: &AttentionShape) -> bool {
    static FORBIDDEN: OnceLock<bool> = OnceLock::new();
    let forbidden = FORBIDDEN.get_or_init(|| std::env::var("ONEBIT_CUDA_PATH").is_ok_and(|path| path == "mma"));
    has_hopper_kernel(gpu, shape) && !forbidden
}

/// `op` needs `len` elements of `what`, at an address that 16-byte accesses may use.
pub(crate) fn need<T: Element>(op: &'static str, what: &str, array: &DeviceArray<T>, len: usize) -> Result<()> {
    if array.len() != len {
        return Err(CudaError::shape(op, format!("{what} of {len} elements"), array.len()));
    }
    if !array.address().is_multiple_of(16) {
        let expected = format!("{what} at a multiple of 16 bytes");
        return Err(CudaError::shape(op, expected, format!("{array:?}")));
    }
    Ok(())
}
