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

/// What teachers think likely (Hinton et al. 2015, *Distilling the knowledge in a neural network*).
#[derive(Clone, Debug)]
pub struct Likely {
    /// Their probabilities, `[tokens, vocab]`.
    pub probabilities: Tensor,
    /// Their share of the target, in `[0, 1]`: the rest is the text's.
    pub share: f32,
}

/// The mean of the softmaxes of `logits`, each `[tokens, vocab]`.
///
/// # Errors
/// Shapes that differ, no logits at all, or elements that are not f32.
pub fn mean_softmax(logits: &[Tensor]) -> Result<Tensor> {
    let Some(first) = logits.first() else {
        return Err(shape_error("mean_softmax", "logits of at least one model", "none"));
    };
    let (vocab, weight) = (first.shape().last(), 1.0 / logits.len() as f64);
    let mut out = Tensor::zeros(first.device(), first.shape().clone());
    for logits in logits {
        if logits.shape() != first.shape() {
            return Err(shape_error("mean_softmax", first.shape(), logits.shape()));
        }
        let data = logits.f32()?;
        over_rows(out.f32_mut()?, vocab, |row, out| {
            for (out, x) in out.chunks_exact_mut(vocab).zip(data[row * vocab..].chunks_exact(vocab)) {
                let max = x.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x));
                let sum: f64 = x.iter().map(|x| f64::from((x - max).exp())).sum();
                let factor = (weight / sum) as f32;
                out.iter_mut()
                    .zip(x)
                    .for_each(|(out, x)| *out += factor * (x - max).exp());
            }
        });
    }
    Ok(out)
}

/// Losses of `logits` `[tokens, vocab]` against `targets` `[tokens]`. The minimised loss is
/// `(1−ε)·nll + ε·mean over the vocabulary of −log p` (Szegedy et al. 2016) and `z·lse²` (Chowdhery et al. 2022, *PaLM*), which keeps the log-sum-exp near 0.
/// With `likely` q of share a it is `(1−a)` of the first, and `a·(lse − Σ q·x)`.
///
/// # Errors
/// Shapes that do not fit, a target outside the vocabulary, or wrong element types.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, terms: LossTerms, likely: Option<&Likely>) -> Result<Losses> {
    let (tokens, vocab) = check(logits, targets)?;
    check_likely(logits, likely)?;
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
    let mut wanted = mean(&smoothed)?;
    if let Some(Likely { probabilities, share }) = likely {
        let q = probabilities.f32()?;
        let rows = data.par_chunks(vocab).zip(q.par_chunks(vocab)).zip(lse.f32()?);
        let taught: Vec<f64> = rows
            .map(|((x, q), lse)| {
                let agreed: f64 = x.iter().zip(q).map(|(x, q)| f64::from(*x) * f64::from(*q)).sum();
                f64::from(*lse) - agreed
            })
            .collect();
        let share = f64::from(*share);
        wanted = (1.0 - share) * wanted + share * taught.iter().sum::<f64>() / tokens as f64;
    }
    let squares = lse
        .f32()?
        .iter()
        .map(|&lse| f64::from(lse) * f64::from(lse))
        .sum::<f64>();
    Ok(Losses {
        nll: mean(&per_token)?,
        smoothed: wanted + f64::from(terms.z_loss) * squares / tokens as f64,
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
    (terms, likely): (LossTerms, Option<&Likely>),
    upstream: f32,
) -> Result<Tensor> {
    let (tokens, vocab) = check(logits, targets)?;
    check_likely(logits, likely)?;
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
    if let Some(Likely { probabilities, share }) = likely {
        // A part of what was taken off for the smoothed target comes back, and goes off for the teachers' probabilities.
        let (q, part) = (probabilities.f32()?, each * share);
        let uniform = part * terms.smoothing / vocab as f32;
        over_rows(dlogits.f32_mut()?, vocab, |row, out| {
            for (i, out) in out.chunks_exact_mut(vocab).enumerate() {
                let q = &q[(row + i) * vocab..][..vocab];
                out.iter_mut().zip(q).for_each(|(d, q)| *d += uniform - part * q);
                out[ids[row + i] as usize] += part * (1.0 - terms.smoothing);
            }
        });
    }
    Ok(dlogits)
}

fn check_likely(logits: &Tensor, likely: Option<&Likely>) -> Result<()> {
    match likely {
        Some(likely) if likely.probabilities.shape() != logits.shape() => Err(shape_error(
            "cross_entropy",
            logits.shape(),
            likely.probabilities.shape(),
        )),
        _ => Ok(()),
    }
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
