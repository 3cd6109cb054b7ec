//! The order in which a corpus is seen: windows of `seq_len + 1` tokens, shuffled anew in each epoch.
//!
//! ```text
//! tokens  0 1 2 3 4 5 6 7 8 9 …          window i of an epoch = offset + i·seq_len ..= offset + (i+1)·seq_len
//! offset      └──inputs──┐               inputs are all but its last token, targets all but its first:
//!               └─targets──┘             neighbours share one token, and every target is predicted once
//! ```
//! Each epoch draws an `offset` below `seq_len`, so that the borders, where a target has little context, fall elsewhere;
//! the tokens before the first and after the last window (less than two windows together) wait for another epoch. The
//! number of windows is the same in each epoch, and everything is a pure function of (seed, epoch, index): the whole
//! state of the data order is one `u64`, the number of windows taken so far.
//!
//! The permutation is a Feistel network over the smallest square of two powers that holds the windows; an image outside
//! is mapped again until it falls inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
//! So it needs no memory, for any number of windows.

use std::ops::Range;

use onebit_engine::rng::Key;

use super::{DataError, Result};

const PURPOSE_OFFSET: u32 = 0x6f66_6673;
const PURPOSE_ORDER: u32 = 0x6f72_6472;
const ROUNDS: u64 = 8;
/// Smallest half of the network, in bits: below, eight rounds do not mix well.
const MIN_HALF_BITS: u32 = 3;

/// The place of `index` in a permutation of `0..n`. `random(counter, bound)` is a keyed random function with values
/// below `bound`; another key gives another permutation.
///
/// # Panics
/// If `index >= n`.
pub fn permute(index: u64, n: u64, mut random: impl FnMut(u64, u32) -> u32) -> u64 {
    assert!(index < n, "index {index} of {n}");
    let bits = u64::BITS - (n - 1).leading_zeros();
    // Halves beyond 28 bits would need counters and bounds beyond u64 and u32; 2^56 windows are out of reach.
    let half = bits.div_ceil(2).clamp(MIN_HALF_BITS, 28);
    let mask = (1u64 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..ROUNDS {
            let mixed = left ^ u64::from(random(round << 32 | right, 1 << half));
            (left, right) = (right, mixed);
        }
        at = left << half | right;
        if at < n {
            return at;
        }
    }
}

/// The order of the windows of one corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowOrder {
    seq_len: u64,
    seed: u64,
    /// Windows in an epoch.
    windows: u64,
    /// Number of offsets to choose from.
    offsets: u64,
}

impl WindowOrder {
    /// The order for a corpus of `tokens` tokens in windows of `seq_len` inputs.
    ///
    /// # Errors
    /// [`DataError::WindowTooLong`] if no window fits, or `seq_len` is 0.
    pub fn new(tokens: usize, seq_len: usize, seed: u64) -> Result<WindowOrder> {
        let (tokens, length) = (tokens as u64, seq_len as u64);
        if length == 0 || length >= tokens || length > u32::MAX.into() {
            return Err(DataError::WindowTooLong {
                tokens,
                needed: length.max(1).saturating_add(1),
                seq_len,
            });
        }
        // Room for any offset below seq_len; a corpus of less than two windows uses what room there is.
        let windows = ((tokens - length) / length).max(1);
        let offsets = (tokens - windows * length).min(length);
        Ok(WindowOrder {
            seq_len: length,
            seed,
            windows,
            offsets,
        })
    }

    /// Windows in one epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        self.windows
    }

    /// The epoch that window `global_index` belongs to.
    pub fn epoch(&self, global_index: u64) -> u64 {
        global_index / self.windows
    }

    /// The tokens of the `global_index`-th window since the start of training: `seq_len + 1` of them.
    pub fn window(&self, global_index: u64) -> Range<usize> {
        let (epoch, index) = (global_index / self.windows, global_index % self.windows);
        let offset = Key::new(self.seed, PURPOSE_OFFSET, epoch).below(0, self.offsets as u32);
        let order = Key::new(self.seed, PURPOSE_ORDER, epoch);
        let place = permute(index, self.windows, |counter, bound| order.below(counter, bound));
        let start = u64::from(offset) + place * self.seq_len;
        start as usize..(start + self.seq_len + 1) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn permutations_are_bijections() {
        for n in [1u64, 2, 3, 5, 16, 63, 64, 65, 1000, 4097] {
            for step in 0..3 {
                let key = Key::new(7, 1, step);
                let image: HashSet<u64> = (0..n).map(|i| permute(i, n, |c, b| key.below(c, b))).collect();
                assert_eq!(image.len() as u64, n);
                assert!(image.iter().all(|&i| i < n));
            }
        }
        let key = Key::new(1, 2, 3);
        assert!(permute(1 << 40, (1 << 40) + 1, |c, b| key.below(c, b)) <= 1 << 40);
    }

    #[test]
    fn permutations_look_random() {
        // Each of 5 places equally often over 5,000 keys: expected 1,000, standard deviation 28.
        let mut seen = [0; 5];
        for seed in 0..5000 {
            let key = Key::new(seed, 1, 0);
            seen[permute(2, 5, |c, b| key.below(c, b)) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        // Neighbours in order are not neighbours in place: about 1 step in 500 of ±1 by chance.
        let key = Key::new(9, 1, 0);
        let places: Vec<u64> = (0..1000).map(|i| permute(i, 1000, |c, b| key.below(c, b))).collect();
        assert!(places.windows(2).filter(|w| w[0].abs_diff(w[1]) == 1).count() < 15);
    }

    #[test]
    fn an_epoch_sees_each_target_once() {
        for (tokens, seq_len) in [(2, 1), (9, 8), (16, 8), (17, 8), (1000, 7), (1001, 100), (257, 16)] {
            let order = WindowOrder::new(tokens, seq_len, 42).unwrap();
            let n = order.windows_per_epoch();
            assert!(n as usize + 1 >= (tokens - 1) / seq_len);
            for epoch in 0..4 {
                let mut targets = HashSet::new();
                for i in epoch * n..(epoch + 1) * n {
                    let window = order.window(i);
                    assert_eq!((window.len(), order.epoch(i)), (seq_len + 1, epoch));
                    assert!(window.end <= tokens, "never over the end");
                    assert!(window.skip(1).all(|t| targets.insert(t)), "a target twice in an epoch");
                }
                assert!(tokens - 1 - targets.len() < 2 * seq_len);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let order = WindowOrder::new(10_000, 50, 1).unwrap();
        let n = order.windows_per_epoch();
        let starts = |order: &WindowOrder, epoch: u64| -> Vec<usize> {
            (epoch * n..(epoch + 1) * n).map(|i| order.window(i).start).collect()
        };
        assert_eq!(starts(&order, 3), starts(&WindowOrder::new(10_000, 50, 1).unwrap(), 3));
        assert_ne!(starts(&order, 0), starts(&order, 1));
        assert_ne!(starts(&order, 0), starts(&WindowOrder::new(10_000, 50, 2).unwrap(), 0));
        let offsets: HashSet<usize> = (0..200).map(|epoch| starts(&order, epoch)[0] % 50).collect();
        assert!(offsets.len() > 40, "borders move: {}", offsets.len());
    }

    #[test]
    fn windows_longer_than_the_data() {
        for (tokens, seq_len) in [(0, 1), (1, 1), (8, 8), (100, 0), (5, usize::MAX)] {
            assert!(matches!(
                WindowOrder::new(tokens, seq_len, 0),
                Err(DataError::WindowTooLong { .. })
            ));
        }
        assert_eq!(WindowOrder::new(9, 8, 0).unwrap().window(5), 0..9);
    }
}
