//! Data-parallel training: several processes, called ranks, that make one run together.
//!
//! Micro-batches are numbered over the whole run. With `W` ranks and `A` micro-batches a rank, step `s` has the numbers from `s·A·W`, and rank `r` takes those that
//! are `r` modulo `W` from there. So a run of `W` ranks is the run of one rank that accumulates `A·W` micro-batches: windows, dropout and rates are the same, and only
//! the order differs in which gradients are summed. That order is fixed: equal runs have equal bytes.
//!
//! ```text
//! launch       where this process stands in the world: the variables of torchrun, SLURM and OpenMPI
//! rendezvous   how ranks find one another over TCP, and notice that one is lost
//! agree        that all are about to make the same run
//! nccl, pieces ranks on GPUs: what of a step goes between them, and which of them updates what
//! mpi          ranks on CPUs, over an MPI library (with the feature `mpi`)
//! talk         what rank 0 decides, what all tell, bytes that one has: over a link
//! buckets      many arrays summed or sent as a few long ones
//! shard        which rank has the moments of a parameter
//! ```
//!
//! Rank 0 alone reads and writes the run's directory, but for the checkpoint that a resume begins with. What it decides by what it finds there, the others are told
//! over a [`Link`]. Sums of gradients go another way: over a [`Collective`] on CPUs, by NCCL on GPUs.

pub mod agree;
mod buckets;
mod error;
pub mod launch;
#[cfg(feature = "mpi")]
pub mod mpi;
pub(crate) mod nccl;
pub(crate) mod pieces;

use std::fmt::Debug;
use std::sync::Arc;

pub mod rendezvous;
mod shard;
mod talk;

#[cfg(test)]
pub(crate) mod threads;

pub(crate) use buckets::in_buckets;
pub use error::ParallelError;
pub use shard::owners;

use crate::Result;

/// What ranks tell one another beside gradients: some kilobytes, in the same order on every rank.
pub trait Link: Debug + Send + Sync {
    /// `bytes` of every rank, in the order of ranks. Every rank calls it as often.
    ///
    /// # Errors
    /// [`ParallelError`] that names the rank that was lost or did not answer.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Whether all ranks are there, as far as it is known; does not wait.
    ///
    /// # Errors
    /// [`ParallelError`] that names the first rank that was lost.
    fn check(&self) -> Result<()>;

    /// Calls `callback`, from another thread, once a rank is known to be lost. A link that ends the process by itself then never does.
    fn on_loss(&self, callback: OnLoss);

    /// Leaves in good order, after all have come to this point.
    ///
    /// # Errors
    /// As [`Link::all_gather`].
    fn finish(&self) -> Result<()>;

    /// Leaves because this rank failed, and tells the others why.
    fn fail(&self, why: &str);
}

/// What is to be done when a rank is lost.
pub type OnLoss = Box<dyn FnOnce(&ParallelError) + Send>;

/// Sums of floats over CPU ranks. Every rank calls the same with as many values, in the same order, and has the same bits afterwards.
pub trait Collective: Debug + Send + Sync {
    /// The sum over ranks, taken in the order of ranks, in the place of `values`.
    ///
    /// # Errors
    /// What the library says.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// The values of rank `root`, bit by bit, in the place of everybody's.
    ///
    /// # Errors
    /// What the library says.
    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()>;
}

/// This process among the ranks of a run.
#[derive(Clone, Debug)]
pub struct World {
    rank: usize,
    local_rank: usize,
    size: usize,
    link: Arc<dyn Link>,
    collective: Option<Arc<dyn Collective>>,
}

impl World {
    /// One process, for itself.
    pub fn single() -> Self {
        World {
            rank: 0,
            local_rank: 0,
            size: 1,
            link: Arc::new(Alone),
            collective: None,
        }
    }

    /// Rank `rank` of `size`, the `local_rank`th of its machine.
    pub fn new(
        (rank, local_rank, size): (usize, usize, usize),
        link: Arc<dyn Link>,
        collective: Option<Arc<dyn Collective>>,
    ) -> Self {
        World {
            rank,
            local_rank,
            size,
            link,
            collective,
        }
    }

    /// Which rank this is, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Which rank of its machine this is, from 0: the GPU that it takes.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether there is one rank only.
    pub fn is_single(&self) -> bool {
        self.size == 1
    }

    /// Whether this rank has the directory, and speaks for the run.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// How ranks talk.
    pub fn link(&self) -> &Arc<dyn Link> {
        &self.link
    }

    /// How CPU ranks sum, if they can.
    pub fn collective(&self) -> Option<&Arc<dyn Collective>> {
        self.collective.as_ref()
    }
}

impl Default for World {
    fn default() -> Self {
        World::single()
    }
}

/// The link of a world of one.
#[derive(Debug)]
struct Alone;

impl Link for Alone {
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec()])
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn on_loss(&self, _callback: OnLoss) {}

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn fail(&self, _why: &str) {}
}
