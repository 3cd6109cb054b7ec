//! Opening panels of sixteen rows in portable code: for every path but AVX-512's, and for its `t5` where a CPU has no VBMI.

use super::Job;
use crate::b1::{self, FIELDS};
use crate::t2::{self, GROUP_ROWS};
use crate::t5::digits;
use crate::ternary::Layout;

/// Rows of a panel.
pub(super) const PANEL: usize = 16;

/// Opens up to sixteen rows, codes `w + 1` (0 past the last column in `b1`): the four codes of row `r` in step `s` (columns `4s..4s+4`) become word `place(s, r)` of `panel`.
#[inline]
pub(super) fn open(job: &Job, groups: &[u8], panel: &mut [[u8; 64]], place: impl Fn(usize, usize) -> usize) {
    match job.layout {
        Layout::T2 | Layout::T5 => open_blocks::<{ t2::BLOCK_BYTES }>(job, groups, panel, place),
        Layout::B1 => open_blocks::<{ b1::BLOCK_BYTES }>(job, groups, panel, place),
    }
}

/// [`open`] for blocks of `BYTES` bytes.
#[inline(always)]
fn open_blocks<const BYTES: usize>(
    job: &Job,
    groups: &[u8],
    panel: &mut [[u8; 64]],
    place: impl Fn(usize, usize) -> usize,
) {
    let words = panel.as_flattened_mut().as_chunks_mut::<4>().0;
    let group = job.layout.group_bytes(job.cols);
    let steps_per_block = job.layout.block() / 4;
    for (g, group) in groups.chunks_exact(group).enumerate() {
        for (b, blocks) in group.as_chunks::<BYTES>().0.chunks_exact(GROUP_ROWS).enumerate() {
            for (r, block) in blocks.iter().enumerate() {
                let row = g * GROUP_ROWS + r;
                for (d, word) in block.as_chunks::<4>().0.iter().enumerate() {
                    let mut put = |field: usize, codes: [u8; 4]| {
                        words[place(steps_per_block * b + BYTES / 4 * field + d, row)] = codes;
                    };
                    match job.layout {
                        Layout::T2 => {
                            let word = u32::from_le_bytes(*word);
                            for f in 0..4 {
                                put(f, ((word >> (2 * f)) & 0x0303_0303).to_le_bytes());
                            }
                        }
                        Layout::B1 => {
                            // Twice the word, in 33 bits: each bit is moved to bit 1 of its byte, the code 0 or 2.
                            let word = u64::from(u32::from_le_bytes(*word)) << 1;
                            for f in 0..FIELDS {
                                put(f, ((word >> f) as u32 & 0x0202_0202).to_le_bytes());
                            }
                        }
                        Layout::T5 => {
                            let [a, b, c, d] = word.map(digits);
                            for f in 0..5 {
                                put(f, [a[f] - 1, b[f] - 1, c[f] - 1, d[f] - 1]);
                            }
                        }
                    }
                }
            }
        }
    }
}
