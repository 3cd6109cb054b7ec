//! Sums, products, reshaping.

use onebit_engine::ops::elementwise;
use onebit_engine::ops::matmul::{self as engine, Layout};
use onebit_engine::{Shape, Tensor};

use super::{only, single};
use crate::{Result, Var};

/// `a + b`.
///
/// # Errors
/// Shapes that differ.
pub fn add(a: &Var, b: &Var) -> Result<Var> {
    let y = elementwise::add(a.tensor(), b.tensor())?;
    let backward = |dy: Vec<Option<Tensor>>| {
        let dy = only(dy)?;
        Ok(vec![Some(dy.clone()), Some(dy)])
    };
    single(a.tape().record(&[a, b], vec![y], backward)?)
}

/// `x + alpha · y`: a residual connection.
///
/// # Errors
/// Shapes that differ.
pub fn add_scaled(x: &Var, y: &Var, alpha: f32) -> Result<Var> {
    let sum = if alpha == 1.0 {
        elementwise::add(x.tensor(), y.tensor())?
    } else {
        let mut sum = elementwise::scale(alpha, y.tensor())?;
        elementwise::axpy(1.0, x.tensor(), &mut sum)?;
        sum
    };
    let backward = move |dy: Vec<Option<Tensor>>| {
        let dy = only(dy)?;
        let scaled = if alpha == 1.0 {
            dy.clone()
        } else {
            elementwise::scale(alpha, &dy)?
        };
        Ok(vec![Some(dy), Some(scaled)])
    };
    single(x.tape().record(&[x, y], vec![sum], backward)?)
}

/// `a · b` element by element.
///
/// # Errors
/// Shapes that differ.
pub fn mul(a: &Var, b: &Var) -> Result<Var> {
    let (x, y) = (a.tensor().clone(), b.tensor().clone());
    let product = elementwise::mul(&x, &y)?;
    let backward = move |dy: Vec<Option<Tensor>>| {
        let dy = only(dy)?;
        Ok(vec![Some(elementwise::mul(&dy, &y)?), Some(elementwise::mul(&dy, &x)?)])
    };
    single(a.tape().record(&[a, b], vec![product], backward)?)
}

/// `alpha · x`.
///
/// # Errors
/// Elements that are not f32.
pub fn scale(x: &Var, alpha: f32) -> Result<Var> {
    let y = elementwise::scale(alpha, x.tensor())?;
    let backward = move |dy: Vec<Option<Tensor>>| Ok(vec![Some(elementwise::scale(alpha, &only(dy)?)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// Sum of all elements, shape `[1]`.
///
/// # Errors
/// Elements that are not f32.
pub fn sum(x: &Var) -> Result<Var> {
    let (device, shape) = (x.tensor().device(), x.shape().clone());
    let total = elementwise::sum(x.tensor())? as f32;
    let backward = move |dy: Vec<Option<Tensor>>| Ok(vec![Some(Tensor::full(device, shape, only(dy)?.item()?))]);
    single(
        x.tape()
            .record(&[x], vec![Tensor::full(device, [1], total)], backward)?,
    )
}

/// Mean of all elements, shape `[1]`.
///
/// # Errors
/// Elements that are not f32.
pub fn mean(x: &Var) -> Result<Var> {
    scale(&sum(x)?, 1.0 / x.tensor().len() as f32)
}

/// The same elements under another shape.
///
/// # Errors
/// A shape with another number of elements.
pub fn reshape(x: &Var, shape: impl Into<Shape>) -> Result<Var> {
    let before = x.shape().clone();
    let y = x.tensor().reshape(shape)?;
    let backward = move |dy: Vec<Option<Tensor>>| Ok(vec![Some(only(dy)?.reshape(before)?)]);
    single(x.tape().record(&[x], vec![y], backward)?)
}

/// `a · b` for matrices `[m, k]` and `[k, n]`.
///
/// # Errors
/// Inner extents that differ.
pub fn matmul(a: &Var, b: &Var) -> Result<Var> {
    let (x, y) = (a.tensor().clone(), b.tensor().clone());
    let product = engine::matmul(Layout::NN, &x, &y)?;
    let backward = move |dy: Vec<Option<Tensor>>| {
        let dy = only(dy)?;
        let da = engine::matmul(Layout::NT, &dy, &y)?.reshape(x.shape().clone())?;
        let db = engine::matmul(Layout::TN, &x, &dy)?.reshape(y.shape().clone())?;
        Ok(vec![Some(da), Some(db)])
    };
    single(a.tape().record(&[a, b], vec![product], backward)?)
}
