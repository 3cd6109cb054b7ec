//! BitNet b1.58 models: configuration, trainable network, packed runtime, files, tokenizer, sampling.
//!
//! Without default features the crate is `no_std + alloc` and holds what an embedded build needs: [`config`], models in
//! memory ([`image`]), their tokenizer ([`bpe`]), [`runtime`], [`sampling`] and the loop that generates ([`decode`]), over
//! `onebit-kernels-cpu` alone. `std` adds files, threads, generation and the scheduler of a server ([`serving`]), `tokenizers` those that are no byte-level BPE in a `.1bit` file, `cuda`
//! inference on a GPU, `train` the trainable network.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod bpe;
#[cfg(feature = "std")]
pub mod chat;
pub mod config;
pub mod decode;
#[cfg(feature = "std")]
pub mod evaluation;
#[cfg(feature = "std")]
pub mod files;
#[cfg(feature = "std")]
pub mod generation;
pub mod image;
#[cfg(feature = "train")]
pub mod network;
pub mod runtime;
pub mod sampling;
#[cfg(feature = "std")]
pub mod serving;
#[cfg(feature = "tokenizers")]
pub mod tokenizer;
#[cfg(all(feature = "std", not(feature = "tokenizers")))]
#[path = "tokenizer/alone.rs"]
pub mod tokenizer;
