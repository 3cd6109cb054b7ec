//! From the matrices of a model to what the kernels take: every type as it is, but `t2` where `t2` and `t5` lie over one input, so that they are one product.

use std::borrow::Cow;

use onebit_kernels_cpu::t2;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cuda::Gpu;
use onebit_kernels_cuda::chain_gemv::{ChainKind, ChainMatrix, ChainPart, ChainValues};
use onebit_kernels_cuda::decode::{FloatKind, Vocabulary, VocabularyKind, VocabularyMatrix};
use onebit_kernels_cuda::mixed_linear::{LinearKind, LinearPart, LinearStack};
use onebit_kernels_cuda::ternary_gemv::{TernaryCode, TernaryMatrix, TernaryPart};

use super::CudaRuntimeError;
use crate::runtime::{FloatMatrix, FloatValues, Linear};

/// The kernels' code of `layout`.
fn code(layout: Layout) -> TernaryCode {
    match layout {
        Layout::T2 => TernaryCode::T2,
        Layout::T5 => TernaryCode::T5,
        Layout::B1 => TernaryCode::B1,
    }
}

/// The type in which a GPU keeps each of the `linears` of a stack, `name`.
pub(super) fn kinds(name: &str, linears: &[&Linear]) -> Result<Vec<LinearKind>, CudaRuntimeError> {
    let kinds = linears.iter().map(|linear| {
        Ok(match linear {
            Linear::Ternary { layout, .. } => LinearKind::Packed(code(*layout)),
            Linear::Int8 { .. } => LinearKind::Packed(TernaryCode::Int8),
            Linear::Int4 { .. } => LinearKind::Chains(ChainKind::Int4),
            Linear::Float(matrix) => LinearKind::Chains(match &matrix.values {
                FloatValues::F32(_) => ChainKind::F32,
                FloatValues::F16(_) => ChainKind::F16,
                FloatValues::Bf16(_) => ChainKind::Bf16,
                FloatValues::Int8 { .. } => ChainKind::Int8,
                // Those are linears of their own, whose input is not floats.
                other @ (FloatValues::Int4 { .. } | FloatValues::Trits { .. }) => {
                    return Err(CudaRuntimeError::Unsupported {
                        what: name.into(),
                        found: format!("floats as {}", other.type_name()),
                    });
                }
            }),
        })
    });
    let mut kinds = kinds.collect::<Result<Vec<_>, _>>()?;
    let [t2, t5] = [TernaryCode::T2, TernaryCode::T5].map(LinearKind::Packed);
    if kinds.contains(&t2) {
        kinds.iter_mut().filter(|kind| **kind == t5).for_each(|kind| *kind = t2);
    }
    Ok(kinds)
}

/// A linear, and its packed bytes or a copy of them in the code that a GPU gets.
struct Source<'a> {
    linear: &'a Linear,
    packed: Cow<'a, [u8]>,
    kind: LinearKind,
}

fn sources<'a>(name: &str, linears: &[&'a Linear]) -> Result<Vec<Source<'a>>, CudaRuntimeError> {
    let kinds = kinds(name, linears)?;
    let sources = linears.iter().zip(kinds).map(|(&linear, kind)| {
        let packed: Cow<'_, [u8]> = match linear {
            Linear::Ternary {
                layout,
                packed,
                rows,
                cols,
                ..
            } if kind != LinearKind::Packed(code(*layout)) => as_t2(*layout, packed, *rows, *cols).into(),
            Linear::Ternary { packed, .. } => packed[..].into(),
            Linear::Int8 { values, .. } => bytemuck::cast_slice::<i8, u8>(&values[..]).into(),
            Linear::Int4 { .. } | Linear::Float(_) => Cow::default(),
        };
        Source { linear, packed, kind }
    });
    Ok(sources.collect())
}

impl Source<'_> {
    fn part(&self) -> LinearPart<'_> {
        let (rows, cols) = (self.linear.rows(), self.linear.cols());
        let packed = |gamma: f32, steps| {
            let code = match self.kind {
                LinearKind::Packed(code) => code,
                LinearKind::Chains(_) => TernaryCode::Int8,
            };
            LinearPart::Packed(TernaryPart {
                code,
                rows,
                cols,
                packed: &self.packed,
                gamma,
                steps,
            })
        };
        let chains = |values| LinearPart::Chains(ChainPart { rows, cols, values });
        match self.linear {
            Linear::Ternary { scale, .. } => packed(*scale, &[]),
            Linear::Int8 { steps, .. } => packed(0.0, &steps[..]),
            Linear::Int4 { codes, steps, .. } => chains(ChainValues::Int4 {
                codes: &codes[..],
                steps: &steps[..],
            }),
            Linear::Float(matrix) => chains(chain_values(&matrix.values)),
        }
    }
}

