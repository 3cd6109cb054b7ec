//! Ternary linears: from the forms in which a file holds them to trits and γ.

use super::blocks::{i2_s, tq1_0, tq2_0};
use super::container::{Gguf, TensorInfo};
use super::error::GgufError;
use super::types::TensorType;
use half::{bf16, f16};

/// γ where all weights are zero, so that nothing tells it: the smallest that training gives (ARCHITECTURE.md §2.1).
const LEAST_SCALE: f32 = 1e-5;

/// A scale that the file gives beside the blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Declared {
    /// An f32 tensor `….scale`: multiplies what the blocks say.
    Factor(f32),
    /// γ itself, of which the blocks have the nearest f16.
    Exact(f32),
}

/// The trits of a tensor, row by row, and γ. `magnitude` is what [`magnitude`] found in a float tensor.
pub(super) fn read(
    gguf: &Gguf,
    info: &TensorInfo,
    magnitude: f32,
    declared: Option<Declared>,
) -> Result<(Vec<i8>, f32), GgufError> {
    let mut trits = vec![0i8; info.len()];
    let mut scales = BlockScales::new(info);
    let data = gguf.data(info);
    let decoded = match info.kind {
        TensorType::Tq1_0 => tq1_0::decode(data, &mut trits, |d| scales.add(d)),
        TensorType::Tq2_0 => tq2_0::decode(data, &mut trits, |d| scales.add(d)),
        TensorType::I2S => i2_s::decode(data, &mut trits).map(|d| scales.add(d)),
        _ => {
            let mut trits = trits.iter_mut();
            floats(data, info.kind, &mut |v| {
                if let Some(trit) = trits.next() {
                    *trit = if v == 0.0 { 0 } else { v.signum() as i8 };
                }
                true
            });
            scales.add(magnitude);
            Ok(())
        }
    };
    decoded.map_err(|at| GgufError::Code {
        name: info.name.clone(),
        at,
    })?;
    // Whatever its codes are, the weights of a block with the scale 0 are 0.
    let block = info.len() / scales.blocks.max(1);
    for &zero in &scales.zeros {
        trits[zero * block..(zero + 1) * block].fill(0);
    }
    Ok((trits, scales.gamma(declared)?))
}

/// The one magnitude that the weights of a float tensor have beside 0, if there is one; 0 of a tensor of zeros.
pub(super) fn magnitude(gguf: &Gguf, info: &TensorInfo) -> Option<f32> {
    let mut found = 0.0f32;
    let one = floats(gguf.data(info), info.kind, &mut |v| {
        let v = v.abs();
        if v != 0.0 && found == 0.0 {
            found = v;
        }
        v == 0.0 || v == found
    });
    one.then_some(found)
}

/// Calls `each` with the values of a float tensor until it says no; whether it never did. No value of another type is read.
fn floats(data: &[u8], kind: TensorType, each: &mut dyn FnMut(f32) -> bool) -> bool {
    match kind {
        TensorType::F32 => data.as_chunks::<4>().0.iter().all(|b| each(f32::from_le_bytes(*b))),
        TensorType::F16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .all(|b| each(f16::from_le_bytes(*b).to_f32())),
        TensorType::Bf16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .all(|b| each(bf16::from_le_bytes(*b).to_f32())),
        _ => false,
    }
}

/// The scales of a tensor's blocks, which must be one; 0 is the scale of a block without weights other than 0.
struct BlockScales<'i> {
    info: &'i TensorInfo,
    blocks: usize,
    /// Those whose scale is 0.
    zeros: Vec<usize>,
    scale: f32,
    problem: Option<GgufError>,
}

impl<'i> BlockScales<'i> {
    const fn new(info: &'i TensorInfo) -> Self {
        Self {
            info,
            blocks: 0,
            zeros: Vec::new(),
            scale: 0.0,
            problem: None,
        }
    }

    fn add(&mut self, d: f32) {
        let name = || self.info.name.clone();
        if self.problem.is_some() {
        } else if d == 0.0 {
            self.zeros.push(self.blocks);
        } else if !(d > 0.0 && d.is_finite()) {
            self.problem = Some(GgufError::Scale {
                name: name(),
                found: d,
                expected: "a positive finite number".to_string(),
            });
        } else if self.scale == 0.0 {
            self.scale = d;
        } else if self.scale != d {
            self.problem = Some(GgufError::Scales {
                name: name(),
                block: self.blocks,
                found: d,
                expected: self.scale,
            });
        }
        self.blocks += 1;
    }

    /// γ from the blocks' scale and the declared one.
    fn gamma(self, declared: Option<Declared>) -> Result<f32, GgufError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let refuse = |found: f32, expected: String| {
            Err(GgufError::Scale {
                name: self.info.name.clone(),
                found,
                expected,
            })
        };
        let gamma = match declared {
            None => self.scale,
            Some(Declared::Factor(factor)) if self.scale == 0.0 => factor,
            Some(Declared::Factor(factor)) => self.scale * factor,
            Some(Declared::Exact(gamma)) => {
                let blocks = match self.info.kind {
                    TensorType::I2S | TensorType::F32 => gamma,
                    TensorType::Bf16 => bf16::from_f32(gamma).to_f32(),
                    _ => f16::from_f32(gamma).to_f32(),
                };
                if self.scale != 0.0 && self.scale != blocks {
                    let expected = format!("{blocks} in the blocks, as {} says", super::keys::LINEAR_SCALES);
                    return refuse(self.scale, expected);
                }
                gamma
            }
        };
        match gamma {
            0.0 => Ok(LEAST_SCALE),
            gamma if gamma > 0.0 && gamma.is_finite() => Ok(gamma),
            gamma => refuse(gamma, "a positive finite number".to_string()),
        }
    }
}
