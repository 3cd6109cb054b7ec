//! Element types.

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float: weights, activations, gradients.
    F32,
    /// Signed byte: quantised activations.
    I8,
    /// Unsigned 32-bit integer: token ids.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::I8 => 1,
            DType::F32 | DType::U32 => 4,
        }
    }
}
