//! Text from a model, piece by piece.
//!
//! ```text
//! prompt ─ tokens ─→ Generator ─┬─ logits → Sampler → token → text → StopStrings → pieces of the answer
//!                               └─ window of the context, which slides when it is full
//! ```
//!
//! A prompt longer than the context keeps its most recent tokens, with room for the answer (up to half of the context). An answer
//! that goes past the context slides the window: the most recent half is read again from position 0, and the text goes on. Both are told in
//! [`Generated::dropped`] and [`Generated::shifted`].
//!
//! What a prompt has in common with what was read before is not read again, within a [`Generator`] and, through a
//! [prompt cache](Generator::load_prompt_cache), from one process to the next.
//!
//! A generator runs on the CPU ([`Generator::new`]) or on a GPU ([`Generator::on_gpu`]); the logits are the same, so the text is, and what one has read the other
//! can take up.

mod error;
mod generator;
mod logprobs;
mod prompt_cache;
mod session;

pub use error::{GenerationError, PromptCacheError};
pub use generator::{Finish, Generated, Generator, GeneratorOptions, Request, add_sketch};
pub(crate) use logprobs::likeliest;
pub use logprobs::{Logprobs, TokenLogprob};
