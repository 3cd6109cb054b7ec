//! The executor of a machine with several cores: threads of its own that stay awake for a whole forward pass.

use alloc::string::ToString;

use std::sync::Arc;
use std::thread::JoinHandle;

use super::team::Team;
use super::{Executor, RuntimeError};

/// Bytes of work that a piece should have at least: a phase that threads share costs 0.3 to 1.3 µs (`barrier_ns`
/// of `onebit bench decode`), in which a core reads some 10 to 30 kB.
const MIN_PIECE: usize = 16 * 1024;

/// Bytes of work from which on a phase has [`PIECES_PER_THREAD`]: in a shorter one, taking a piece costs as much as it can win.
const LONG: usize = 1 << 20;
/// Pieces a thread: a second one lets a thread that is ahead take over from one that was held up.
const PIECES_PER_THREAD: usize = 2;

/// Threads that share each phase of the forward pass.
///
/// The calling thread works too, so there is one thread less than asked for. A forward pass wakes the others once; between its phases they
/// spin briefly, then yield, so that more threads than cores are slow but never stuck. Phases with little work stay on the calling
/// thread. If two sessions use a pool at once, one has the threads and the other works alone; the answers are the same.
#[derive(Debug)]
pub struct Pool {
    team: Arc<Team>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, at least one, the calling one included.
    ///
    /// # Errors
    /// [`RuntimeError::Threads`] if the system refuses to start them.
    pub fn new(threads: usize) -> Result<Self, RuntimeError> {
        let threads = threads.max(1);
        let mut pool = Self {
            team: Arc::new(Team::default()),
            workers: Vec::new(),
        };
        for i in 1..threads {
            let team = pool.team.clone();
            let worker = std::thread::Builder::new()
                .name(alloc::format!("onebit-runtime-{i}"))
                .spawn(move || team.work());
            // Those that did start are ended by the drop of `pool`.
            pool.workers.push(worker.map_err(|error| RuntimeError::Threads {
                threads,
                message: error.to_string(),
            })?);
        }
        Ok(pool)
    }

    /// A thread for each core that this process may use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn all_cores() -> Result<Self, RuntimeError> {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.team.dismiss();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of what it runs, so it ends well.
            let _ = worker.join();
        }
    }
}

impl Executor for Pool {
    fn max_pieces(&self) -> usize {
        match self.threads() {
            1 => 1,
            threads => PIECES_PER_THREAD * threads,
        }
    }

    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn pieces(&self, work: usize) -> usize {
        let most = if work < LONG { self.threads() } else { self.max_pieces() };
        (work / MIN_PIECE).clamp(1, most)
    }

    fn enter<R: Send>(&self, work: usize, f: impl FnOnce() -> R + Send) -> R {
        let _awake = (self.pieces(work) > 1).then(|| self.team.wake());
        f()
    }

    fn zip<T: Send, U: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        other: &mut [U],
        other_chunk: usize,
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        if out.is_empty() || other.is_empty() {
            return;
        }
        if out.len() <= chunk {
            let other_chunk = other_chunk.min(other.len());
            return f(0, out, &mut other[..other_chunk]);
        }
        self.team.run_zipped((out, chunk), (other, other_chunk), f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n`, or a few where Miri interprets; it also takes another interleaving of the threads with each seed.
    fn times(n: u64) -> u64 {
        if cfg!(miri) { n.min(4) } else { n }
    }

    #[test]
    fn every_piece_is_taken_once_whatever_the_number_of_threads() {
        for threads in if cfg!(miri) { &[1, 3][..] } else { &[1, 2, 3, 16] } {
            let pool = Pool::new(*threads).unwrap();
            for len in if cfg!(miri) {
                &[0, 1, 17][..]
            } else {
                &[0, 1, 5, 64, 1000]
            } {
                let len = *len;
                for chunk in [1, 3, 7, 64] {
                    let mut out = vec![0u32; len];
                    let mut seen = vec![0u8; len.div_ceil(chunk)];
                    pool.enter(usize::MAX, || {
                        for _ in 0..3 {
                            pool.zip(&mut out, chunk, &mut seen, 1, |first, out, seen| {
                                out.iter_mut().enumerate().for_each(|(i, v)| *v += (first + i) as u32);
                                seen[0] += 1;
                            });
                        }
                        pool.rows(&mut out, chunk, |_, out| out.iter_mut().for_each(|v| *v += 1));
                    });
                    assert!(out.iter().enumerate().all(|(i, v)| *v == 3 * i as u32 + 1));
                    assert!(seen.iter().all(|n| *n == 3), "{threads} threads, {len} by {chunk}");
                }
            }
        }
    }

    #[test]
    fn two_users_at_once_get_their_own_answers() {
        let pool = Pool::new(2).unwrap();
        std::thread::scope(|scope| {
            for user in 0..4u64 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..times(500) {
                        let mut out = vec![0u64; 100];
                        pool.enter(usize::MAX, || {
                            pool.rows(&mut out, 9, |first, out| {
                                out.iter_mut()
                                    .enumerate()
                                    .for_each(|(i, v)| *v = user * round + (first + i) as u64);
                            });
                        });
                        assert!(out.iter().enumerate().all(|(i, v)| *v == user * round + i as u64));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..times(20) {
            let mut out = vec![0u32; 64];
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.rows(&mut out, 1, |first, _| assert_ne!(first, 63, "the last piece"));
            }));
            assert!(outcome.is_err());
            pool.rows(&mut out, 1, |first, out| out[0] = first as u32);
            assert!(out.iter().enumerate().all(|(i, v)| *v == i as u32));
        }
    }
}
