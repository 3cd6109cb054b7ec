//! Scoring with what the trainer knows beside the packed runtime's own [evaluation](onebit_model::evaluation): a neural cache, a model that learns the text
//! on the way, and the stories of the built-in grammar.

mod cache;
mod dynamic;
pub(crate) mod stories;

pub use cache::{NeuralCache, score_with_cache};
pub use dynamic::{DynamicEvaluation, score_dynamically};
pub use onebit_model::evaluation::Score;
pub use stories::{Agreement, StorySuite, StoryTeller, score_stories};

use crate::TrainError;

fn failed(error: &dyn std::fmt::Display) -> TrainError {
    TrainError::Runtime(error.to_string())
}
