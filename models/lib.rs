//! Models that are part of the `onebit` command, as bytes at a multiple of 64: they run where they lie.
//!
//! They are a crate of their own because their weights are a derivative of Wikipedia's text, under its licence (CC BY-SA 3.0), which the command's code is not.
//!
//! Packed, the crate is 12 MiB, and crates.io takes 10 unless it is asked for more: until it was, a checkout of the repository is where the command has its model from
//! (`cargo install --path cli`). Without the feature `bundled` the command does without this crate, and runs the same file given by its path.
//!
//! ```
//! use onebit_model::image::Image;
//! use onebit_model::runtime::SharedBytes;
//!
//! let image = Image::new(SharedBytes::from_static(onebit_models::WIKITEXT2_25M))?;
//! assert_eq!(image.config().hidden_size, 320);
//! # Ok::<(), onebit_model::image::ImageError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

/// WikiText-2 by words in 23 million weights; its card is beside it (`wikitext2-25m/README.md`).
pub static WIKITEXT2_25M: &[u8] = onebit_model::include_aligned!("wikitext2-25m/wikitext2-25m.1bit");

/// Name and bytes of each.
pub static ALL: &[(&str, &[u8])] = &[("wikitext2-25m", WIKITEXT2_25M)];
