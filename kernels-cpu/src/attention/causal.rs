//! Whole-sequence causal attention for training: forward, and the backward that recomputes the probabilities.

use super::dropout::drop_tile;
use super::softmax::{divide_rows, recompute_tile, row_dots, softmax_tile, softmax_tile_backward};
use super::{AttentionDropout, AttentionShape, QUERY_BLOCK, scale};
use crate::gemm::{self, Layout, gemm};
use crate::isa::Isa;

/// Elements of `scratch` that [`causal_attention`] and [`causal_attention_backward`] need.
pub fn scratch_len(shape: &AttentionShape) -> usize {
    let rows = QUERY_BLOCK.min(shape.seq);
    2 * rows * shape.seq + rows + gemm::scratch_len()
}

/// The blocks of queries: first query, number of queries, and the keys `0..end` that they can see.
fn query_blocks(seq: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..seq).step_by(QUERY_BLOCK).map(move |first| {
        let end = seq.min(first + QUERY_BLOCK);
        (first, end - first, end)
    })
}

/// Causal self-attention of one sequence, all heads, in training perhaps with `dropout` of the probabilities.
///
/// `q` and `out` are `[seq, heads·head_dim]`, `k` and `v` are `[seq, kv_heads·head_dim]`, `lse` is `[heads, seq]` and receives the
/// log-sum-exp of each query's scaled scores, which is all that the backward needs to recompute the probabilities. Dropout changes nothing of it.
///
/// # Panics
/// If a length does not follow from `shape`, `kv_heads` does not divide `heads`, `scratch` is shorter than [`scratch_len`], or the probability of dropout is not
/// in `[0, 1)`.
pub fn causal_attention(
    isa: Isa,
    shape: &AttentionShape,
    dropout: Option<&AttentionDropout>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
    scratch: &mut [f32],
) {
    shape.check();
    let (rows, kv_rows) = (shape.row(), shape.kv_row());
    assert!(
        q.len() == shape.seq * rows && out.len() == q.len(),
        "q or out has the wrong length"
    );
    assert!(
        k.len() == shape.seq * kv_rows && v.len() == k.len(),
        "k or v has the wrong length"
    );
    assert_eq!(lse.len(), shape.heads * shape.seq, "lse has the wrong length");
    assert!(scratch.len() >= scratch_len(shape), "scratch too short");
    if shape.is_empty() {
        return;
    }
    let n = shape.head_dim;
    let block = QUERY_BLOCK.min(shape.seq);
    let (tile, scratch) = scratch.split_at_mut(block * shape.seq);
    let (sums, scratch) = scratch.split_at_mut(block);

    for head in 0..shape.heads {
        let (q, k, v) = (
            &q[head * n..],
            &k[shape.kv_head(head) * n..],
            &v[shape.kv_head(head) * n..],
        );
        for (first, count, end) in query_blocks(shape.seq) {
            let tile = &mut tile[..count * end];
            let sums = &mut sums[..count];
            let lse = &mut lse[head * shape.seq + first..][..count];
            let at = first * rows;
            gemm(
                isa,
                Layout::NT,
                count,
                end,
                n,
                &q[at..],
                rows,
                k,
                kv_rows,
                false,
                tile,
                end,
                scratch,
            );
            softmax_tile(isa, tile, end, first, scale(n), lse, sums);
            if let Some(dropout) = dropout {
                drop_tile(isa, tile, end, first, dropout, dropout.place(shape, head, first));
            }
            let out = &mut out[head * n + at..];
            gemm(
                isa,
                Layout::NN,
                count,
                n,
                end,
                tile,
                end,
                v,
                kv_rows,
                false,
                out,
                rows,
                scratch,
            );
            divide_rows(isa, out, rows, n, sums);
        }
    }
}

/// Gradients of [`causal_attention`] with the same `dropout`.
///
/// `q`, `k`, `v`, `out` and `lse` are those of the forward; `dout`, `dq` are `[seq, heads·head_dim]`, `dk`, `dv` are
/// `[seq, kv_heads·head_dim]`. `dq`, `dk` and `dv` are written, not added to; `dk` and `dv` sum over the query heads of the group,
/// head by head and block by block in order.
///
/// # Panics
/// As [`causal_attention`].
pub fn causal_attention_backward(
    isa: Isa,
    shape: &AttentionShape,
    dropout: Option<&AttentionDropout>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    scratch: &mut [f32],
) {
    shape.check();
    let (rows, kv_rows) = (shape.row(), shape.kv_row());
    let (len, kv_len) = (shape.seq * rows, shape.seq * kv_rows);
    assert!(
        q.len() == len && out.len() == len && dout.len() == len && dq.len() == len,
        "a query side has the wrong length"
    );
    assert!(
        k.len() == kv_len && v.len() == kv_len && dk.len() == kv_len && dv.len() == kv_len,
        "a key side has the wrong length"
    );
    assert_eq!(lse.len(), shape.heads * shape.seq, "lse has the wrong length");
    assert!(scratch.len() >= scratch_len(shape), "scratch too short");
    if shape.is_empty() {
        return;
    }
    let n = shape.head_dim;
    let block = QUERY_BLOCK.min(shape.seq);
    let (p, scratch) = scratch.split_at_mut(block * shape.seq);
    let (dp, scratch) = scratch.split_at_mut(block * shape.seq);
    let (delta, scratch) = scratch.split_at_mut(block);
    dk.fill(0.0);
    dv.fill(0.0);

    for head in 0..shape.heads {
        let kv = shape.kv_head(head) * n;
        let (k, v, dk, dv) = (&k[kv..], &v[kv..], &mut dk[kv..], &mut dv[kv..]);
        for (first, count, end) in query_blocks(shape.seq) {
            let at = first * rows + head * n;
            let (q, out, dout, dq) = (&q[at..], &out[at..], &dout[at..], &mut dq[at..]);
            let (p, dp, delta) = (&mut p[..count * end], &mut dp[..count * end], &mut delta[..count]);
            let lse = &lse[head * shape.seq + first..][..count];
            gemm(
                isa,
                Layout::NT,
                count,
                end,
                n,
                q,
                rows,
                k,
                kv_rows,
                false,
                p,
                end,
                scratch,
            );
            recompute_tile(isa, p, end, first, scale(n), lse);
            let drop = |tile: &mut [f32]| {
                if let Some(dropout) = dropout {
                    drop_tile(isa, tile, end, first, dropout, dropout.place(shape, head, first));
                }
            };
            // The dropped probabilities have the tile of `dp` until it is needed: the undropped ones are a factor of the scores' gradient.
            let dropped = if dropout.is_some() {
                dp.copy_from_slice(p);
                drop(dp);
                &*dp
            } else {
                &*p
            };
            gemm(
                isa,
                Layout::TN,
                end,
                n,
                count,
                dropped,
                end,
                dout,
                rows,
                true,
                dv,
                kv_rows,
                scratch,
            );
            gemm(
                isa,
                Layout::NT,
                count,
                end,
                n,
                dout,
                rows,
                v,
                kv_rows,
                false,
                dp,
                end,
                scratch,
            );
            drop(dp);
            row_dots(isa, out, dout, rows, n, delta);
            softmax_tile_backward(isa, p, dp, end, first, scale(n), delta);
            gemm(
                isa,
                Layout::NN,
                count,
                n,
                end,
                dp,
                end,
                k,
                kv_rows,
                false,
                dq,
                rows,
                scratch,
            );
            gemm(
                isa,
                Layout::TN,
                end,
                n,
                count,
                dp,
                end,
                q,
                rows,
                true,
                dk,
                kv_rows,
                scratch,
            );
        }
    }
}
