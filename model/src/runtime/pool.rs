//! The executor of a machine with several cores: threads of its own that stay awake for a whole forward pass.

use alloc::string::ToString;

use std::sync::Arc;
use std::thread::JoinHandle;

use super::executor::check_units;
use super::team::Team;
use super::{Executor, RuntimeError, Shares};

/// Bytes of work that a piece should have at least: a phase that threads share costs 0.2 to 1 µs (`barrier_ns`
/// of `onebit bench decode`), in which a core reads some 10 to 30 kB.
const MIN_PIECE: usize = 16 * 1024;

/// Bytes of work from which on a phase has [`PIECES_PER_THREAD`]: in a shorter one, taking a piece costs as much as it can win.
const LONG: usize = 1 << 20;
/// Equal pieces a thread: a second one lets a thread that is ahead take over from one that was held up.
const PIECES_PER_THREAD: usize = 2;
/// Tapered pieces a thread. Of sixteen the last is less than a hundredth of the phase: with two equal ones a thread, both of two threads waited for an eighth
/// of the time in decoding the 2B-4T shape.
const TAPERED_PER_THREAD: usize = 8;

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
                .spawn(move || team.work(i));
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
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn pieces(&self, work: usize) -> usize {
        let most = match self.threads() {
            threads if threads == 1 || work < LONG => threads,
            threads => PIECES_PER_THREAD * threads,
        };
        (work / MIN_PIECE).clamp(1, most)
    }

    fn shares(&self, work: usize) -> Shares {
        match self.threads() {
            threads if threads == 1 || work < LONG => Shares::even(self.pieces(work)),
            threads => Shares {
                pieces: (work / MIN_PIECE).min(TAPERED_PER_THREAD * threads),
                tapered: true,
            },
        }
    }

    fn enter<R: Send>(&self, work: usize, f: impl FnOnce() -> R + Send) -> R {
        let _awake = (self.pieces(work) > 1).then(|| self.team.wake());
        f()
    }

    fn share_zipped<T: Send, U: Send, S: Send>(
        &self,
        shares: Shares,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut [U], &mut S) + Sync,
    ) {
        assert!(scratch.len() >= self.threads(), "a scratch for each thread");
        check_units(a.0.len(), a.1, b.0.len(), b.1);
        if let (1, [scratch, ..]) = (shares.pieces, &mut *scratch) {
            if !a.0.is_empty() {
                f(0, a.0, b.0, scratch);
            }
            return;
        }
        self.team.run_shared(shares, a, b, scratch, f);
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
    fn shares_are_taken_once_each_with_a_scratch_that_nobody_else_has() {
        for threads in if cfg!(miri) { &[1, 3][..] } else { &[1, 2, 3, 16] } {
            let pool = Pool::new(*threads).unwrap();
            let mut scratch = vec![(false, 0usize); *threads];
            for len in [0, 1, 7, 40] {
                for tapered in [false, true] {
                    let (mut out, shares) = (vec![0u32; len], Shares { pieces: 5, tapered });
                    for _ in 0..times(200) {
                        pool.share(shares, &mut out, 3, &mut scratch, |first, out, scratch| {
                            assert!(!core::mem::replace(&mut scratch.0, true), "one piece at a time");
                            assert!(first % 3 == 0 && !out.is_empty());
                            out.iter_mut().for_each(|v| *v += 1);
                            scratch.1 += out.len();
                            scratch.0 = false;
                        });
                    }
                    assert!(
                        out.iter().all(|v| u64::from(*v) == times(200)),
                        "{threads} threads, {len}"
                    );
                    let done: usize = scratch.iter_mut().map(|scratch| core::mem::take(&mut scratch.1)).sum();
                    assert_eq!(done as u64, len as u64 * times(200));
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
