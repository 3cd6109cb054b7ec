//! `TQ1_0` of llama.cpp: 256 trits as 52 bytes and an f16 scale, 1.6875 bits a weight.
//!
//! | bytes | weights, byte *m* of them |
//! |---|---|
//! | 0–31 | *m + 32n*, n < 5 |
//! | 32–47 | 160 + *m + 16n*, n < 5 |
//! | 48–51 | 240 + *m + 4n*, n < 4 |
//!
//! The trits + 1 of a byte are the digits of a number to base 3, *n = 0* the most significant of five (the last four bytes have a fifth digit of 0);
//! the byte is ⌈number · 256 / 243⌉, so that a digit comes out on top when the byte is multiplied by 3. `w = d · trit`.

use half::f16;

use super::f16_at;

/// Weights of a block.
pub const LEN: usize = 256;
/// Bytes of a block.
pub const BYTES: usize = 54;
const CODES: usize = 52;

/// First byte, bytes, first weight and digits of each row of the table above.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

/// Byte → five digits, or `None` where no number gives that byte.
static DIGITS: [Option<[u8; 5]>; 256] = {
    let mut table = [None; 256];
    let mut number = 0;
    while number < 243 {
        let mut digits = [0; 5];
        let (mut rest, mut n) = (number, 5);
        while n > 0 {
            n -= 1;
            digits[n] = (rest % 3) as u8;
            rest /= 3;
        }
        table[byte_of(number)] = Some(digits);
        number += 1;
    }
    table
};

const fn byte_of(number: usize) -> usize {
    (number * 256).div_ceil(243)
}

/// Writes the trits of whole blocks to `trits` and gives each block's scale to `scale`.
///
/// # Errors
/// The position of the first weight of a byte that no five trits give.
pub fn decode(blocks: &[u8], trits: &mut [i8], mut scale: impl FnMut(f32)) -> Result<(), usize> {
    for (b, (block, trits)) in blocks
        .as_chunks::<BYTES>()
        .0
        .iter()
        .zip(trits.as_chunks_mut::<LEN>().0)
        .enumerate()
    {
        for (byte, bytes, weight, digits) in PARTS {
            for (m, &code) in block[byte..byte + bytes].iter().enumerate() {
                let Some(values) = DIGITS[usize::from(code)].filter(|d| digits == 5 || d[4] == 0) else {
                    return Err(LEN * b + weight + m);
                };
                for (n, &digit) in values[..digits].iter().enumerate() {
                    trits[weight + bytes * n + m] = digit as i8 - 1;
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
        for (_, bytes, weight, digits) in PARTS {
            out.extend((0..bytes).map(|m| {
                let digit = |n| {
                    if n < digits {
                        (trits[weight + bytes * n + m] + 1) as usize
                    } else {
                        0
                    }
                };
                byte_of((0..5).fold(0, |number, n| 3 * number + digit(n))) as u8
            }));
        }
        out.extend(scale.to_le_bytes());
    }
}
