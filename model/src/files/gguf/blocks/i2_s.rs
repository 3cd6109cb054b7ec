//! `I2_S` of bitnet.cpp, as its x86 build writes it: two bits a weight and one f32 scale for the tensor.
//!
//! Each 32 bytes hold 128 weights: byte *j* has weights *j, j+32, j+64, j+96* in bits 6–7, 4–5, 2–3, 0–1, each as trit + 1. The scale is
//! the first f32 of the 32 bytes that follow the last block; the rest of them is zero. `w = scale · trit`.
//!
//! (Its ARM build has blocks of 64 weights in 16 bytes under the same type number; published files are of the x86 kind.)

/// Weights of a block.
pub const LEN: usize = 128;
/// Bytes of a block.
pub const BYTES: usize = 32;
/// Bytes after the last block.
pub const TAIL: usize = 32;

/// Writes the trits of a tensor to `trits` and returns its scale.
///
/// # Errors
/// The position of a code 3, which stands for nothing.
pub fn decode(tensor: &[u8], trits: &mut [i8]) -> Result<f32, usize> {
    for (b, (block, trits)) in tensor
        .as_chunks::<BYTES>()
        .0
        .iter()
        .zip(trits.as_chunks_mut::<LEN>().0)
        .enumerate()
    {
        for n in 0..4 {
            for (j, byte) in block.iter().enumerate() {
                let (code, at) = (byte >> (6 - 2 * n) & 3, 32 * n + j);
                if code == 3 {
                    return Err(LEN * b + at);
                }
                trits[at] = code as i8 - 1;
            }
        }
    }
    let tail = tensor.len().saturating_sub(TAIL);
    match tensor.get(tail..tail + 4) {
        Some(&[a, b, c, d]) => Ok(f32::from_le_bytes([a, b, c, d])),
        _ => Ok(f32::NAN),
    }
}

/// Appends the tensor of `trits`, whose number is a multiple of [`LEN`].
pub fn encode(trits: &[i8], scale: f32, out: &mut Vec<u8>) {
    for trits in trits.as_chunks::<LEN>().0 {
        out.extend((0..32).map(|j| (0..4).fold(0, |byte, n| byte | ((trits[32 * n + j] + 1) as u8) << (6 - 2 * n))));
    }
    let mut tail = [0; TAIL];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    out.extend(tail);
}
