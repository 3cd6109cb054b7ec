//! What can go wrong with a stream of shards, and what to do about it.

use std::path::PathBuf;

/// An error of getting, keeping or reading shards.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum StackError {
    /// Nothing to draw from.
    #[error("the manifest has no shard{of}; make one with `onebit stack manifest`, or give other languages")]
    NoShards { of: String },
    /// A shard that could never be fetched.
    #[error(
        "shard {shard} has {bytes} bytes and the budget of {budget} has room for {room} beside what else lies in {path}; raise --disk-budget-gb, or leave the shard out of the manifest"
    )]
    TooLarge {
        shard: String,
        bytes: u64,
        budget: u64,
        room: u64,
        path: PathBuf,
    },
    /// The disk has less room than the budget allows.
    #[error(
        "{path}: shard {shard} takes {needed} bytes more and {free} are free; make room there, or lower --disk-budget-gb"
    )]
    NoSpace {
        path: PathBuf,
        shard: String,
        needed: u64,
        free: u64,
    },
    /// What came is not what the manifest says.
    #[error(
        "shard {shard}: expected {expected} bytes, found {found} in {path}; make the manifest again, or get that file again"
    )]
    Size {
        shard: String,
        expected: u64,
        found: u64,
        path: PathBuf,
    },
    /// A command that failed.
    #[error("shard {shard}: the command of --download-cmd ended with {status}; see what it said above")]
    Command {
        shard: String,
        status: std::process::ExitStatus,
    },
    /// What came has another checksum than the manifest says.
    #[error(
        "shard {shard}: expected the SHA-256 {expected}, found {found} in {path}; get that file again, or make the manifest again"
    )]
    Checksum {
        shard: String,
        expected: String,
        found: String,
        path: PathBuf,
    },
    /// A shard that cannot be read, though it was fetched twice.
    #[error(
        "shard {shard} is damaged from row {row} on, also when it was fetched again: {why}; pass it over with --skip-bad-shards, or leave it out of the manifest"
    )]
    Damaged { shard: String, row: u64, why: String },
    /// Filters that leave nothing.
    #[error("the filters left nothing of the last {visits} shards; give --licenses others, or no filter")]
    NothingLeft { visits: u64 },
    /// A checkpoint of another stream.
    #[error("the checkpoint's place in the stream cannot be used: {why}; start in another directory")]
    Cursor { why: String },
    /// A fetch that was asked to stop.
    #[error("stopped while a shard was fetched; run the command again")]
    Stopped,
}
