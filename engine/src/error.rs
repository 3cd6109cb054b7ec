//! The error of this crate.

use crate::{DType, Shape};

/// What can go wrong in a tensor operation.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EngineError {
    /// Operands whose shapes do not fit.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: String,
        /// What it got.
        found: String,
    },
    /// A tensor of another element type than the operation takes.
    #[error("{op}: expected {expected:?} elements, found {found:?}")]
    DType {
        /// The operation.
        op: &'static str,
        /// What it needs.
        expected: DType,
        /// What it got.
        found: DType,
    },
    /// Data whose length is not that of the shape.
    #[error("{len} elements do not fill the shape {shape}")]
    Length {
        /// Elements given.
        len: usize,
        /// Shape asked for.
        shape: Shape,
    },
    /// A token id at or past the table's end.
    #[error("{op}: id {id} at position {position} is outside the {rows} rows")]
    Id {
        /// The operation.
        op: &'static str,
        /// The id.
        id: u32,
        /// Where it stands.
        position: usize,
        /// Rows of the table, or classes.
        rows: usize,
    },
    /// `ONEBIT_ISA` names no path of this machine.
    #[error("ONEBIT_ISA={name}: no such CPU path here; available: {available}; unset it to use the fastest")]
    Isa {
        /// What the variable holds.
        name: String,
        /// What this CPU has.
        available: String,
    },
}

/// Shorthand for a shape error.
pub(crate) fn shape_error(op: &'static str, expected: impl ToString, found: impl ToString) -> EngineError {
    EngineError::Shape {
        op,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
