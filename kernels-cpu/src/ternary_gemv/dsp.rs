//! Cortex-M with the DSP extension: two multiply-adds an instruction.
//!
//! Four bytes of a row are 16 codes in four fields. Bytes 0 and 2 of a word, and bytes 1 and 3, are taken as the halves of a register, the
//! codes of a field by a mask whose operand is shifted on the way, the activations by an extension of their sign:
//!
//! ```text
//! and     c, mask, w, lsr #2f          c = [code of byte 2, code of byte 0]        mask = 0x0003_0003
//! sxtb16  a, x                         a = [x[2], x[0]]                            x = four activations
//! smlad   sum, c, a, sum               sum += c·a of both halves
//! ```
//!
//! Activations are extended once for the four rows of a group, so 16 multiply-adds take 26 instructions, of which the compiler's own loop around the same three made 30. Fields that
//! hold padding alone are passed over: with 128 columns half of them.
//!
//! No sum overflows ([`t2::MAX_COLS`](crate::t2::MAX_COLS)); products of codes up to 3 and bytes fit `smlad` with room.

use super::less;
use crate::isa::Dsp;
use crate::t2::{BLOCK, BLOCK_BYTES, GROUP_ROWS, group_bytes};

/// The lowest field of bytes 0 and 2 of a word.
const MASK: u32 = 0x0003_0003;

/// See [`super::ternary_gemv`].
pub(super) fn gemv(token: Dsp, w: &[u8], cols: usize, xq: &[i8], out: &mut [i32]) {
    // The padding of `xq` may hold anything, and fields of padding hold code 1: what a word of both adds is taken away with the sum of `xq`.
    let used = cols.next_multiple_of(BLOCK_BYTES);
    let correction: i32 = xq[..used].iter().map(|&x| i32::from(x)).sum();
    for (group, out) in w.chunks_exact(group_bytes(cols)).zip(out.chunks_mut(GROUP_ROWS)) {
        less(rows(token, group, &xq[..used]), correction, out);
    }
}

/// The sums of codes and activations of a group's four rows; `xq` is whole fields.
#[inline(always)]
fn rows(token: Dsp, group: &[u8], xq: &[i8]) -> [i32; GROUP_ROWS] {
    let mut sums = [0; GROUP_ROWS];
    let blocks = group.as_chunks::<{ GROUP_ROWS * BLOCK_BYTES }>().0;
    for (block, x) in blocks.iter().zip(xq.chunks(BLOCK)) {
        let fields = x.as_chunks::<BLOCK_BYTES>().0;
        // One instance for each shift, which is then part of an instruction.
        if let Some(x) = fields.first() {
            field::<0>(token, block, x, &mut sums);
        }
        if let Some(x) = fields.get(1) {
            field::<2>(token, block, x, &mut sums);
        }
        if let Some(x) = fields.get(2) {
            field::<4>(token, block, x, &mut sums);
        }
        if let Some(x) = fields.get(3) {
            field::<6>(token, block, x, &mut sums);
        }
    }
    sums
}

/// The four codes of a field, of the row whose bytes lie at an offset, times four activations.
macro_rules! row {
    ($sum:literal, $at:literal) => {
        concat!(
            "ldr {word}, [{w}, #",
            $at,
            "]\n",
            "and {codes}, {mask}, {word}, lsr #{low}\n",
            "smlad {",
            $sum,
            "}, {codes}, {even}, {",
            $sum,
            "}\n",
            "and {word}, {mask}, {word}, lsr #{high}\n",
            "smlad {",
            $sum,
            "}, {word}, {odd}, {",
            $sum,
            "}\n",
        )
    };
}

/// Adds the products of the field that is `SHIFT` bits up in the bytes of each row.
#[inline(always)]
fn field<const SHIFT: u32>(
    _: Dsp,
    block: &[u8; GROUP_ROWS * BLOCK_BYTES],
    x: &[i8; BLOCK_BYTES],
    sums: &mut [i32; GROUP_ROWS],
) {
    let [a, b, c, d] = sums;
    // SAFETY: the token proves that the processor has the instructions. 16 words of `x` and of each row of `block` are read, all of which are
    // there; words need no alignment on these processors.
    unsafe {
        core::arch::asm!(
            "2:",
            "ldr {odd}, [{x}], #4",
            "sxtb16 {even}, {odd}",
            "sxtb16 {odd}, {odd}, ror #8",
            row!("a", 0),
            row!("b", 64),
            row!("c", 128),
            row!("d", 192),
            "add {w}, {w}, #4",
            "cmp {x}, {end}",
            "bne 2b",
            a = inout(reg) *a, b = inout(reg) *b, c = inout(reg) *c, d = inout(reg) *d,
            w = inout(reg) block.as_ptr() => _, x = inout(reg) x.as_ptr() => _, end = in(reg) x.as_ptr_range().end,
            mask = in(reg) MASK, even = out(reg) _, odd = out(reg) _, codes = out(reg) _, word = out(reg) _,
            low = const SHIFT, high = const SHIFT + 8,
            options(pure, readonly, nostack),
        );
    }
}
