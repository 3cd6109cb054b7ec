//! Rotary position embedding (Su et al., "RoFormer", 2021) in the half-split arrangement of the LLaMA family.
//!
//! ```text
//! head = [a | b], two halves of h = head_dim/2 values
//! a'[i] = a[i]·cos − b[i]·sin        angle = position · theta^(−i/h)
//! b'[i] = b[i]·cos + a[i]·sin
//! ```
//! A rotation keeps lengths, so its inverse (the angle negated) is its backward. The table is made in f64 with portable
//! functions: the same bits on every machine. Cost: each value is read and written once; a token's row of the table
//! serves all of its heads.

use crate::simd::{LANES, Simd, simd_kernel};

#[cfg(test)]
mod tests;

/// Fills `cos` and `sin`, `[positions, head_dim/2]`, for `first_position` and the positions after it.
///
/// # Panics
/// If `head_dim` is odd or 0, or `cos` and `sin` differ in length or are not whole rows.
pub fn rope_table(theta: f64, head_dim: usize, first_position: usize, cos: &mut [f32], sin: &mut [f32]) {
    let half = half_of(head_dim);
    assert_eq!(cos.len(), sin.len(), "length of `sin`");
    assert!(cos.len().is_multiple_of(half), "`cos` is not whole rows of {half}");
    for i in 0..half {
        let frequency = libm::pow(theta, -(i as f64) / half as f64);
        for row in 0..cos.len() / half {
            let (s, c) = libm::sincos((first_position + row) as f64 * frequency);
            cos[row * half + i] = c as f32;
            sin[row * half + i] = s as f32;
        }
    }
}

simd_kernel! {
    /// Rotates `x`, `[tokens, heads * head_dim]`, in place by the table `cos`, `sin`, `[tokens, head_dim/2]`;
    /// with `inverse` rotates back, which is the backward.
    ///
    /// # Panics
    /// If `head_dim` is odd or 0, or the lengths do not agree.
    pub fn rope(
        x: &mut [f32], heads: usize, head_dim: usize, cos: &[f32], sin: &[f32], inverse: bool,
    ) = rotate;
}

fn half_of(head_dim: usize) -> usize {
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(2),
        "head_dim {head_dim} is not even"
    );
    head_dim / 2
}

#[inline(always)]
fn rotate<S: Simd>(s: S, x: &mut [f32], heads: usize, head_dim: usize, cos: &[f32], sin: &[f32], inverse: bool) {
    let half = half_of(head_dim);
    assert_eq!(cos.len(), sin.len(), "length of `sin`");
    assert!(cos.len().is_multiple_of(half), "`cos` is not whole rows of {half}");
    assert_eq!(x.len(), cos.len() / half * heads * head_dim, "length of `x`");
    if x.is_empty() {
        return;
    }
    let sign = s.splat(if inverse { -1.0 } else { 1.0 });
    let rows = cos.chunks_exact(half).zip(sin.chunks_exact(half));
    for (x, (cos, sin)) in x.chunks_exact_mut(heads * head_dim).zip(rows) {
        let (cos, cos_rest) = cos.as_chunks::<LANES>();
        let (sin, sin_rest) = sin.as_chunks::<LANES>();
        for head in x.chunks_exact_mut(head_dim) {
            let (a, b) = head.split_at_mut(half);
            let (a, a_rest) = a.as_chunks_mut::<LANES>();
            let (b, b_rest) = b.as_chunks_mut::<LANES>();
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                let [ra, rb] = turn(s, s.load(a), s.load(b), s.load(cos), s.mul(sign, s.load(sin)));
                s.store(ra, a);
                s.store(rb, b);
            }
            let (c, n) = (s.load_or(cos_rest, 0.0), s.mul(sign, s.load_or(sin_rest, 0.0)));
            let [ra, rb] = turn(s, s.load_or(a_rest, 0.0), s.load_or(b_rest, 0.0), c, n);
            s.store_part(ra, a_rest);
            s.store_part(rb, b_rest);
        }
    }
}

/// `[a·cos − b·sin, b·cos + a·sin]`.
#[inline(always)]
fn turn<S: Simd>(s: S, a: S::F, b: S::F, cos: S::F, sin: S::F) -> [S::F; 2] {
    [s.fnma(b, sin, s.mul(a, cos)), s.fma(a, sin, s.mul(b, cos))]
}
