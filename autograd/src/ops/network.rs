//! The layers of a language model.

use onebit_engine::ops as engine;
use onebit_engine::ops::activation::Gate;
use onebit_engine::ops::attention::{AttentionDropout, AttentionShape};
use onebit_engine::ops::bit_linear::BitLinearState;
use onebit_engine::ops::cross_entropy::{Likely, LossTerms, Losses};
use onebit_engine::ops::matmul::Products;
use onebit_engine::ops::quantize::{EffectiveWeight, Input, Precision};
use onebit_engine::ops::rope::RopeTable;
use onebit_engine::rng::Key;
use onebit_engine::{Shape, Tensor};

use super::{only, single};
use crate::{Result, Var};

/// Rows `ids` of `table` `[vocab, dim]`: `[tokens, dim]`.
///
/// # Errors
/// An id outside the table.
pub fn embedding(table: &Var, ids: &Tensor) -> Result<Var> {
    let y = engine::embedding::embedding(table.tensor(), ids)?;
    let (rows, ids) = (table.shape().rows(), ids.clone());
    let backward = move |dy: Vec<Option<Tensor>>| {
        Ok(vec![Some(engine::embedding::embedding_backward(
            rows,
            &ids,
            &only(dy)?,
        )?)])
    };
    single(table.tape().record(&[table], vec![y], backward)?)
}

/// RMSNorm of each run of `w.len()` elements.
///
/// # Errors
/// Shapes that do not fit.
pub fn rms_norm(x: &Var, w: &Var, eps: f32) -> Result<Var> {
    let (input, weight) = (x.tensor().clone(), w.tensor().clone());
    let y = engine::rms_norm::rms_norm(&input, &weight, eps)?;
    let backward = move |dy: Vec<Option<Tensor>>| {
        let (dx, dw) = engine::rms_norm::rms_norm_backward(&input, &weight, eps, &only(dy)?)?;
        Ok(vec![Some(dx), Some(dw)])
    };
    single(x.tape().record(&[x, w], vec![y], backward)?)
}

/// One input through several bit-linear weights; see [`onebit_engine::ops::bit_linear`] for the maths and the straight-through gradient.
///
/// # Errors
/// Columns that do not agree.
pub fn bit_linear(x: &Var, weights: &[(&Var, Precision)], anneal: f32, products: Products) -> Result<Vec<Var>> {
    let tensors: Vec<_> = weights.iter().map(|(w, p)| (w.tensor(), *p)).collect();
    let (outputs, state) = engine::bit_linear::bit_linear(x.tensor(), &tensors, anneal, products)?;
    let weights: Vec<&Var> = weights.iter().map(|(w, _)| *w).collect();
    recorded(x, &weights, outputs, state)
}

/// Records the product of `x` with `weights`.
fn recorded(x: &Var, weights: &[&Var], outputs: Vec<Tensor>, state: BitLinearState) -> Result<Vec<Var>> {
    let shape = x.shape().clone();
    let shapes: Vec<Shape> = weights.iter().map(|w| w.shape().clone()).collect();
    let mut inputs = vec![x];
    inputs.extend(weights);
    let backward = move |dys: Vec<Option<Tensor>>| {
        let (dx, dws) = engine::bit_linear::bit_linear_backward(&state, &dys)?;
        let mut all = vec![dx.map(|dx| dx.reshape(shape)).transpose()?];
        for (dw, shape) in dws.into_iter().zip(shapes) {
            all.push(dw.map(|dw| dw.reshape(shape)).transpose()?);
        }
        Ok(all)
    };
    x.tape().record(&inputs, outputs, backward)
}

/// A table as a phase has it, for all that read it: an embedding, a head, or both.
#[derive(Clone)]
pub struct Table {
    /// Its values `[vocab, dim]`; their gradient is that of the master weights (straight through).
    pub values: Var,
    /// The same, with the packed form of hard ternary weights.
    weight: EffectiveWeight,
}

/// The table `w` `[vocab, dim]` at annealing value `anneal`: `w + constant`, as far as gradients know, so what flows to the values flows on unchanged.
///
/// # Errors
/// Elements that are not f32.
pub fn table(w: &Var, precision: Precision, anneal: f32) -> Result<Table> {
    let weight = EffectiveWeight::new(w.tensor(), precision, anneal)?;
    let values = if precision == Precision::Full || anneal <= 0.0 {
        w.clone()
    } else {
        single(w.tape().record(&[w], vec![weight.dense.clone()], Ok)?)?
    };
    Ok(Table { values, weight })
}

/// `x · tableᵀ` `[tokens, vocab]`, of an input that is rounded as `input` says: a head. Straight through, as [`bit_linear`].
///
/// # Errors
/// Columns that do not agree.
pub fn head(x: &Var, table: &Table, input: Input, anneal: f32, products: Products) -> Result<Var> {
    let weights = vec![(table.weight.clone(), input)];
    let (outputs, state) = engine::bit_linear::multiply(x.tensor(), weights, anneal, products)?;
    recorded(x, &[&table.values], outputs, state).and_then(single)
}

