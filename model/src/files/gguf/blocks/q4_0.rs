//! `Q4_0`: 32 values as an f16 step and 16 bytes, 4.5 bits a value. Byte *j* holds value *j* in its low half and value *j + 16* in its high
//! half, each as `q + 8`; `w = d · q`, and the value of largest magnitude is −8 steps.

use half::f16;

use super::{extreme, f16_at, inverse};

/// Values of a block.
pub const LEN: usize = 32;
/// Bytes of a block.
pub const BYTES: usize = 2 + LEN / 2;

/// Appends the values of whole blocks.
pub fn decode(blocks: &[u8], out: &mut Vec<f32>) {
    for block in blocks.as_chunks::<BYTES>().0 {
        let d = f16_at(block, 0);
        let value = |q: u8| d * (f32::from(q) - 8.0);
        out.extend(block[2..].iter().map(|&byte| value(byte & 15)));
        out.extend(block[2..].iter().map(|&byte| value(byte >> 4)));
    }
}

/// Appends the blocks of `values`, whose number is a multiple of [`LEN`].
pub fn encode(values: &[f32], out: &mut Vec<u8>) {
    for values in values.as_chunks::<LEN>().0 {
        let d = extreme(values) / -8.0;
        let inverse = inverse(d);
        let code = |v: f32| ((v * inverse + 8.5) as u8).min(15);
        out.extend(f16::from_f32(d).to_le_bytes());
        let (low, high) = values.split_at(LEN / 2);
        out.extend(low.iter().zip(high).map(|(&low, &high)| code(low) | code(high) << 4));
    }
}
