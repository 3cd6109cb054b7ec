//! The executor of a machine with several cores: a rayon pool of its own.

use alloc::string::ToString;

use rayon::prelude::*;

use super::{Executor, RuntimeError};

/// Bytes of work that a piece should have at least. A fork and join costs some 2 µs, in which one core reads about half
/// of this.
const MIN_PIECE: usize = 64 * 1024;

/// Pieces a thread: a second one lets a thread that is ahead take over from one that was held up.
const PIECES_PER_THREAD: usize = 2;

/// Threads that share each phase of the forward pass.
///
/// A forward pass enters the pool once; its phases then fork and join inside. Phases with little work stay on one thread, so
/// that a small model does not pay for threads that it cannot use.
#[derive(Debug)]
pub struct Pool {
    pool: rayon::ThreadPool,
    threads: usize,
}

impl Pool {
    /// A pool of `threads` threads, at least one.
    ///
    /// # Errors
    /// [`RuntimeError::Threads`] if the system refuses to start them.
    pub fn new(threads: usize) -> Result<Self, RuntimeError> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| alloc::format!("onebit-runtime-{i}"))
            .build()
            .map_err(|error| RuntimeError::Threads {
                threads,
                message: error.to_string(),
            })?;
        Ok(Self { pool, threads })
    }

    /// A thread for each core that this process may use.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn all_cores() -> Result<Self, RuntimeError> {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Threads of the pool.
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Executor for Pool {
    fn max_pieces(&self) -> usize {
        if self.threads == 1 {
            1
        } else {
            PIECES_PER_THREAD * self.threads
        }
    }

    fn pieces(&self, work: usize) -> usize {
        (work / MIN_PIECE).clamp(1, self.max_pieces())
    }

    fn enter<R: Send>(&self, work: usize, f: impl FnOnce() -> R + Send) -> R {
        if self.pieces(work) == 1 {
            f()
        } else {
            self.pool.install(f)
        }
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
        self.pool.install(|| {
            out.par_chunks_mut(chunk)
                .zip(other.par_chunks_mut(other_chunk))
                .enumerate()
                .for_each(|(i, (out, other))| f(i * chunk, out, other));
        });
    }

    fn rows<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        if out.len() <= chunk {
            if !out.is_empty() {
                f(0, out);
            }
            return;
        }
        self.pool.install(|| {
            out.par_chunks_mut(chunk)
                .enumerate()
                .for_each(|(i, out)| f(i * chunk, out))
        });
    }
}
