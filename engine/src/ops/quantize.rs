//! Quantisers of weights and activations (BitNet b1.58, Ma et al. 2024), and their soft forms for the anneal phase.

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{quantize as kernel, t2};
use rayon::prelude::*;

use super::elementwise::{axpy, blocks, scale};
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
    /// Whole numbers in ±7 with a step for each output row.
    Int4,
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

/// A weight matrix as the forward and the backward of one step see it.
#[derive(Clone, Debug)]
pub struct EffectiveWeight {
    /// The values used, `[rows, cols]` f32.
    pub dense: Tensor,
    /// In the hard ternary phase, the packed form that the integer product reads, and its scale γ.
    packed: Option<(Buffer<u8>, f32)>,
}

impl EffectiveWeight {
    /// The weight `w` `[rows, cols]` at annealing value `anneal`: 0 is full precision, 1 is hard, between the two the soft
    /// form, which meets both ends.
    ///
    /// # Errors
    /// Elements that are not f32.
    pub fn new(w: &Tensor, precision: Precision, anneal: f32) -> Result<Self> {
        if precision == Precision::Full || anneal <= 0.0 {
            return Ok(EffectiveWeight {
                dense: w.clone(),
                packed: None,
            });
        }
        if precision == Precision::Ternary {
            return if anneal < 1.0 {
                Self::soft_ternary(w, anneal)
            } else {
                Self::hard_ternary(w)
            };
        }
        let hard = match precision {
            Precision::Binary => binary(w)?,
            Precision::Int8 => row_integers(w, 8)?,
            _ => row_integers(w, 4)?,
        };
        if anneal >= 1.0 {
            return Ok(EffectiveWeight {
                dense: hard,
                packed: None,
            });
        }
        let mut dense = scale(1.0 - anneal, w)?;
        axpy(anneal, &hard, &mut dense)?;
        Ok(EffectiveWeight { dense, packed: None })
    }

    fn soft_ternary(w: &Tensor, anneal: f32) -> Result<Self> {
        let gamma = absmean(w)?;
        let isa = w.device().isa();
        let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
        let data = w.f32()?;
        over_rows(dense.f32_mut()?, 1, |i, out| {
            kernel::soft_ternary(isa, &data[i..i + out.len()], gamma, anneal, out)
        });
        Ok(EffectiveWeight { dense, packed: None })
    }

    fn hard_ternary(w: &Tensor) -> Result<Self> {
        let (rows, cols) = (w.shape().rows(), w.shape().last());
        let (trits, gamma) = trits_of(w)?;
        let mut packed = Buffer::<u8>::for_overwrite(t2::bytes(rows, cols));
        let group = t2::group_bytes(cols).max(1);
        packed.par_chunks_mut(group).enumerate().for_each(|(g, bytes)| {
            let these = 4.min(rows - 4 * g);
            t2::pack(&trits[4 * g * cols..(4 * g + these) * cols], these, cols, bytes);
        });
        let mut dense = Tensor::for_overwrite(w.device(), w.shape().clone());
        over_rows(dense.f32_mut()?, 1, |i, out| {
            for (d, &t) in out.iter_mut().zip(&trits[i..]) {
                *d = f32::from(t) * gamma;
            }
        });
        Ok(EffectiveWeight {
            dense,
            packed: Some((packed, gamma)),
        })
    }

    /// The packed ternary form and γ, in the hard ternary phase.
    pub fn packed(&self) -> Option<(&[u8], f32)> {
        self.packed.as_ref().map(|(bytes, gamma)| (&**bytes, *gamma))
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

fn binary(w: &Tensor) -> Result<Tensor> {
    let gamma = absmean(w)?;
    let isa = w.device().isa();
    let mut signs = vec![0i8; w.len()];
    kernel::binary_i8(isa, w.f32()?, &mut signs);
    Tensor::from_f32(
        w.device(),
        w.shape().clone(),
        signs.iter().map(|&s| f32::from(s) * gamma).collect(),
    )
}

fn row_integers(w: &Tensor, bits: u32) -> Result<Tensor> {
    let cols = w.shape().last();
    let isa = w.device().isa();
    let mut integers = vec![0i8; w.len()];
    let mut steps = vec![0.0; w.shape().rows()];
    kernel::int_rowwise(isa, w.f32()?, cols, bits, &mut integers, &mut steps);
    let dense = integers
        .chunks(cols.max(1))
        .zip(&steps)
        .flat_map(|(row, step)| row.iter().map(move |&q| f32::from(q) * step));
    Tensor::from_f32(w.device(), w.shape().clone(), dense.collect())
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
