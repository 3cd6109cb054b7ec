//! Dropout (Srivastava et al., 2014), its mask a pure function of a random-number key.
//!
//! ```text
//! out[i] = x[i] / (1 − p)  if uniform(offset + i) ≥ p,  else 0
//! ```
//! Nothing is stored for the backward: the same call on `dy`, with the same key and offset, is the backward, and a slice
//! cut anywhere gives the same values when each part gets its own offset. Cost: one Philox block for four values, sixteen
//! blocks at a time in vector registers.

use crate::rng::{BATCH, Key};
use crate::simd::{Simd, simd_kernel};

#[cfg(test)]
mod tests;

simd_kernel! {
    /// `out[i] = x[i] / (1 − p)` where number `offset + i` of `key` is at least `p`, else 0.
    ///
    /// # Panics
    /// If the lengths differ or `p` is not in `[0, 1)`.
    pub fn dropout(x: &[f32], p: f32, key: Key, offset: u64, out: &mut [f32]) = dropout_body;
}

#[inline(always)]
fn dropout_body<S: Simd>(_: S, x: &[f32], p: f32, key: Key, offset: u64, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "length of `out`");
    assert!((0.0..1.0).contains(&p), "dropout probability {p} is not in [0, 1)");
    let scale = 1.0 / (1.0 - p);
    // A uniform number is (word >> 8)·2⁻²⁴, so `uniform ≥ p` is a comparison of integers.
    let exact = p * 16_777_216.0;
    let threshold = exact as u32 + u32::from(exact as u32 as f32 != exact);
    // Values before the first whole block of four words, then whole batches, then what is left.
    let head = (offset.wrapping_neg() % 4).min(x.len() as u64) as usize;
    let (x_head, x) = x.split_at(head);
    let (out_head, out) = out.split_at_mut(head);
    for i in 0..head {
        let kept = key.u32(offset + i as u64) >> 8 >= threshold;
        out_head[i] = if kept { x_head[i] * scale } else { 0.0 };
    }
    let first_block = (offset + head as u64) / 4;
    for (k, (x, out)) in x.chunks(BATCH).zip(out.chunks_mut(BATCH)).enumerate() {
        let words = key.batch(first_block + (k * BATCH / 4) as u64);
        if let (Ok(x), Ok(out)) = (<&[f32; BATCH]>::try_from(x), <&mut [f32; BATCH]>::try_from(&mut *out)) {
            for i in 0..BATCH {
                out[i] = if words[i] >> 8 >= threshold { x[i] * scale } else { 0.0 };
            }
        } else {
            for i in 0..x.len() {
                out[i] = if words[i] >> 8 >= threshold { x[i] * scale } else { 0.0 };
            }
        }
    }
}

/// [`dropout`] of `x` in place.
#[inline(always)]
pub(crate) fn drop_in_place<S: Simd>(s: S, x: &mut [f32], p: f32, key: Key, offset: u64) {
    // By way of a copy of each batch, which is nothing beside its random numbers.
    let mut copy = [0.0; BATCH];
    for (i, out) in x.chunks_mut(BATCH).enumerate() {
        let copy = &mut copy[..out.len()];
        copy.copy_from_slice(out);
        dropout_body(s, copy, p, key, offset + (i * BATCH) as u64, out);
    }
}
