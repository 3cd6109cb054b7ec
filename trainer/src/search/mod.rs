//! Search for the width of every tensor of a model: the least loss within so many bytes, or the fewest bytes with so much loss.
//!
//! | file | what |
//! |---|---|
//! | [`map`](Sites) | sites, choices, maps |
//! | [`pareto`] | the front of bytes and loss, its hypervolume |
//! | [`knapsack`] | the best maps if losses added up, exactly |

mod error;
pub mod knapsack;
mod map;
pub mod pareto;

pub use error::SetupError;
pub use map::{Candidate, Choice, MOST_CHOICES, Sensitivity, Site, Sites, Width};
pub use pareto::{Front, Point};