/// `x · wᵀ`, not quantised.
///
/// # Errors
/// Columns that do not agree.
pub fn linear(x: &Var, w: &Var, products: Products) -> Result<Var> {
    single(bit_linear(x, &[(w, Precision::Full)], 0.0, products)?)
}

/// Rotary embedding of `[batch·seq, heads·head_dim]`.
///
/// # Errors
/// Shapes that do not fit the table.
pub fn rope(x: &Var, table: &RopeTable, seq: usize) -> Result<Var> {
    let y = engine::rope::rope(x.tensor(), table, seq, false)?;
    let table = table.clone();
    let backward = move |dy: Vec<Option<Tensor>>| Ok(vec![Some(engine::rope::rope(&only(dy)?, &table, seq, true)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// Causal grouped-query attention, in training perhaps with `dropout` of the probabilities; only the log-sum-exp of each row is kept, scores and masks are
/// computed again in the backward.
///
/// # Errors
/// Shapes that do not fit.
pub fn attention(shape: AttentionShape, dropout: Option<AttentionDropout>, q: &Var, k: &Var, v: &Var) -> Result<Var> {
    let (tq, tk, tv) = (q.tensor().clone(), k.tensor().clone(), v.tensor().clone());
    let (out, lse) = engine::attention::attention(&shape, dropout, &tq, &tk, &tv)?;
    let saved = out.clone();
    let backward = move |dy: Vec<Option<Tensor>>| {
        let inputs = [&tq, &tk, &tv];
        let gradients = engine::attention::attention_backward(&shape, dropout, inputs, &saved, &lse, &only(dy)?)?;
        Ok(gradients.into_iter().map(Some).collect())
    };
    single(q.tape().record(&[q, k, v], vec![out], backward)?)
}

/// `relu(x)²`.
///
/// # Errors
/// Elements that are not f32.
pub fn relu2(x: &Var) -> Result<Var> {
    let input = x.tensor().clone();
    let y = engine::activation::relu2(&input)?;
    let backward =
        move |dy: Vec<Option<Tensor>>| Ok(vec![Some(engine::activation::relu2_backward(&input, &only(dy)?)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// `gate(g) · u`.
///
/// # Errors
/// Shapes that differ.
pub fn gated(gate: Gate, g: &Var, u: &Var) -> Result<Var> {
    let (tg, tu) = (g.tensor().clone(), u.tensor().clone());
    let y = engine::activation::gated(gate, &tg, &tu)?;
    let backward = move |dy: Vec<Option<Tensor>>| {
        let (dg, du) = engine::activation::gated_backward(gate, &tg, &tu, &only(dy)?)?;
        Ok(vec![Some(dg), Some(du)])
    };
    single(g.tape().record(&[g, u], vec![y], backward)?)
}

/// Dropout with the mask of `key`; nothing happens, and nothing is recorded, at `p = 0`.
///
/// # Errors
/// Elements that are not f32.
pub fn dropout(x: &Var, p: f32, key: Key) -> Result<Var> {
    if p <= 0.0 {
        return Ok(x.clone());
    }
    let y = engine::dropout::dropout(x.tensor(), p, key)?;
    let backward = move |dy: Vec<Option<Tensor>>| Ok(vec![Some(engine::dropout::dropout(&only(dy)?, p, key)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// Row `r` of `x` times `factors[r]`.
///
/// # Errors
/// As many factors as there are not rows.
pub fn scale_rows(x: &Var, factors: Vec<f32>) -> Result<Var> {
    let y = engine::elementwise::scale_rows(x.tensor(), &factors)?;
    let backward =
        move |dy: Vec<Option<Tensor>>| Ok(vec![Some(engine::elementwise::scale_rows(&only(dy)?, &factors)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// `cap · tanh(x / cap)`.
///
/// # Errors
/// Elements that are not f32.
pub fn softcap(x: &Var, cap: f32) -> Result<Var> {
    let y = engine::softcap::softcap(x.tensor(), cap)?;
    let saved = y.clone();
    let backward =
        move |dy: Vec<Option<Tensor>>| Ok(vec![Some(engine::softcap::softcap_backward(&saved, only(dy)?, cap)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// Mean cross-entropy, with what `terms` adds and teachers find `likely`, of `logits` `[tokens, vocab]`, shape `[1]`, and the [`Losses`] to report.
///
/// # Errors
/// Shapes that do not fit, or a target outside the vocabulary.
pub fn cross_entropy(
    logits: &Var,
    targets: &Tensor,
    terms: LossTerms,
    likely: Option<Likely>,
) -> Result<(Var, Losses)> {
    let losses = engine::cross_entropy::cross_entropy(logits.tensor(), targets, terms, likely.as_ref())?;
    let (saved, targets, lse) = (logits.tensor().clone(), targets.clone(), losses.lse.clone());
    let value = Tensor::full(saved.device(), [1], losses.smoothed as f32);
    let backward = move |dy: Vec<Option<Tensor>>| {
        let upstream = only(dy)?.item()?;
        Ok(vec![Some(engine::cross_entropy::cross_entropy_backward(
            &saved,
            &targets,
            &lse,
            (terms, likely.as_ref()),
            upstream,
        )?)])
    };
    let loss = single(logits.tape().record(&[logits], vec![value], backward)?)?;
    Ok((loss, losses))
}
