//! Portable probes.

use core::hint::black_box;

const CHAINS: usize = 8;

/// Two operations for each of the eight products of a step.
pub(super) fn int8_dot(iterations: u64) -> f64 {
    let mut acc = [0i32; CHAINS];
    for _ in 0..iterations {
        // Opaque, or the compiler would multiply once for all steps.
        let (x, y) = (black_box(3i8), black_box(-5i8));
        for t in &mut acc {
            *t = t.wrapping_add(i32::from(x) * i32::from(y));
        }
        acc = black_box(acc);
    }
    (2 * CHAINS) as f64 * iterations as f64
}

/// Eight bytes at a time, even and odd bytes in 16-bit fields: 128 words of two bytes of at most 255 each cannot overflow one.
pub(super) fn read_sweep(bytes: &[u8]) -> u64 {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let mut sum = 0u64;
    for chunk in bytes.chunks(8 * 128) {
        let (words, rest) = chunk.as_chunks::<8>();
        let mut fields = 0u64;
        for word in words {
            let word = u64::from_le_bytes(*word);
            fields += (word & EVEN) + ((word >> 8) & EVEN);
        }
        // The four fields, added by one multiplication, would overflow 16 bits: take them apart.
        sum += (0..4).map(|i| (fields >> (16 * i)) & 0xffff).sum::<u64>();
        sum += rest.iter().map(|&b| u64::from(b)).sum::<u64>();
    }
    sum
}
