//! A C interface to inference: `include/onebit.h` and a static library.
//!
//! ```text
//! model bytes ─ onebit_open ─→ onebit_generator ─ onebit_begin_text ─ onebit_next … ─→ tokens ─ onebit_token_bytes ─→ bytes
//! ```
//!
//! The header says who owns what, and what every function does; a test holds it against this source. The functions are thin: what they call is
//! [`TextGenerator`](onebit_model::decode::TextGenerator), which does without `std`.
//!
//! | build | command |
//! |---|---|
//! | a computer, a Linux board | `cargo build --release -p onebit-c` |
//! | a microcontroller | `cargo build --release -p onebit-c --no-default-features --features c-runtime --target thumbv7em-none-eabihf` |
//!
//! The second takes its memory from the `malloc` and `free` of the C library beside it, and calls its `abort` where a panic would be. With `std` a panic, which
//! would be an error of ours, comes back as [`Status::Internal`].
//!
//! The header begins with an example in C, and `tests/golden.c` is a whole program. Nothing hinders a Rust program from calling the functions too:
//!
//! ```
//! use onebit_c::{ABI_VERSION, onebit_abi_version};
//!
//! assert_eq!(onebit_abi_version(), ABI_VERSION);
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod generator;
mod options;
#[cfg(feature = "c-runtime")]
mod runtime;
mod status;

pub use generator::*;
pub use options::{KV_F16, KV_F32, KV_INT8, Options, Sampling};
pub use status::{Failure, MESSAGE_SIZE, Status};
