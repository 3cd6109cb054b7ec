//! Who does the work: one thread, or a pool.
//!
//! A phase of the forward pass is a loop over pieces of its output, each of which one thread computes whole. What a piece
//! holds does not depend on how the output was cut, so every executor returns the same bits.

use alloc::vec;

/// Runs the pieces of a phase.
pub trait Executor: Sync {
    /// Most pieces that [`pieces`](Self::pieces) ever returns; a session keeps scratch memory for each.
    fn max_pieces(&self) -> usize;

    /// Threads that take pieces at the same time.
    fn threads(&self) -> usize;

    /// Into how many pieces a phase that reads `work` bytes is worth cutting, from 1 to
    /// [`max_pieces`](Self::max_pieces).
    fn pieces(&self, work: usize) -> usize;

    /// Runs `f`, all the phases of one forward pass, where starting a phase is cheap. `work` is the bytes that they read.
    fn enter<R: Send>(&self, work: usize, f: impl FnOnce() -> R + Send) -> R;

    /// Cuts `out` into pieces of `chunk` elements and `other` into as many of `other_chunk`, and calls
    /// `f(first, piece, other piece)` for each pair, `first` being the index in `out` of the piece's first element. The last
    /// pieces may be shorter.
    ///
    /// # Panics
    /// If `chunk` or `other_chunk` is 0.
    fn zip<T: Send, U: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        other: &mut [U],
        other_chunk: usize,
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    );

    /// As [`zip`](Self::zip) with a single output.
    ///
    /// # Panics
    /// If `chunk` is 0.
    fn rows<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        // Units take no memory, so nothing is allocated.
        let mut units = vec![(); out.len().div_ceil(chunk)];
        self.zip(out, chunk, &mut units, 1, |first, out, _| f(first, out));
    }
}

/// The calling thread does everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serial;

impl Executor for Serial {
    fn max_pieces(&self) -> usize {
        1
    }

    fn threads(&self) -> usize {
        1
    }

    fn pieces(&self, _work: usize) -> usize {
        1
    }

    fn enter<R: Send>(&self, _work: usize, f: impl FnOnce() -> R + Send) -> R {
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
        for (i, (out, other)) in out.chunks_mut(chunk).zip(other.chunks_mut(other_chunk)).enumerate() {
            f(i * chunk, out, other);
        }
    }
}
