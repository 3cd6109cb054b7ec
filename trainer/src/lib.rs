//! Training of BitNet b1.58 models: data, optimiser, schedules, loop, checkpoints.
//!
//! [`run::Trainer`] is one training run: it draws windows from a token file ([`data`]), runs the network's forward and backward,
//! updates by an [`optimizer`] at the rate and the annealing value of the [`schedule`], writes metrics and [`checkpoint`]s, and
//! tells an observer what happens. The same seed gives the same bytes, for any number of threads, and a run that was
//! interrupted and resumed equals one that was not.
//!
//! [`search`] finds a width for every matrix of a model.
//!
//! Two steps of the quickstart, which makes its own text:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use onebit_engine::Device;
//! use onebit_trainer::quickstart;
//! use onebit_trainer::run::{Event, Outcome, Trainer};
//!
//! let folder = tempfile::tempdir()?;
//! let mut prepared = quickstart::prepare(folder.path(), Device::cpu()?, 42, quickstart::preset("quickstart")?, 200)?;
//! prepared.inputs.options = quickstart::options(&prepared.preset, 2, 42);
//! let mut trainer = Trainer::new(prepared.inputs, false, &mut |_| ())?;
//! let mut losses = Vec::new();
//! let outcome = trainer.run(&AtomicBool::new(false), &mut |event| {
//!     if let Event::Step(step) = event {
//!         losses.push(step.loss);
//!     }
//! })?;
//! assert_eq!((outcome, losses.len()), (Outcome::Finished, 2));
//! // A model directory, which inference opens.
//! assert!(folder.path().join("model.safetensors").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod data;
mod error;
pub mod evaluate;
pub mod finetune;
pub mod hub;
pub mod optimizer;
pub mod options;
pub mod parallel;
pub mod quickstart;
pub mod run;
pub mod scaling;
pub mod schedule;
pub mod search;
pub mod stack;
pub mod storage;
pub mod stories;

pub use error::TrainError;
pub use options::TrainOptions;

/// Result of a training operation.
pub type Result<T> = std::result::Result<T, TrainError>;

/// The packed form of a network in training: what inference runs. Embedding and head stay f32.
///
/// # Errors
/// None in practice: the tensors are those of the network's own configuration.
pub fn packed(network: &onebit_model::network::Network) -> Result<onebit_model::runtime::PackedModel> {
    network.pack().map_err(|e| TrainError::Runtime(e.to_string()))
}