/// What the kernels of chains take. Trits are none of that, which [`kinds`] has refused by then.
fn chain_values(values: &FloatValues) -> ChainValues<'_> {
    match values {
        FloatValues::F32(values) => ChainValues::F32(&values[..]),
        FloatValues::F16(values) => ChainValues::F16(&values[..]),
        FloatValues::Bf16(values) => ChainValues::Bf16(&values[..]),
        FloatValues::Int8 { values, steps } => ChainValues::Int8 {
            values: &values[..],
            steps: &steps[..],
        },
        FloatValues::Int4 { codes, steps, .. } => ChainValues::Int4 {
            codes: &codes[..],
            steps: &steps[..],
        },
        FloatValues::Trits { .. } => ChainValues::F32(&[]),
    }
}

/// `linears` one below the other.
pub(super) fn stacked(gpu: &Gpu, name: &str, linears: &[&Linear]) -> Result<LinearStack, CudaRuntimeError> {
    let sources = sources(name, linears)?;
    let parts: Vec<_> = sources.iter().map(Source::part).collect();
    Ok(LinearStack::stacked(gpu, &parts)?)
}

/// Gate and up.
pub(super) fn gated(gpu: &Gpu, name: &str, gate: &Linear, up: &Linear) -> Result<LinearStack, CudaRuntimeError> {
    let sources = sources(name, &[gate, up])?;
    Ok(LinearStack::gated(gpu, sources[0].part(), sources[1].part())?)
}

/// A matrix in `layout`, `[rows, cols]`, as `t2`, whose rows past the end are 0.
fn as_t2(layout: Layout, packed: &[u8], rows: usize, cols: usize) -> Vec<u8> {
    let (mut out, mut four) = (vec![0; t2::bytes(rows, cols)], vec![0; t2::GROUP_ROWS * cols]);
    let groups = packed
        .chunks_exact(layout.group_bytes(cols).max(1))
        .zip(out.chunks_exact_mut(t2::group_bytes(cols).max(1)));
    for (g, (source, out)) in groups.enumerate() {
        layout.unpack(source, t2::GROUP_ROWS, cols, &mut four);
        let there = (rows - g * t2::GROUP_ROWS).min(t2::GROUP_ROWS);
        four[there * cols..].fill(0);
        t2::pack(&four, t2::GROUP_ROWS, cols, out);
    }
    out
}

/// The type in which a GPU keeps an embedding or a head.
pub(super) fn vocabulary_kind(matrix: &FloatMatrix) -> VocabularyKind {
    VocabularyKind::Floats(match &matrix.values {
        FloatValues::F32(_) => FloatKind::F32,
        FloatValues::F16(_) => FloatKind::F16,
        FloatValues::Bf16(_) => FloatKind::Bf16,
        FloatValues::Int8 { .. } => FloatKind::Int8,
        FloatValues::Int4 { .. } => return VocabularyKind::Int4,
        FloatValues::Trits { layout, .. } => return VocabularyKind::Packed(code(*layout)),
    })
}

/// An embedding or a head.
pub(super) fn vocabulary(gpu: &Gpu, matrix: &FloatMatrix) -> Result<Vocabulary, CudaRuntimeError> {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let floats = |kind, bytes: &[u8], steps| {
        VocabularyMatrix::upload(gpu, kind, [rows, cols], bytes, steps).map(Vocabulary::Floats)
    };
    Ok(match &matrix.values {
        FloatValues::F32(values) => floats(FloatKind::F32, bytemuck::cast_slice(&values[..]), None)?,
        FloatValues::F16(values) => floats(FloatKind::F16, bytemuck::cast_slice(&values[..]), None)?,
        FloatValues::Bf16(values) => floats(FloatKind::Bf16, bytemuck::cast_slice(&values[..]), None)?,
        FloatValues::Int8 { values, steps } => {
            floats(FloatKind::Int8, bytemuck::cast_slice(&values[..]), Some(&steps[..]))?
        }
        values @ FloatValues::Int4 { .. } => {
            let values = chain_values(values);
            Vocabulary::Int4(ChainMatrix::new(gpu, ChainPart { rows, cols, values })?)
        }
        FloatValues::Trits {
            layout, packed, scale, ..
        } => {
            let part = TernaryPart {
                code: code(*layout),
                rows,
                cols,
                packed: &packed[..],
                gamma: *scale,
                steps: &[],
            };
            Vocabulary::Packed(TernaryMatrix::stacked(gpu, &[part])?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_becomes_t2() {
        for (rows, cols) in [(1, 1), (5, 600), (8, 512)] {
            let signs: Vec<i8> = (0..rows * cols).map(|i| 1 - 2 * (i * 7 % 5 % 2) as i8).collect();
            let packed = |layout: Layout| {
                let mut packed = vec![0; layout.bytes(rows, cols)];
                layout.pack(&signs, rows, cols, &mut packed);
                packed
            };
            for layout in Layout::ALL {
                assert_eq!(
                    as_t2(layout, &packed(layout), rows, cols),
                    packed(Layout::T2),
                    "{layout:?}"
                );
            }
        }
    }
}
