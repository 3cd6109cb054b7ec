//! Quantisers of weights and activations (BitNet b1.58, Ma et al. 2024), and their soft forms for the anneal phase.
//!
//! ```text
//! weight.rs   what a weight is in a phase: full, the soft form, or the numbers of its precision
//! groups.rs   int4: weights −8..=7 and inputs in bytes, each with a step for 32 columns
//! mod.rs      trits and γ, activations as bytes with a scale a token, their integer product
//! ```

mod groups;
mod weight;

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{quantize as kernel, t2};
use rayon::prelude::*;

use super::elementwise::{axpy, blocks, scale};
pub use groups::blend_groups;
pub use weight::EffectiveWeight;

use crate::buffer::Buffer;
use crate::error::shape_error;
use crate::parallel::{over_rows, over_rows2};
use crate::{EngineError, Result, Shape, Tensor};

/// What a linear layer's weights become in the hard phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not quantised; activations neither.
    Full,
    /// `{−1, 0, 1}·γ`, γ = mean |W| of the tensor.
    Ternary,
    /// `±γ`, γ = mean |W| of the tensor.
    Binary,
    /// Whole numbers in ±127 with a step for each output row.
    Int8,
    /// Whole numbers in −8..=7 with an f16 step for each 32 columns (`onebit_kernels_cpu::int4_gemv`).
    Int4,
}

/// What a product with quantised weights reads of its input `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `x`: of weights in full precision, and of an int8 head.
    Float,
    /// Bytes with a scale for each token ([`QuantizedActivations`]): of the linears of a block, and of a ternary or binary head.
    Tokens,
    /// Bytes with a step for each token and 32 columns: of an int4 head.
    Groups,
}

/// Activations as int8, a scale for each token.
#[derive(Clone, Debug)]
pub struct QuantizedActivations {
    /// `[tokens, padded]`, zeros behind `cols`; `padded` is what packed ternary rows take.
    values: Tensor,
    /// `127 / max|x|` of each token `[tokens]`.
    scales: Tensor,
    cols: usize,
}

impl QuantizedActivations {
    /// Quantises each row of `x` `[tokens, cols]` by its own largest magnitude.
    ///
    /// # Errors
    /// Elements that are not f32.
    pub fn new(x: &Tensor) -> Result<Self> {
        let (tokens, cols) = (x.shape().rows(), x.shape().last());
        let padded = t2::padded_cols(cols);
        let isa = x.device().isa();
        let mut values = Buffer::<i8>::for_overwrite(tokens * padded);
        let mut scales = Tensor::for_overwrite(x.device(), [tokens]);
        let data = x.f32()?;
        over_rows2((&mut values, padded), (scales.f32_mut()?, 1), |row, values, scales| {
            kernel::absmax_i8(
                isa,
                &data[row * cols..(row + scales.len()) * cols],
                cols,
                values,
                padded,
                scales,
            );
        });
        let values = Tensor::i8_from_buffer(x.device(), Shape::from([tokens, padded]), values);
        Ok(QuantizedActivations { values, scales, cols })
    }

    /// The values that the integers stand for, `[tokens, cols]`.
    ///
    /// # Errors
    /// None in practice: the element types are those of the constructor.
    pub fn dequantize(&self) -> Result<Tensor> {
        let (tokens, padded, cols) = (self.scales.len(), self.values.shape().last(), self.cols);
        let isa = self.values.device().isa();
        let mut out = Tensor::for_overwrite(self.values.device(), [tokens, cols]);
        let (values, scales) = (self.values.i8()?, self.scales.f32()?);
        over_rows(out.f32_mut()?, cols, |row, out| {
            let rows = out.len() / cols;
            kernel::dequantize_rows(
                isa,
                &values[row * padded..(row + rows) * padded],
                padded,
                cols,
                &scales[row..row + rows],
                out,
            );
        });
        Ok(out)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.values.len() + 4 * self.scales.len()
    }
}

/// γ = max(mean |W|, 1e-5).
///
/// # Errors
/// Elements that are not f32.
pub fn absmean(w: &Tensor) -> Result<f32> {
    let isa = w.device().isa();
    Ok(kernel::absmean_scale(
        blocks(w.f32()?, |b| kernel::abs_sum(isa, b)),
        w.len(),
    ))
}

