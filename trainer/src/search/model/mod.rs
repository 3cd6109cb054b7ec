//! A model as a search sees it: its matrices, what each may be, what a map weighs and how it scores.
//!
//! ```text
//! source ─ Recast ─▶ f16.1bit  int8.1bit  int4.1bit  ternary.1bit  binary.1bit     the palette: every matrix in every width, once
//!                        └──────────┴─────────┬┴─────────────┴──────────┘
//!                                             ▼ mapped, never copied
//! map ─────────────────────────────▶ PackedModel::picked ─▶ windows of the text ─▶ nats a token: what `onebit eval` says of the file
//! ```
//! - [`Palette`]: files in a folder, named after the content of the source, so that another search of the same model finds them.
//! - [`ModelEvaluator`]: a map's exact bytes and its loss over the first tokens of a text, in windows of the context that do not overlap.
//! - [`measure`]: what each width of each matrix alone does to the loss and to the residual stream behind its block, from one pass of the reference: what lies before a block does not change
//!   with it, so a measurement runs from there on. Kept in a file as it goes.

mod evaluator;
mod palette;
mod records;
mod sensitivity;
#[cfg(test)]
mod tests;

pub use evaluator::{Calibration, ModelEvaluator, Score};
pub use palette::{Palette, Weighing};
pub use sensitivity::{Cell, Measured, measure};
