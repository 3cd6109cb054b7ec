//! BitNet b1.58 models: configuration, trainable network, packed runtime, files, tokenizer, sampling.
//!
//! Without default features the crate is `no_std + alloc` and holds what an embedded build needs: [`config`], models in
//! memory ([`image`]), their tokenizer ([`bpe`]), [`runtime`], [`sampling`] and the loop that generates ([`decode`]), over
//! `onebit-kernels-cpu` alone. `std` adds files, threads and generation, `tokenizers` those that are no byte-level BPE in a `.1bit` file, `cuda`
//! inference on a GPU, `train` the trainable network.
//!
//! A model in memory tells a story, as it does in a microcontroller:
//!
//! ```
//! use onebit_model::decode::{DecodeError, TextGenerator, TextOptions};
//! use onebit_model::image::Image;
//! use onebit_model::runtime::{KvType, SharedBytes};
//!
//! static MODEL: &[u8] = onebit_model::include_aligned!("../../models/stories-mcu/stories-mcu.1bit");
//!
//! let image = Image::new(SharedBytes::from_static(MODEL)).expect("a sound model");
//! let options = TextOptions { kv: KvType::Int8, ..TextOptions::of(&image) };
//! let mut generator = TextGenerator::new(&image, options)?;
//! generator.begin("Anna was a", 20)?;
//! let mut story = String::new();
//! while let Some(id) = generator.next_token()? {
//!     story += generator.text_of(id)?;
//! }
//! assert!(story.split_whitespace().count() > 5, "{story}");
//! # Ok::<(), DecodeError>(())
//! ```
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
#[cfg(feature = "tokenizers")]
pub mod tokenizer;
#[cfg(all(feature = "std", not(feature = "tokenizers")))]
#[path = "tokenizer/alone.rs"]
pub mod tokenizer;
