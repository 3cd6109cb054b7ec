//! What can go wrong between ranks.

/// An error of launching ranks, of their meeting, or of their work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum ParallelError {
    /// A launcher's variables that do not make a place in a world.
    #[error("{variable}: {why}")]
    Launch { variable: &'static str, why: String },
    /// Ranks that did not come together.
    #[error("rendezvous at {address}: {why}")]
    Rendezvous { address: String, why: String },
    /// Ranks that are not of one run.
    #[error(
        "rendezvous at {address}: {field} differs: rank 0 has {host} and rank {rank} has {joiner}; start all ranks alike"
    )]
    Mismatch {
        address: String,
        field: &'static str,
        rank: usize,
        host: String,
        joiner: String,
    },
    /// A rank that is no longer there.
    #[error("rank {rank} ({host}) was lost: {why}")]
    Lost { rank: usize, host: String, why: String },
    /// A rank that ended with an error of its own.
    #[error("rank {rank} ({host}) failed: {why}")]
    Failed { rank: usize, host: String, why: String },
    /// A rank that is there and does not answer.
    #[error("rank {rank} ({host}) did not answer for {seconds} s; look what it is doing, or start again with --resume")]
    Silent { rank: usize, host: String, seconds: u64 },
    /// A setting in which ranks differ.
    #[error("{field} differs between ranks: rank 0 has {first}, and rank {rank} has {other}; start all ranks alike")]
    Disagreement {
        field: String,
        rank: usize,
        first: String,
        other: String,
    },
    /// Something that one rank said and another cannot have meant.
    #[error("rank {rank} sent {what}; start all ranks from the same program")]
    Protocol { rank: usize, what: String },
    /// The MPI library.
    #[error("MPI: {0}")]
    Mpi(String),
}
