//! `Q8_0`: 32 values as an f16 step and 32 signed bytes, 8.5 bits a value. `w = d · q`.

use half::f16;

use super::{extreme, f16_at, inverse};

/// Values of a block.
pub const LEN: usize = 32;
/// Bytes of a block.
pub const BYTES: usize = 2 + LEN;

/// Appends the values of whole blocks.
pub fn decode(blocks: &[u8], out: &mut Vec<f32>) {
    for block in blocks.as_chunks::<BYTES>().0 {
        let d = f16_at(block, 0);
        out.extend(block[2..].iter().map(|&q| d * f32::from(q as i8)));
    }
}

/// Appends the blocks of `values`, whose number is a multiple of [`LEN`].
pub fn encode(values: &[f32], out: &mut Vec<u8>) {
    for values in values.as_chunks::<LEN>().0 {
        let d = extreme(values).abs() / 127.0;
        let inverse = inverse(d);
        out.extend(f16::from_f32(d).to_le_bytes());
        out.extend(values.map(|v| (v * inverse).round() as i8 as u8));
    }
}
