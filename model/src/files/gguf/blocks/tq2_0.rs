//! `TQ2_0` of llama.cpp: 256 trits as 64 bytes and an f16 scale, 2.0625 bits a weight.
//!
//! Each 32 bytes hold 128 weights: byte *m* has weights *m, m+32, m+64, m+96* in bits 0–1, 2–3, 4–5, 6–7, each as trit + 1. `w = d · trit`.

use half::f16;

use super::f16_at;

/// Weights of a block.
pub const LEN: usize = 256;
/// Bytes of a block.
pub const BYTES: usize = 66;
const CODES: usize = 64;

/// Writes the trits of whole blocks to `trits` and gives each block's scale to `scale`.
///
/// # Errors
/// The position of a code 3, which stands for nothing.
pub fn decode(blocks: &[u8], trits: &mut [i8], mut scale: impl FnMut(f32)) -> Result<(), usize> {
    for (b, (block, trits)) in blocks
        .as_chunks::<BYTES>()
        .0
        .iter()
        .zip(trits.as_chunks_mut::<LEN>().0)
        .enumerate()
    {
        for (half, codes) in block[..CODES].as_chunks::<32>().0.iter().enumerate() {
            for n in 0..4 {
                for (m, byte) in codes.iter().enumerate() {
                    let (code, at) = (byte >> (2 * n) & 3, 128 * half + 32 * n + m);
                    if code == 3 {
                        return Err(LEN * b + at);
                    }
                    trits[at] = code as i8 - 1;
                }
            }
        }
        scale(f16_at(block, CODES));
    }
    Ok(())
}

/// Appends the blocks of `trits`, whose number is a multiple of [`LEN`].
pub fn encode(trits: &[i8], scale: f16, out: &mut Vec<u8>) {
    for trits in trits.as_chunks::<LEN>().0 {
        for trits in trits.as_chunks::<128>().0 {
            out.extend((0..32).map(|m| (0..4).fold(0, |byte, n| byte | ((trits[32 * n + m] + 1) as u8) << (2 * n))));
        }
        out.extend(scale.to_le_bytes());
    }
}
