//! Values in the types of the format.

use half::{bf16, f16};

use super::blocks::{q4_0, q6_k, q8_0};
use super::rows::in_file_order;
use super::types::TensorType;
use crate::runtime::FloatValues;

/// The values of a float tensor `[rows, cols]` in a type, or the first that does not fit and its position.
pub(super) fn floats(
    kind: TensorType,
    reorder: Option<usize>,
    values: FloatValues,
    cols: usize,
) -> Result<Vec<u8>, (usize, f32)> {
    let mut out = Vec::with_capacity(kind.bytes(values.len()).unwrap_or_default());
    // What has the type already keeps its bits.
    match (kind, &values, reorder) {
        (TensorType::F16, FloatValues::F16(v), None) => {
            out.extend(v.iter().flat_map(|v| v.to_le_bytes()));
            return Ok(out);
        }
        (TensorType::Bf16, FloatValues::Bf16(v), None) => {
            out.extend(v.iter().flat_map(|v| v.to_le_bytes()));
            return Ok(out);
        }
        _ => {}
    }
    let mut values = values.into_f32();
    if let Some(head_dim) = reorder {
        values = in_file_order(&values, cols, head_dim);
    }
    let fits = |v: f32| match kind {
        TensorType::F16 => f16::from_f32(v).is_finite(),
        TensorType::Bf16 => bf16::from_f32(v).is_finite(),
        // The step is an f16, and the largest value is seven steps or more.
        TensorType::Q4_0 | TensorType::Q8_0 | TensorType::Q6K => v.abs() < 7.0 * 65504.0,
        _ => v.is_finite(),
    };
    if let Some(at) = values.iter().position(|&v| !fits(v)) {
        return Err((at, values[at]));
    }
    match kind {
        TensorType::F16 => out.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        TensorType::Bf16 => out.extend(values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes())),
        TensorType::Q4_0 => q4_0::encode(&values, &mut out),
        TensorType::Q8_0 => q8_0::encode(&values, &mut out),
        TensorType::Q6K => q6_k::encode(&values, &mut out),
        _ => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
    }
    Ok(out)
}
