//! What every reader of files is put through: each prefix of a good file, and thousands of damaged ones. Nothing may panic, and no reader may
//! ask for more memory than a small multiple of what it was given.
//!
//! A further format is a further module of this test: a good file of a few kilobytes, and a closure that reads bytes as far as a program would.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../common/seed.rs"]
mod seed;

pub use seed::{damaged as seed_damaged, seed};

pub use crate::counting::peak_of;

/// Memory that a reader may ask for beyond four times the file.
const SLACK: usize = 16 << 20;

/// Most bytes that may be held at once while a file of `len` bytes is read.
pub fn bound(len: usize) -> usize {
    4 * len + SLACK
}

/// Reads one file: no panic, and memory within the bound. `what` names the input.
pub fn check_one(what: &str, bytes: &[u8], parse: &impl Fn(&[u8])) {
    let (outcome, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| parse(bytes))));
    assert!(outcome.is_ok(), "{what}: the reader panicked");
    let most = bound(bytes.len());
    assert!(
        peak <= most,
        "{what}: {peak} bytes of memory for a file of {}, more than {most}",
        bytes.len()
    );
}

/// Reads every prefix of a file, the whole of it included.
pub fn check_truncations(name: &str, bytes: &[u8], parse: impl Fn(&[u8])) {
    assert!(
        bytes.len() < 1 << 16,
        "{name}: {} bytes are too many for this",
        bytes.len()
    );
    for len in 0..=bytes.len() {
        // In memory of its own, so that a read beyond the end is one beyond an allocation.
        let cut = bytes[..len].to_vec();
        check_one(&format!("{name}, cut to {len} bytes"), &cut, &parse);
    }
}

/// Reads `rounds` damaged copies of a file, the same ones on every run.
pub fn check_damage(name: &str, bytes: &[u8], rounds: u64, parse: impl Fn(&[u8])) {
    for round in 0..rounds {
        let damaged = damaged(bytes, round);
        check_one(&format!("{name}, damage {round}"), &damaged, &parse);
    }
}

/// A generator of random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A copy with one to four changes: bits, bytes, words that are extreme as a length, digits, pieces moved, doubled or cut out.
pub fn damaged(bytes: &[u8], round: u64) -> Vec<u8> {
    const WORDS: [u64; 8] = [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 32, 1 << 62, u64::MAX - 7];
    let mut random = Random(round);
    let mut out = bytes.to_vec();
    // Half of the changes near the front, where the lengths are.
    let place = |random: &mut Random, len: usize| match random.below(2) {
        0 => random.below(len.min(512)),
        _ => random.below(len),
    };
    for _ in 0..=random.below(4) {
        let len = out.len();
        if len == 0 {
            break;
        }
        let at = place(&mut random, len);
        match random.below(7) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = random.next() as u8,
            2 => {
                let width = [4, 8][random.below(2)].min(len - at);
                let word = WORDS[random.below(WORDS.len())].to_le_bytes();
                out[at..at + width].copy_from_slice(&word[..width]);
            }
            3 => {
                // Another digit, and so another number that is still one.
                if let Some(digit) = out[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + random.below(10) as u8;
                }
            }
            4 => {
                let end = at + random.below((len - at).min(64));
                let piece = out[at..end].to_vec();
                let to = place(&mut random, len);
                out.splice(to..to, piece);
            }
            5 => {
                let end = at + random.below((len - at).min(64));
                out.drain(at..end);
            }
            _ => {
                let to = place(&mut random, len);
                out.swap(at, to);
            }
        }
    }
    out
}

/// The harness sees what it is there to see.
#[test]
fn a_panic_and_a_large_allocation_are_found() {
    let caught = |parse: &dyn Fn(&[u8])| {
        catch_unwind(AssertUnwindSafe(|| check_truncations("probe", b"0123456789", parse))).is_err()
    };
    assert!(!caught(&|_| ()));
    assert!(caught(&|bytes| assert!(bytes.len() != 7)));
    let large = |len: usize| move |_: &[u8]| drop(black_box(Vec::<u8>::with_capacity(len)));
    assert!(!caught(&large(SLACK)));
    assert!(caught(&large(SLACK + 41)));
    let changed = (0..100).filter(|&round| damaged(&[7; 100], round) != [7; 100]).count();
    assert!(changed > 60, "{changed}");
    assert_eq!(damaged(&[7; 100], 3), damaged(&[7; 100], 3));
}
