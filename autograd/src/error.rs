//! The error of this crate.

use onebit_engine::{EngineError, Shape};

/// What can go wrong in a differentiable operation.
#[derive(Debug, thiserror::Error)]
pub enum AutogradError {
    /// The engine refused an operation.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// `backward` without a seed needs a loss of one element.
    #[error("backward: the loss must have one element, found shape {0}; use backward_with for others")]
    NotScalar(Shape),
    /// Variables of different tapes were combined, or asked of the wrong tape.
    #[error("{0}: the variable belongs to another tape")]
    OtherTape(&'static str),
    /// A gradient check failed.
    #[error("gradcheck of {name}: input {input}, element {element}: analytic {analytic}, numeric {numeric}")]
    GradCheck {
        /// The operation.
        name: String,
        /// Which input.
        input: usize,
        /// Which element of it.
        element: usize,
        /// What the backward says.
        analytic: f64,
        /// What central differences say.
        numeric: f64,
    },
}
