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
    /// Mean loss with label smoothing and z-loss: what is minimised.
    pub smoothed: f64,
    /// Log-sum-exp of each row `[tokens]`, which the backward needs.
    pub lse: Tensor,
}

/// What the minimised loss has beside the negative log-likelihood.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossTerms {
    /// ε of label smoothing; 0 for none.
    pub smoothing: f32,
    /// z of the z-loss; 0 for none.
    pub z_loss: f32,
}

/// Losses of `logits` `[tokens, vocab]` against `targets` `[tokens]`. The minimised loss is
/// `(1−ε)·nll + ε·mean over the vocabulary of −log p` (Szegedy et al. 2016) and `z·lse²` (Chowdhery et al. 2022, *PaLM*), which keeps the log-sum-exp near 0.
///
/// # Errors
/// Shapes that do not fit, a target outside the vocabulary, or wrong element types.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, terms: LossTerms) -> Result<Losses> {
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
                terms.smoothing,
                lse,
            );
        });
    let mean = |t: &Tensor| Ok(t.f32()?.iter().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64);
    let squares = lse
        .f32()?
        .iter()
        .map(|&lse| f64::from(lse) * f64::from(lse))
        .sum::<f64>();
    Ok(Losses {
        nll: mean(&per_token)?,
        smoothed: mean(&smoothed)? + f64::from(terms.z_loss) * squares / tokens as f64,
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
    terms: LossTerms,
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
    // The gradient of z·lse² is 2·z·lse times the softmax: together exp(x − lse)·(1 + 2·z·lse), a softmax of another lse.
    let shifted: Vec<f32>;
    let lse = if terms.z_loss == 0.0 {
        lse
    } else {
        shifted = lse
            .iter()
            .map(|&lse| lse - (2.0 * terms.z_loss * lse).ln_1p())
            .collect();
        &shifted
    };
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
            terms.smoothing,
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
