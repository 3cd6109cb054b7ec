//! Training on a data set that is larger than the disk: a stream of its shards.
//!
//! ```text
//! manifest ──Sampler──▶ visits ──Fetch, Cache──▶ shards on the disk ──Reader──▶ documents ──filters, tokenizer──▶ tokens ──▶ windows of seq_len + 1
//!            seeded              ahead, under a budget                  row groups, a few columns                       across borders
//! ```
//! - [`manifest`]: the shards that there are, each with its size and checksum at one commit of the data set; nothing else need be known to stream it.
//! - [`sampler`]: which one is visited when; languages by weight, shards without repetition, the last ones now and then again.
//! - [`fetch`] and [`cache`]: shards come, from the [`hub`](crate::hub) or a folder, ahead of their visits, and go again, so that the disk never holds more than the budget.
//! - `reader`: parquet to tokens; the rows of `content` with a licence that is allowed and that did not come already ([`filter`]).
//! - [`stream`]: one thread that fetches, one that reads, and the windows that a run asks for, one behind the other whatever shard they are from.
//!
//! A stream is a function of the manifest, the tokenizer and the options: what is on the disk already, how fast it comes, and how often the run is ended and gone on with
//! change nothing. A checkpoint has its cursor: visit, row, token, and where the visits of other shards ended.

pub mod cache;
mod error;
pub mod fetch;
pub mod filter;
pub mod manifest;
mod reader;
pub mod sampler;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub use error::StackError;
