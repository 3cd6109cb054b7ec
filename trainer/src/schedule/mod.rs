//! Schedules by optimiser step: the learning rate, and the annealing value of the quantisation.

mod lr;
mod quant;

pub use lr::{LrDecay, LrSchedule};
pub use quant::{Phase, QuantSchedule};
