//! Softmax cross-entropy over the vocabulary.

use onebit_kernels_cpu::cross_entropy as kernel;
use rayon::prelude::*;

use super::embedding::check_ids;
use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{Result, Tensor};

/// Losses of a batch of predictions, in nats.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Mean negative log-likelihood: what is reported, free of smoothing.
    pub nll: f64,
    /// Mean label-smoothed loss: what is minimised.
    pub smoothed: f64,
    /// Log-sum-exp of each row `[tokens]`, which the backward needs.
    pub lse: Tensor,
}

/// Losses of `logits` `[tokens, vocab]` against `targets` `[tokens]`. With `smoothing` ε the minimised loss is
/// `(1−ε)·nll + ε·mean over the vocabulary of −log p` (Szegedy et al. 2016).
///
/// # Errors
/// Shapes that do not fit, a target outside the vocabulary, or wrong element types.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f32) -> Result<Losses> {
    let (tokens, vocab) = check(logits, targets)?;
    let isa = logits.device().isa();
    let mut per_token = Tensor::for_overwrite(logits.device(), [tokens]);
    let mut smoothed = Tensor::for_overwrite(logits.device(), [tokens]);
    let mut lse = Tensor::for_overwrite(logits.device(), [tokens]);
    let (data, ids) = (logits.f32()?, targets.u32()?);
    let run = tokens.div_ceil(2 * rayon::current_num_threads());
    let outputs = per_token
        .f32_mut()?
        .par_chunks_mut(run)
        .zip(smoothed.f32_mut()?.par_chunks_mut(run));
    outputs
        .zip(lse.f32_mut()?.par_chunks_mut(run))
        .enumerate()
        .for_each(|(i, ((nll, smooth), lse))| {
            let (row, rows) = (i * run, nll.len());
            let span = row * vocab..(row + rows) * vocab;
            kernel::cross_entropy(
                isa,
                &data[span],
                vocab,
                &ids[row..row + rows],
                nll,
                smooth,
                smoothing,
                lse,
            );
        });
    let mean = |t: &Tensor| Ok(t.f32()?.iter().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64);
    Ok(Losses {
        nll: mean(&per_token)?,
        smoothed: mean(&smoothed)?,
        lse,
    })
}

/// Gradient of `upstream · mean smoothed loss` with respect to the logits.
///
/// # Errors
/// Shapes that do not fit, or wrong element types.
pub fn cross_entropy_backward(
    logits: &Tensor,
    targets: &Tensor,
    lse: &Tensor,
    smoothing: f32,
    upstream: f32,
) -> Result<Tensor> {
    let (tokens, vocab) = check(logits, targets)?;
    if lse.len() != tokens {
        return Err(shape_error(
            "cross_entropy_backward",
            format!("[{tokens}]"),
            lse.shape(),
        ));
    }
    let isa = logits.device().isa();
    let mut dlogits = Tensor::for_overwrite(logits.device(), logits.shape().clone());
    let (data, ids, lse) = (logits.f32()?, targets.u32()?, lse.f32()?);
    let each = upstream / tokens as f32;
    over_rows(dlogits.f32_mut()?, vocab, |row, out| {
        let rows = out.len() / vocab;
        let span = row * vocab..(row + rows) * vocab;
        kernel::cross_entropy_backward(
            isa,
            &data[span],
            vocab,
            &ids[row..row + rows],
            &lse[row..row + rows],
            smoothing,
            each,
            out,
        );
    });
    Ok(dlogits)
}

fn check(logits: &Tensor, targets: &Tensor) -> Result<(usize, usize)> {
    let (tokens, vocab) = (logits.shape().rows(), logits.shape().last());
    if targets.len() != tokens || tokens == 0 {
        return Err(shape_error(
            "cross_entropy",
            format!("{tokens} targets, at least one"),
            targets.shape(),
        ));
    }
    check_ids("cross_entropy", targets.u32()?, vocab)?;
    Ok((tokens, vocab))
}
