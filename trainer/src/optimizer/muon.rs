//! Muon (Jordan et al. 2024): momentum, made orthogonal by five Newton–Schulz iterations.
//!
//! The update is scaled by `0.2·sqrt(max(rows, cols))`, which gives it the root mean square that AdamW's updates have (Liu et al. 2025), so one
//! learning rate serves both.

use onebit_engine::Tensor;
use onebit_engine::ops::elementwise::{axpy, scale, sum_squares};
use onebit_engine::ops::matmul::{Layout, matmul};

use crate::Result;

/// Decay of the momentum.
pub(super) const MOMENTUM: f32 = 0.95;
/// Coefficients of the quintic iteration `X ← aX + (bA + cA²)X`, `A = XXᵀ`.
pub(super) const QUINTIC: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
/// Iterations; singular values then lie in about 0.7..1.2.
pub(super) const ITERATIONS: usize = 5;

/// One update of `parameter` `[rows, cols]` from `gradient`.
pub(super) fn step(
    (lr, weight_decay, grad_scale): (f32, f32, f32),
    parameter: &mut Tensor,
    gradient: &Tensor,
    momentum: &mut Tensor,
) -> Result<()> {
    let gradient = scale(grad_scale, gradient)?;
    let mut kept = scale(MOMENTUM, momentum)?;
    axpy(1.0, &gradient, &mut kept)?;
    *momentum = kept;
    // Nesterov: look one step ahead along the momentum.
    let mut ahead = gradient;
    axpy(MOMENTUM, momentum, &mut ahead)?;

    let (rows, cols) = (parameter.shape().rows(), parameter.shape().last());
    let update = orthogonalize(&ahead)?;
    let size = 0.2 * (rows.max(cols) as f32).sqrt();
    let decayed = scale(1.0 - lr * weight_decay, parameter)?;
    *parameter = decayed;
    Ok(axpy(-lr * size, &update, parameter)?)
}

/// The nearest matrix with singular values near 1, by Newton–Schulz.
pub(super) fn orthogonalize(g: &Tensor) -> Result<Tensor> {
    let (rows, cols) = (g.shape().rows(), g.shape().last());
    let norm = (sum_squares(g)?.sqrt() as f32).max(1e-12);
    let mut x = scale(1.0 / norm, g)?.reshape([rows, cols])?;
    let (a, b, c) = QUINTIC;
    // The square matrix is taken on the shorter side.
    let wide = rows <= cols;
    for _ in 0..ITERATIONS {
        let gram = if wide {
            matmul(Layout::NT, &x, &x)?
        } else {
            matmul(Layout::TN, &x, &x)?
        };
        let mut polynomial = scale(b, &gram)?;
        axpy(c, &matmul(Layout::NN, &gram, &gram)?, &mut polynomial)?;
        let mut next = if wide {
            matmul(Layout::NN, &polynomial, &x)?
        } else {
            matmul(Layout::NN, &x, &polynomial)?
        };
        axpy(a, &x, &mut next)?;
        x = next;
    }
    Ok(x.reshape(g.shape().clone())?)
}
