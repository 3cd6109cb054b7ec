//! What a template has used up, and what it may.

use super::fault::{Fault, Result};

/// Bytes that a template may make beside what the conversation allows it.
const BYTES: u64 = 24 << 20;
/// Bytes that it may make for each byte of the conversation.
const BYTES_EACH: u64 = 64;
/// Units of work beside what the conversation allows.
const WORK: u64 = 4_000_000;
/// Units of work for each byte of the conversation.
const WORK_EACH: u64 = 64;
/// Bytes that are read or written for a unit of work.
const BYTES_A_UNIT: u64 = 16;
/// Expressions, statements and calls within one another. Each takes some of the program's own stack.
const DEPTH: usize = 200;

/// A budget. Nothing is ever given back: what a template makes in all bounds what it holds at any time.
pub(super) struct Meter {
    bytes: u64,
    work: u64,
    depth: usize,
}

impl Meter {
    /// The budget for a conversation of so many bytes.
    pub fn new(conversation: usize) -> Self {
        let more = |each: u64| each.saturating_mul(conversation as u64);
        Self {
            bytes: BYTES.saturating_add(more(BYTES_EACH)),
            work: WORK.saturating_add(more(WORK_EACH)),
            depth: 0,
        }
    }

    /// Pays for `units` of work.
    pub fn work(&mut self, units: usize) -> Result<()> {
        self.work = self.work.checked_sub(units as u64).ok_or_else(|| {
            Fault::Limit(format!(
                "it does more than the {WORK} steps that a template may take, and {WORK_EACH} for each byte of the conversation"
            ))
        })?;
        Ok(())
    }

    /// Pays for reading `bytes`.
    pub fn read(&mut self, bytes: usize) -> Result<()> {
        self.work(1 + (bytes as u64 / BYTES_A_UNIT) as usize)
    }

    /// Pays for making `bytes`, before they are made.
    pub fn make(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or_else(|| {
            Fault::Limit(format!(
                "it makes more than the {} MiB that a template may, and {BYTES_EACH} bytes for each byte of the conversation",
                BYTES >> 20
            ))
        })?;
        self.read(bytes)
    }

    /// Pays for making `count` things of `size` bytes.
    pub fn make_many(&mut self, count: usize, size: usize) -> Result<()> {
        self.make(count.saturating_mul(size))
    }

    /// Goes a level down.
    pub fn enter(&mut self) -> Result<()> {
        self.work(1)?;
        if self.depth == DEPTH {
            return Err(Fault::Limit(format!(
                "its expressions, blocks and macros are nested deeper than {DEPTH} levels"
            )));
        }
        self.depth += 1;
        Ok(())
    }

    /// Comes back up.
    pub fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}
