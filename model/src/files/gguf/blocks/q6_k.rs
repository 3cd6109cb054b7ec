//! `Q6_K`: 256 values as sixteen groups of 16, each with a signed byte, and one f16 step: 6.5625 bits a value.
//!
//! ```text
//! bytes   0..128  ql      the low four bits of q
//!       128..192  qh      the high two bits
//!       192..208  scales  a signed byte for each 16 values
//!       208..210  d       f16
//! ```
//! For each half of 128 values, with `ql`, `qh`, `scales` of 64, 32 and 8 bytes: value `32·n + l` (`n < 4`, `l < 32`) has its low bits in
//! `ql[l + 32·(n mod 2)]`, the low half of the byte for `n < 2` and the high half otherwise, its high bits in bits `2n, 2n+1` of `qh[l]`, and the scale
//! `scales[2n + l/16]`. `w = d · scale · (q − 32)`.

use half::f16;

use super::{extreme, f16_at, inverse};

/// Values of a block.
pub const LEN: usize = 256;
/// Bytes of a block.
pub const BYTES: usize = 210;
/// Values that share a scale.
const GROUP: usize = 16;
const QH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;

/// Where value `i` of a block lies: the byte of its low bits and their shift, the byte of its high bits and theirs.
fn place(i: usize) -> (usize, u32, usize, u32) {
    let (half, n, l) = (i / 128, i % 128 / 32, i % 32);
    (
        64 * half + 32 * (n % 2) + l,
        4 * (n / 2) as u32,
        QH + 32 * half + l,
        2 * n as u32,
    )
}

/// Appends the values of whole blocks.
pub fn decode(blocks: &[u8], out: &mut Vec<f32>) {
    for block in blocks.as_chunks::<BYTES>().0 {
        let d = f16_at(block, D);
        out.extend((0..LEN).map(|i| {
            let (low, low_shift, high, high_shift) = place(i);
            let q = (block[low] >> low_shift & 15) | (block[high] >> high_shift & 3) << 4;
            d * f32::from(block[SCALES + i / GROUP] as i8) * (f32::from(q) - 32.0)
        }));
    }
}

/// The step that fits a group best in the sense of least squares, of a few that map its extreme value near −32.
fn group_step(values: &[f32]) -> f32 {
    let most = extreme(values);
    if most == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_fit) = (most / -32.0, f32::MIN);
    for eighth in -4..=4 {
        let inverse = (-32.0 + 0.125 * eighth as f32) / most;
        let (mut cross, mut square) = (0.0f32, 0.0f32);
        for &v in values {
            let q = (v * inverse).round_ties_even().clamp(-32.0, 31.0);
            cross += q * v;
            square += q * q;
        }
        if square > 0.0 && cross * cross / square > best_fit {
            (best, best_fit) = (cross / square, cross * cross / square);
        }
    }
    best
}

/// Appends the blocks of `values`, whose number is a multiple of [`LEN`].
pub fn encode(values: &[f32], out: &mut Vec<u8>) {
    for values in values.as_chunks::<LEN>().0 {
        let mut steps = [0.0f32; LEN / GROUP];
        for (step, group) in steps.iter_mut().zip(values.as_chunks::<GROUP>().0) {
            *step = group_step(group);
        }
        // The largest step becomes −128 and the others fall in between.
        let d = f16::from_f32(extreme(&steps) / -128.0);
        let by_d = inverse(d.to_f32());
        let mut block = [0u8; BYTES];
        for (g, (step, group)) in steps.iter().zip(values.as_chunks::<GROUP>().0).enumerate() {
            let scale = (step * by_d).round_ties_even().clamp(-128.0, 127.0) as i8;
            block[SCALES + g] = scale as u8;
            let by_step = inverse(d.to_f32() * f32::from(scale));
            for (i, &v) in group.iter().enumerate() {
                let q = ((v * by_step).round_ties_even().clamp(-32.0, 31.0) + 32.0) as u8;
                let (low, low_shift, high, high_shift) = place(GROUP * g + i);
                block[low] |= (q & 15) << low_shift;
                block[high] |= (q >> 4) << high_shift;
            }
        }
        block[D..].copy_from_slice(&d.to_le_bytes());
        out.extend(block);
    }
}
