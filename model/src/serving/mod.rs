//! Many answers at a time: continuous batching over the packed runtime.
//!
//! ```text
//! Job ─ queue ─▶ a sequence that nobody uses,      ┌─▶ step: one pass over the tokens of all answers     (runtime::Batch, on a GPU CudaBatch)
//!                whose text begins like the prompt │     a token of each answer that is being written,
//!                                                  │     and of prompts as many as the step has room for
//!                                                  │   draw: each answer's own sampler
//!                                                  └── tell: text as it becomes certain, to whoever asked; if nobody listens any more, the answer ends
//! ```
//! An answer is what [`Generator`](crate::generation::Generator) would give for the same prompt and options: nothing of it depends on who else is being answered. Answers join and leave between steps.
//!
//! **The prompt cache** is the sequences themselves: one that is done keeps its text until another needs its place, the least recently used first. A prompt goes to the sequence with which it has most in
//! common, and reads the rest alone, so the second message of a conversation costs its own tokens. Where a sequence that is busy has more in common, its beginning is copied; and where that beginning is
//! just being read, as by the `n` answers to one prompt, the others wait for it.
//!
//! | file | what |
//! |---|---|
//! | `job` | what is asked and what is told |
//! | `answer` | one answer: sampler, stop strings, text |
//! | `places` | which sequence a prompt goes to |
//! | `engine` | what the loop needs of the sequences |
//! | `scheduler` | the loop: [`serve`], [`serve_with`] |

mod answer;
mod engine;
mod job;
mod places;
mod scheduler;

pub use engine::Engine;
pub use job::{End, Event, Failure, Job, Piece, Sink};
pub use scheduler::{Load, Options, serve, serve_with};
