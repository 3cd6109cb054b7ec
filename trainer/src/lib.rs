//! Training of BitNet b1.58 models: data, optimiser, schedules, loop, checkpoints.
#![deny(unsafe_code)]

pub mod data;
pub mod stories;
