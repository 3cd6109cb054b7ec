//! Damaged and hostile files, by format: each class of damage is an error of its own, and no file makes a reader panic or take more memory than its
//! size allows.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/counting.rs"]
mod counting;
mod harness;

mod config_json;
mod container;
mod directory;
mod generation_config;
mod gguf;
mod gguf_differential;
mod one_file;
mod prompt_cache;
mod seeds;
mod shard_index;
mod small;
mod weights;