/// The trits of `w` and γ.
///
/// # Errors
/// Elements that are not f32.
pub fn ternary_trits(w: &Tensor) -> Result<(Vec<i8>, f32)> {
    trits_of(w).map(|(trits, gamma)| (trits.to_vec(), gamma))
}

fn trits_of(w: &Tensor) -> Result<(Buffer<i8>, f32)> {
    let gamma = absmean(w)?;
    let isa = w.device().isa();
    let mut trits = Buffer::<i8>::for_overwrite(w.len());
    trits
        .par_chunks_mut(1 << 15)
        .zip(w.f32()?.par_chunks(1 << 15))
        .for_each(|(t, w)| kernel::ternary_i8(isa, w, gamma, t));
    Ok((trits, gamma))
}

/// `(1−a)·x + a·q(x)`: activations of the anneal phase.
///
/// # Errors
/// Elements that are not f32.
pub fn blend_activations(x: &Tensor, anneal: f32) -> Result<Tensor> {
    let mut blended = scale(1.0 - anneal, x)?;
    let quantized = QuantizedActivations::new(x)?.dequantize()?.reshape(x.shape().clone())?;
    axpy(anneal, &quantized, &mut blended)?;
    Ok(blended)
}

/// `xq · Wqᵀ · γ / s` with exact integer sums: `[tokens, rows]`.
///
/// # Errors
/// Columns that do not agree.
pub fn ternary_product(
    x: &QuantizedActivations,
    packed: &[u8],
    gamma: f32,
    rows: usize,
    cols: usize,
) -> Result<Tensor> {
    use onebit_kernels_cpu::ternary_gemm as gemm;
    /// Tokens of a task: the integer sums of one stay in the second-level cache.
    const TOKENS: usize = 128;
    if x.cols != cols {
        return Err(shape_error("ternary_product", format!("{cols} columns"), x.cols));
    }
    let isa = x.values.device().isa();
    let padded = x.values.shape().last();
    let mut out = Tensor::for_overwrite(x.values.device(), [x.scales.len(), rows]);
    let (values, scales) = (x.values.i8()?, x.scales.f32()?);
    out.f32_mut()?
        .par_chunks_mut((TOKENS * rows).max(1))
        .enumerate()
        .for_each_init(
            || {
                let scratch = Buffer::<u8>::for_overwrite(gemm::scratch_len(cols));
                (scratch, Buffer::<i32>::for_overwrite(TOKENS * rows))
            },
            |(scratch, sums), (i, out)| {
                let (first, tokens) = (i * TOKENS, out.len() / rows);
                let sums = &mut sums[..out.len()];
                gemm::ternary_gemm(
                    isa,
                    Layout::T2,
                    packed,
                    rows,
                    cols,
                    &values[first * padded..(first + tokens) * padded],
                    tokens,
                    sums,
                    scratch,
                );
                for ((out, sums), s) in out
                    .chunks_exact_mut(rows)
                    .zip(sums.chunks_exact(rows))
                    .zip(&scales[first..])
                {
                    let factor = gamma / s;
                    for (y, &sum) in out.iter_mut().zip(sums) {
                        *y = sum as f32 * factor;
                    }
                }
            },
        );
    Ok(out)
}

/// Fraction of zeros and of weights beyond the clamp (`|W| ≥ 1.5 γ`) among ternary weights; for metrics.
///
/// # Errors
/// Elements that are not f32, or none at all.
pub fn ternary_statistics(w: &Tensor) -> Result<(f64, f64)> {
    let (trits, gamma) = ternary_trits(w)?;
    if trits.is_empty() {
        return Err(EngineError::Length {
            len: 0,
            shape: w.shape().clone(),
        });
    }
    let zeros = trits.iter().filter(|&&t| t == 0).count();
    let clipped = w.f32()?.iter().filter(|x| x.abs() >= 1.5 * gamma).count();
    Ok((zeros as f64 / trits.len() as f64, clipped as f64 / trits.len() as f64))
}
