//! Ranks on CPUs: links and sums over the MPI library of the system, by the crate `mpi`.
//!
//! **Sums in a fixed order.** The standard leaves the order of `MPI_Allreduce` to the library, which chooses by size and place. So only data is moved by it: every rank
//! gets its share of the values from all (`MPI_Alltoall`), adds them in the order of ranks, and gives the sums to all (`MPI_Allgather`). That moves as many bytes as
//! the best algorithms for long vectors, `2·(W−1)/W` of the values a rank, and has the same bits with every library and on every network.
//!
//! **Losses** are the launcher's: `mpirun` ends all ranks as soon as one has ended without `MPI_Finalize`, so [`Link::check`] always holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::Communicator;
use mpi::traits::Root;

use super::{Collective, Link, OnLoss, ParallelError};
use crate::Result;

/// The ranks of `MPI_COMM_WORLD`.
pub struct Mpi {
    /// Calls come from any thread, one after another. Empty once the library was left.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mpi(rank {} of {})", self.rank, self.size)
    }
}

fn failed(why: impl Into<String>) -> ParallelError {
    ParallelError::Mpi(why.into())
}

impl Mpi {
    /// Starts the library, once a process.
    ///
    /// # Errors
    /// [`ParallelError::Mpi`] if it was started before, or does not allow calls from several threads in turn.
    pub fn start() -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Serialized);
        let (universe, threading) = started.ok_or_else(|| failed("it was started already"))?;
        if threading < Threading::Serialized {
            let why =
                format!("threads may not take turns in it ({threading:?}); use a library that was built with threads");
            return Err(failed(why).into());
        }
        let world = universe.world();
        Ok(Mpi {
            rank: world.rank() as usize,
            size: world.size() as usize,
            universe: Mutex::new(Some(universe)),
        })
    }

    /// Which rank this is.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    fn lock(&self) -> MutexGuard<'_, Option<Universe>> {
        self.universe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The world, if it was not left.
fn world(universe: &Option<Universe>) -> Result<mpi::topology::SimpleCommunicator> {
    let universe = universe.as_ref().ok_or_else(|| failed("the run has ended"))?;
    Ok(universe.world())
}

impl Link for Mpi {
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let universe = self.lock();
        let world = world(&universe)?;
        let mut lengths = vec![0i32; self.size];
        let length = i32::try_from(bytes.len()).map_err(|_| failed("more than 2 GiB at once"))?;
        world.all_gather_into(&length, &mut lengths[..]);
        let mut end = 0i32;
        let mut begins = Vec::with_capacity(self.size);
        for length in &lengths {
            begins.push(end);
            end = end
                .checked_add(*length)
                .ok_or_else(|| failed("more than 2 GiB at once"))?;
        }
        if end == 0 {
            // The library refuses buffers of nothing.
            return Ok(vec![Vec::new(); self.size]);
        }
        let mut all = vec![0u8; end as usize];
        let mut parts = PartitionMut::new(&mut all[..], &lengths[..], &begins[..]);
        world.all_gather_varcount_into(bytes, &mut parts);
        let of = begins.iter().zip(&lengths);
        Ok(of
            .map(|(begin, length)| all[*begin as usize..][..*length as usize].to_vec())
            .collect())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn on_loss(&self, _callback: OnLoss) {}

    fn finish(&self) -> Result<()> {
        let mut universe = self.lock();
        world(&universe)?.barrier();
        // Dropped, it leaves the library.
        *universe = None;
        Ok(())
    }

    /// Nothing: the launcher sees the end of this process, and ends the others.
    fn fail(&self, _why: &str) {}
}

impl Collective for Mpi {
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let universe = self.lock();
        let world = world(&universe)?;
        let share = values.len().div_ceil(self.size);
        let mut sent = values.to_vec();
        sent.resize(share * self.size, 0.0);
        let mut received = vec![0.0f32; sent.len()];
        world.all_to_all_into(&sent[..], &mut received[..]);
        if share > 0 {
            let (sums, others) = received.split_at_mut(share);
            for of_rank in others.chunks_exact(share) {
                sums.iter_mut().zip(of_rank).for_each(|(sum, value)| *sum += value);
            }
            world.all_gather_into(&sums[..], &mut sent[..]);
        }
        values.copy_from_slice(&sent[..values.len()]);
        Ok(())
    }

    fn broadcast(&self, values: &mut [f32], root: usize) -> Result<()> {
        let universe = self.lock();
        let world = world(&universe)?;
        world.process_at_rank(root as i32).broadcast_into(values);
        Ok(())
    }
}

impl Drop for Mpi {
    /// Leaving the library waits for all ranks; one that ends without [`Link::finish`] has failed, and must not wait.
    fn drop(&mut self) {
        if let Some(universe) = self.lock().take() {
            std::mem::forget(universe);
        }
    }
}
