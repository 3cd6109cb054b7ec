//! Who does the work: one thread, or a pool.
//!
//! A phase of the forward pass is a loop over pieces of its output, each of which one thread computes whole. What a piece
//! holds does not depend on how the output was cut, so every executor returns the same bits.

use alloc::vec;
use core::ops::Range;

/// How a phase is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// How many there are.
    pub pieces: usize,
    /// Whether they shrink: piece `i` is `i + 1` times as long as piece 0, for threads that take the last ones first. Whichever thread is held
    /// up, the others then end little later than it does (trapezoid self-scheduling, Tzen and Ni 1993).
    pub tapered: bool,
}

impl Shares {
    /// Equal ones.
    pub const fn even(pieces: usize) -> Self {
        Self { pieces, tapered: false }
    }

    /// The elements of piece `i` of `len`, cut at multiples of `unit`: empty if there are fewer units than pieces.
    pub fn range(self, len: usize, unit: usize, i: usize) -> Range<usize> {
        let (n, units) = (self.pieces, len.div_ceil(unit));
        let start = |i: usize| {
            let (part, whole) = if self.tapered {
                (i * (i + 1), n * (n + 1))
            } else {
                (i, n)
            };
            // At most `units`. Wide only where it must be: every phase divides here.
            let cut = match units.checked_mul(part) {
                Some(product) => product.div_ceil(whole),
                None => (units as u128 * part as u128).div_ceil(whole as u128) as usize,
            };
            (cut * unit).min(len)
        };
        start(i)..start(i + 1)
    }
}

/// That two outputs have as many units.
pub(super) fn check_units(a: usize, a_unit: usize, b: usize, b_unit: usize) {
    assert_eq!(
        a.div_ceil(a_unit),
        b.div_ceil(b_unit),
        "both outputs have as many units"
    );
}

/// Runs the pieces of a phase.
pub trait Executor: Sync {
    /// Threads that take pieces at the same time; a session keeps scratch memory for each.
    fn threads(&self) -> usize;

    /// Into how many pieces a phase that reads `work` bytes is worth cutting, at least 1.
    fn pieces(&self, work: usize) -> usize;

    /// As [`pieces`](Self::pieces), for a phase whose pieces may differ in length.
    fn shares(&self, work: usize) -> Shares;

    /// Runs `f`, all the phases of one forward pass, where starting a phase is cheap. `work` is the bytes that they read.
    fn enter<R: Send>(&self, work: usize, f: impl FnOnce() -> R + Send) -> R;

    /// Cuts two outputs into `shares` of whole units, `a` of so many elements and `b` of so many, and calls `f(first, piece, other piece, scratch)` for each
    /// that is not empty, `first` being the index in `a` of its first element, and `scratch` one that no other piece has meanwhile.
    ///
    /// # Panics
    /// If a unit is 0, if `b` has another number of units than `a`, or if `scratch` has fewer than
    /// [`threads`](Self::threads) elements.
    fn share_zipped<T: Send, U: Send, S: Send>(
        &self,
        shares: Shares,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut [U], &mut S) + Sync,
    );

    /// As [`share_zipped`](Self::share_zipped) with a single output.
    ///
    /// # Panics
    /// As [`share_zipped`](Self::share_zipped).
    fn share<T: Send, S: Send>(
        &self,
        shares: Shares,
        out: &mut [T],
        unit: usize,
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        // Units take no memory, so nothing is allocated.
        let mut units = vec![(); out.len().div_ceil(unit)];
        self.share_zipped(
            shares,
            (out, unit),
            (&mut units, 1),
            scratch,
            |first, out, _, scratch| {
                f(first, out, scratch);
            },
        );
    }

    /// Cuts `out` into pieces of `chunk` elements and `other` into as many of `other_chunk`, and calls
    /// `f(first, piece, other piece)` for each pair, `first` being the index in `out` of the piece's first element. The last
    /// pieces may be shorter.
    ///
    /// # Panics
    /// If `chunk` or `other_chunk` is 0, or if that makes another number of pieces of `other`.
    fn zip<T: Send, U: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        other: &mut [U],
        other_chunk: usize,
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        // A unit each; those of the threads take no memory, so nothing is allocated.
        let shares = Shares::even(out.len().div_ceil(chunk));
        let mut units = vec![(); self.threads()];
        self.share_zipped(
            shares,
            (out, chunk),
            (other, other_chunk),
            &mut units,
            |first, out, other, _| {
                f(first, out, other);
            },
        );
    }

    /// As [`zip`](Self::zip) with a single output.
    ///
    /// # Panics
    /// If `chunk` is 0.
    fn rows<T: Send>(&self, out: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let shares = Shares::even(out.len().div_ceil(chunk));
        self.share(shares, out, chunk, &mut vec![(); self.threads()], |first, out, _| {
            f(first, out)
        });
    }
}

/// The calling thread does everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serial;

impl Executor for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn pieces(&self, _work: usize) -> usize {
        1
    }

    fn shares(&self, _work: usize) -> Shares {
        Shares::even(1)
    }

    fn enter<R: Send>(&self, _work: usize, f: impl FnOnce() -> R + Send) -> R {
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
        check_units(a.0.len(), a.1, b.0.len(), b.1);
        for i in 0..shares.pieces {
            let range = shares.range(a.0.len(), a.1, i);
            if !range.is_empty() {
                let other = shares.range(b.0.len(), b.1, i);
                f(range.start, &mut a.0[range], &mut b.0[other], &mut scratch[0]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn shares_cover_everything_once_and_shrink_if_they_are_tapered() {
        for tapered in [false, true] {
            for pieces in [1, 2, 3, 16, 64] {
                for unit in [1, 4, 64] {
                    for len in [0, 1, 5, 64, 1000, 6912, 13_824] {
                        let shares = Shares { pieces, tapered };
                        let ranges: Vec<_> = (0..pieces).map(|i| shares.range(len, unit, i)).collect();
                        assert_eq!((ranges[0].start, ranges[pieces - 1].end), (0, len));
                        for (i, range) in ranges.iter().enumerate() {
                            assert!(i == 0 || range.start == ranges[i - 1].end);
                            assert!(range.start.is_multiple_of(unit) || range.start == len);
                            let share = if tapered {
                                2 * (i + 1) * len / (pieces * (pieces + 1))
                            } else {
                                len / pieces
                            };
                            assert!(range.len() <= share + 2 * unit, "{shares:?} {len} {unit}: {range:?}");
                        }
                    }
                }
            }
        }
        // No product overflows.
        let whole = Shares::even(3).range(usize::MAX, 1, 2);
        assert_eq!(whole.end, usize::MAX);
    }
}
