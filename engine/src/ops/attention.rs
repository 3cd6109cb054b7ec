//! Causal grouped-query attention over whole sequences, for training.

use std::cell::RefCell;

use onebit_kernels_cpu::attention as kernel;
pub use onebit_kernels_cpu::attention::{AttentionDropout, AttentionShape};
use rayon::prelude::*;

use crate::error::shape_error;
use crate::{Result, Tensor};

thread_local! {
    /// Score blocks, kept per thread.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Attention of sequences of `shape.seq` tokens: `q` `[batch·seq, heads·head_dim]`, `k` and `v`
/// `[batch·seq, kv_heads·head_dim]`. Returns the output, shaped as `q`, and the log-sum-exp of each score row
/// `[batch, heads, seq]`, which the backward needs. `dropout` is that of the first sequence; those behind it have the numbers that follow.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn attention(
    shape: &AttentionShape,
    dropout: Option<AttentionDropout>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (batch, q_len, kv_len) = check(shape, q, k, v)?;
    let isa = q.device().isa();
    let lse_len = shape.heads * shape.seq;
    let mut out = Tensor::for_overwrite(q.device(), q.shape().clone());
    let mut lse = Tensor::for_overwrite(q.device(), [batch, shape.heads, shape.seq]);
    let (q, k, v) = (q.f32()?, k.f32()?, v.f32()?);
    out.f32_mut()?
        .par_chunks_mut(q_len)
        .zip(lse.f32_mut()?.par_chunks_mut(lse_len))
        .enumerate()
        .for_each(|(b, (out, lse))| {
            let (q, k, v) = (
                &q[b * q_len..][..q_len],
                &k[b * kv_len..][..kv_len],
                &v[b * kv_len..][..kv_len],
            );
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(kernel::scratch_len(shape), 0.0);
                let dropout = of_sequence(dropout, b);
                kernel::causal_attention(isa, shape, dropout.as_ref(), q, k, v, out, lse, scratch);
            });
        });
    Ok((out, lse))
}

/// Gradients of [`attention`], with the same `dropout`, with respect to `q`, `k` and `v`.
///
/// # Errors
/// Shapes that do not fit, or elements that are not f32.
pub fn attention_backward(
    shape: &AttentionShape,
    dropout: Option<AttentionDropout>,
    [q, k, v]: [&Tensor; 3],
    out: &Tensor,
    lse: &Tensor,
    dout: &Tensor,
) -> Result<[Tensor; 3]> {
    let (_, q_len, kv_len) = check(shape, q, k, v)?;
    if out.shape() != q.shape() || dout.len() != q.len() {
        return Err(shape_error("attention_backward", q.shape(), dout.shape()));
    }
    let isa = q.device().isa();
    let lse_len = shape.heads * shape.seq;
    let mut dq = Tensor::for_overwrite(q.device(), q.shape().clone());
    let mut dk = Tensor::for_overwrite(k.device(), k.shape().clone());
    let mut dv = Tensor::for_overwrite(v.device(), v.shape().clone());
    let (q, k, v) = (q.f32()?, k.f32()?, v.f32()?);
    let (out, lse, dout) = (out.f32()?, lse.f32()?, dout.f32()?);
    let outputs = dq
        .f32_mut()?
        .par_chunks_mut(q_len)
        .zip(dk.f32_mut()?.par_chunks_mut(kv_len));
    outputs
        .zip(dv.f32_mut()?.par_chunks_mut(kv_len))
        .enumerate()
        .for_each(|(b, ((dq, dk), dv))| {
            let wide = |x: &'_ [f32]| b * q_len..b * q_len + q_len.min(x.len());
            let narrow = b * kv_len..(b + 1) * kv_len;
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.resize(kernel::scratch_len(shape), 0.0);
                kernel::causal_attention_backward(
                    isa,
                    shape,
                    of_sequence(dropout, b).as_ref(),
                    &q[wide(q)],
                    &k[narrow.clone()],
                    &v[narrow.clone()],
                    &out[wide(out)],
                    &lse[b * lse_len..(b + 1) * lse_len],
                    &dout[wide(dout)],
                    dq,
                    dk,
                    dv,
                    scratch,
                );
            });
        });
    Ok([dq, dk, dv])
}

/// The dropout of sequence `b` of a batch.
fn of_sequence(dropout: Option<AttentionDropout>, b: usize) -> Option<AttentionDropout> {
    dropout.map(|d| AttentionDropout {
        sequence: d.sequence + b as u64,
        ..d
    })
}

fn check(shape: &AttentionShape, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<(usize, usize, usize)> {
    let (q_row, kv_row) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let tokens = q.shape().rows();
    let fits = shape.seq > 0
        && shape.kv_heads > 0
        && shape.heads.is_multiple_of(shape.kv_heads)
        && q.shape().last() == q_row
        && tokens.is_multiple_of(shape.seq)
        && k.shape().last() == kv_row
        && k.shape().rows() == tokens
        && v.shape() == k.shape();
    if !fits {
        return Err(shape_error(
            "attention",
            format!("{shape:?}"),
            format!("q {}, k {}, v {}", q.shape(), k.shape(), v.shape()),
        ));
    }
    Ok((tokens / shape.seq, shape.seq * q_row, shape.seq * kv_row))
}
