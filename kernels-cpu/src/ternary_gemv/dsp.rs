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
//! Activations are extended once for the four rows of a group, so 16 multiply-adds take 22 instructions and a share of the loop. Fields that
//! hold padding alone are passed over: with 128 columns half of them.
//!
//! No sum overflows ([`t2::MAX_COLS`](crate::t2::MAX_COLS)); products of codes up to 3 and bytes fit `smlad` with room.

use super::less;
use crate::isa::Dsp;
use crate::t2::{BLOCK, BLOCK_BYTES, GROUP_ROWS, group_bytes};

/// The lowest field of bytes 0 and 2 of a word.
const MASK: u32 = 0x0003_0003;

/// The sum of `c·a` over both halves, and `sum`.
#[inline(always)]
fn smlad(_: Dsp, c: u32, a: u32, sum: i32) -> i32 {
    let out;
    // SAFETY: the token proves that the processor has the instruction; registers alone are touched.
    unsafe {
        core::arch::asm!("smlad {out}, {c}, {a}, {sum}", out = lateout(reg) out, c = in(reg) c, a = in(reg) a, sum = in(reg) sum,
            options(pure, nomem, nostack));
    }
    out
}

/// Bytes 0 and 2 of `x`, each with its sign, as halves.
#[inline(always)]
fn sxtb16(_: Dsp, x: u32) -> u32 {
    let out;
    // SAFETY: as in `smlad`.
    unsafe {
        core::arch::asm!("sxtb16 {out}, {x}", out = lateout(reg) out, x = in(reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Bytes 1 and 3 of `x`, likewise.
#[inline(always)]
fn sxtb16_ror8(_: Dsp, x: u32) -> u32 {
    let out;
    // SAFETY: as in `smlad`.
    unsafe {
        core::arch::asm!("sxtb16 {out}, {x}, ror #8", out = lateout(reg) out, x = in(reg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

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

/// Adds the products of the field that is `SHIFT` bits up in the bytes of each row.
#[inline(always)]
fn field<const SHIFT: u32>(token: Dsp, block: &[u8; GROUP_ROWS * BLOCK_BYTES], x: &[i8; BLOCK_BYTES], sums: &mut [i32; GROUP_ROWS]) {
    let mut words: [&[[u8; 4]]; GROUP_ROWS] = [&[]; GROUP_ROWS];
    for (r, words) in words.iter_mut().enumerate() {
        *words = block[r * BLOCK_BYTES..][..BLOCK_BYTES].as_chunks().0;
    }
    for (j, x) in x.as_chunks::<4>().0.iter().enumerate() {
        let x = u32::from_le_bytes(x.map(|x| x as u8));
        let (even, odd) = (sxtb16(token, x), sxtb16_ror8(token, x));
        for (r, sum) in sums.iter_mut().enumerate() {
            let w = u32::from_le_bytes(words[r][j]) >> SHIFT;
            *sum = smlad(token, w & MASK, even, *sum);
            *sum = smlad(token, (w >> 8) & MASK, odd, *sum);
        }
    }
}
