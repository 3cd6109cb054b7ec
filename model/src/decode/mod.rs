//! Tokens from a model, one by one: the loop below every generator, and the whole of one for boards. `no_std + alloc`.
//!
//! ```text
//! prompt ─→ TokenLoop: [ Lookahead → logits → Sampler → token → its place in the context ] ─→ tokens
//! Image ─→ TextGenerator: tokenizer ─ TokenLoop ─ Utf8Stream ─→ text
//! ```
//!
//! `onebit_model::generation` (with `std`) draws its tokens by the same [`TokenLoop`]; so the same model, prompt, settings and seed give the same tokens
//! everywhere, which [`golden`] holds against a file.
//!
//! # Panics
//! None can be reached from the model's bytes, a prompt or an option. The lints below, which also stand over [`bpe`](crate::bpe), [`sampling`](crate::sampling),
//! the session and its lookahead, let no indexing, `unwrap` or bare arithmetic by. Below them, the forward pass (`runtime`'s `forward`, `attention`,
//! `linear`, `product`, `columns`, `sketch`) cuts buffers whose lengths follow from the checked configuration and the session's checked options, and the
//! kernels assert the lengths that they are given: these are bounds that hold by construction, not by the types. A lack of memory is an error value when a
//! generator is opened; later calls take memory for a prompt's ids alone.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod error;
pub mod golden;
mod text;
mod token_loop;

pub use error::DecodeError;
pub use text::{Ended, TextGenerator, TextOptions};
pub use token_loop::{Drawn, TokenLoop};
