//! A pseudo-random rotation in `O(n log n)`: what it makes of any fixed vector looks like Gaussian noise of the same length.
//!
//! [`ROUNDS`] times: change signs at random, mix blocks of `B` vectors of sixteen lanes by a Hadamard matrix, and transpose `[n/16, 16]` so
//! that the next round mixes across the lanes of this one:
//!
//! ```text
//! x ← Tᵀ · (H_B ⊗ I₁₆ / √B) · diag(±1) · x          B = the largest power of two, at most 32, that divides n/16
//! ```
//!
//! Each factor is orthogonal, so lengths and inner products stay. The construction is the fast Johnson–Lindenstrauss transform's
//! (Ailon and Chazelle, 2009), repeated, so that the result is close to a rotation drawn uniformly.
//!
//! Cost: `n · (log₂ B + 2)` operations a round, in the first cache level.

#[cfg(test)]
mod tests;

use crate::math::sqrt_f32;
use crate::rng::Key;
use crate::simd::{LANES, Simd, simd_kernel};

/// Rounds of a rotation.
pub const ROUNDS: usize = 4;
/// Most vectors that a block mixes.
const MIXED: usize = 32;

/// Whether vectors of `n` values can be rotated: blocks must mix at least eight vectors of sixteen lanes, or too little is mixed.
pub const fn can_rotate(n: usize) -> bool {
    n > 0 && n.is_multiple_of(8 * LANES)
}

/// Fills `signs` (`[ROUNDS · n]`) with the ±1 of a rotation, divided by `√B`.
///
/// # Panics
/// If `signs.len()` is not `ROUNDS · n` for an `n` that [can be rotated](can_rotate).
pub fn fill_signs(key: &Key, signs: &mut [f32]) {
    let n = signs.len() / ROUNDS;
    assert!(signs.len() == ROUNDS * n && can_rotate(n), "signs is [ROUNDS, n]");
    let size = 1.0 / sqrt_f32(block(n) as f32);
    for (i, sign) in signs.iter_mut().enumerate() {
        let bit = key.u32(i as u64 / 32) >> (i % 32) & 1;
        *sign = if bit == 0 { size } else { -size };
    }
}

/// Vectors that a block mixes.
const fn block(n: usize) -> usize {
    let vectors = n / LANES;
    let power = 1 << vectors.trailing_zeros();
    if power < MIXED { power } else { MIXED }
}

simd_kernel! {
    /// Rotates `x`, `[n]`, in place; `signs` is `[ROUNDS · n]` from [`fill_signs`], `spare` is `[n]`.
    ///
    /// # Panics
    /// If `x` cannot be rotated, or a length is another.
    pub fn rotate(x: &mut [f32], signs: &[f32], spare: &mut [f32]) = body;
}

#[inline(always)]
fn body<S: Simd>(s: S, x: &mut [f32], signs: &[f32], spare: &mut [f32]) {
    let n = x.len();
    assert!(can_rotate(n), "x can be rotated");
    assert_eq!(signs.len(), ROUNDS * n, "signs is [ROUNDS, n]");
    assert_eq!(spare.len(), n, "spare is [n]");
    let (block, vectors) = (block(n), n / LANES);
    for signs in signs.chunks_exact(n) {
        let (x16, signs16) = (x.as_chunks_mut::<LANES>().0, signs.as_chunks::<LANES>().0);
        for (x, sign) in x16.iter_mut().zip(signs16) {
            s.store(s.mul(s.load(x), s.load(sign)), x);
        }
        for block in x16.chunks_exact_mut(block) {
            let mut half = 1;
            while half < block.len() {
                for pair in block.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        let (va, vb) = (s.load(a), s.load(b));
                        s.store(s.add(va, vb), a);
                        s.store(s.sub(va, vb), b);
                    }
                }
                half *= 2;
            }
        }
        for (lane, out) in spare.chunks_exact_mut(vectors).enumerate() {
            for (out, x) in out.iter_mut().zip(&*x16) {
                *out = x[lane];
            }
        }
        x.copy_from_slice(spare);
    }
}
