//! Grouped-query causal attention.
//!
//! ```text
//! s[i,j] = q[i]·k[j] / sqrt(head_dim)     j ≤ i          p[i,j] = exp(s[i,j] − lse[i])     lse[i] = ln Σ_j exp(s[i,j])
//! out[i] = Σ_j p[i,j] v[j]
//!
//! dv[j] = Σ_i p[i,j] dout[i]      delta[i] = dout[i]·out[i]      ds[i,j] = p[i,j] (dout[i]·v[j] − delta[i]) / sqrt(head_dim)
//! dq[i] = Σ_j ds[i,j] k[j]        dk[j] = Σ_i ds[i,j] q[i]
//! ```
//!
//! Query head `h` reads key and value head `h / (heads / kv_heads)` (Ainslie et al., *GQA*, 2023).
//!
//! - [`cached`] (inference) is the queries of a chunk of tokens over a cache of keys and values.
//! - [`causal_attention`] (training) is one sequence with all heads. Queries go in blocks of 64; the block's scores against the keys up
//!   to its last query are one matrix product, so of the upper triangle only the halves of the diagonal blocks are computed:
//!
//!   ```text
//!            keys →
//!   queries  ■ ·  ·  ·      ■ computed and half masked
//!      ↓     □ ■  ·  ·      □ computed
//!            □ □  ■  ·      · skipped
//!            □ □  □  ■
//!   ```
//!
//!   The cost is `4·head_dim·seq·(seq + 64)/2` operations a head forward and 2.5 times that backward. Only the log-sum-exp of each row is
//!   kept; the backward recomputes the scores (Dao et al., *FlashAttention*, 2022). Scratch is two tiles of `[64, seq]`.
//!
//! With [`AttentionDropout`], of mask `m` (0 or 1) and probability `P`, the output is that of `p[i,j]·m[i,j]/(1 − P)`. So is `dv`, and `dout[i]·v[j]` becomes
//! `dout[i]·v[j]·m[i,j]/(1 − P)`; `delta` stays as it is, because `Σ_j p[i,j]·(that)` is still `dout[i]·out[i]`. The masks are made again in the backward.
//!
//! Values above the diagonal inside a diagonal block are multiplied by an exact zero, so a non-finite input there reaches up to 63
//! earlier queries of [`causal_attention`]; in [`cached`] no query is touched by what it does not see.

pub mod cached;
mod causal;
mod dropout;
mod softmax;
#[cfg(test)]
mod tests;

pub use causal::{causal_attention, causal_attention_backward, scratch_len};
pub use dropout::AttentionDropout;
pub use softmax::softmax_weights;

/// Queries in a block of the training kernel: smaller blocks waste less above the diagonal, but pack the keys more often. Whole training
/// steps of 256 positions were 6 to 12 % faster with 64, and V read in place, than with 32.
const QUERY_BLOCK: usize = 64;

/// The shape of attention over one sequence: `q` and `out` are `[seq, heads·head_dim]`, `k` and `v` `[seq, kv_heads·head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Positions.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    fn check(&self) {
        assert!(
            self.heads == 0 || (self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads)),
            "kv_heads must divide heads"
        );
    }

    fn is_empty(&self) -> bool {
        self.seq == 0 || self.heads == 0 || self.head_dim == 0
    }

    fn row(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_row(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The key and value head that query head `head` reads.
    fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }
}

/// Columns of row `r` of a tile whose first row is query `first` that the causal mask leaves: keys `0..=first + r`.
#[inline(always)]
fn visible(first: usize, r: usize) -> usize {
    first + r + 1
}

/// `1/sqrt(head_dim)`, the factor of the scores.
fn scale(head_dim: usize) -> f32 {
    (1.0 / crate::math::sqrt_f64(head_dim as f64)) as f32
}
