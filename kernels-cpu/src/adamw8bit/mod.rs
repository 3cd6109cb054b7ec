//! AdamW with both moments in 8 bits, after the block-wise quantisation of Dettmers et al. (2022): the operations of the GPU's kernel in its order, so that
//! equal gradients give equal bits on either.
//!
//! Of each [`BLOCK`] elements the largest |m| and the largest v are kept in f32, and of each element a code of a power law:
//!
//! ```text
//! m = scale·sign(q)·(q/127)²      q in −127..=127     16129 : 1 between the largest and the smallest that is not 0
//! v = scale·((q + 1)/256)⁴        q in 0..=255        √v spans 65536 : 1, and is never 0 beside a gradient
//! ```
//! The update itself is that of [`crate::adamw`] on the moments as they are opened, in f32. Then they are closed again: of the two neighbouring codes one is drawn so that
//! the expected value is the moment. With β₂ = 0.999 a step changes v by less than the distance of two codes, and rounding to the nearest would never let it
//! decay. The draw is a hash of element and step: equal inputs give equal bytes.
//!
//! 2 bytes and 8/256 for the moments of a parameter, instead of 8.

use crate::adamw::{AdamWStep, Factors};
use crate::simd::{LANES, Simd, simd_kernel};

#[cfg(test)]
mod tests;

/// Elements that share a scale.
pub const BLOCK: usize = 256;

/// The moments of `n` elements; all zeros before the first step.
#[derive(Debug)]
pub struct EightBit<'a> {
    /// Codes of the mean of gradients `[n]`.
    pub first: &'a mut [i8],
    /// Codes of the mean of squared gradients `[n]`.
    pub second: &'a mut [u8],
    /// Scales of `first`, one for each [`BLOCK`] elements, the last of which may be fewer.
    pub first_scale: &'a mut [f32],
    /// Scales of `second`.
    pub second_scale: &'a mut [f32],
}

/// Which numbers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The step, counted from 0.
    pub step: u32,
    /// The number of the first element.
    pub element: u32,
}

simd_kernel! {
    /// One AdamW step on parameters `p` `[n]` with gradients `g` `[n]` and moments in 8 bits.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn adamw8bit<'a>(step: &AdamWStep, draw: Draw, p: &mut [f32], g: &[f32], moments: EightBit<'a>) = blocks;
}

#[inline(always)]
fn blocks<S: Simd>(s: S, step: &AdamWStep, draw: Draw, p: &mut [f32], g: &[f32], moments: EightBit<'_>) {
    let f = &Factors::of(step);
    let EightBit {
        first,
        second,
        first_scale,
        second_scale,
    } = moments;
    let len = p.len();
    for (name, found) in [("g", g.len()), ("first", first.len()), ("second", second.len())] {
        assert_eq!(found, len, "length of `{name}`");
    }
    for (name, found) in [("first_scale", first_scale.len()), ("second_scale", second_scale.len())] {
        assert_eq!(found, len.div_ceil(BLOCK), "length of `{name}`");
    }
    for (index, scales) in first_scale.iter_mut().zip(second_scale).enumerate() {
        let span = index * BLOCK..len.min((index + 1) * BLOCK);
        let mut block = Block {
            p: filled(&p[span.clone()]),
            g: filled(&g[span.clone()]),
            first: filled(&first[span.clone()]),
            second: filled(&second[span.clone()]),
        };
        let element = draw.element.wrapping_add((index * BLOCK) as u32);
        (*scales.0, *scales.1) = block.step(s, f, Draw { element, ..draw }, (*scales.0, *scales.1));
        let len = span.len();
        p[span.clone()].copy_from_slice(&block.p[..len]);
        first[span.clone()].copy_from_slice(&block.first[..len]);
        second[span].copy_from_slice(&block.second[..len]);
    }
}

/// `part` with zeros behind it.
#[inline(always)]
fn filled<T: Copy + Default>(part: &[T]) -> [T; BLOCK] {
    let mut whole = [T::default(); BLOCK];
    whole[..part.len()].copy_from_slice(part);
    whole
}

/// A whole block.
struct Block {
    p: [f32; BLOCK],
    g: [f32; BLOCK],
    first: [i8; BLOCK],
    second: [u8; BLOCK],
}

/// Below this the inverse of a scale would not be finite.
const LEAST_SCALE: f32 = 1e-37;

impl Block {
    /// A step of the block; returns the scales of its moments.
    #[inline(always)]
    fn step<S: Simd>(&mut self, s: S, f: &Factors, draw: Draw, (first_scale, second_scale): (f32, f32)) -> (f32, f32) {
        let (mut mean, mut square) = ([0.0; BLOCK], [0.0; BLOCK]);
        let (mut most_mean, mut most_square) = (s.splat(0.0), s.splat(0.0));
        for i in 0..BLOCK / LANES {
            let g = s.mul(s.load(lanes(&self.g, i)), s.splat(f.grad_scale));
            let m = open_mean(s, s.load_i8(lanes(&self.first, i)), first_scale);
            let v = open_square(s, load_u8(s, lanes(&self.second, i)), second_scale);
            let m = s.fma(s.splat(f.beta1), m, s.mul(s.splat(f.rest1), g));
            let v = s.fma(s.splat(f.beta2), v, s.mul(s.splat(f.rest2), s.mul(g, g)));
            let denominator = s.fma(s.sqrt(v), s.splat(f.root_scale), s.splat(f.eps));
            let kept = s.mul(s.load(lanes(&self.p, i)), s.splat(f.keep));
            let p = s.fnma(s.splat(f.step_size), s.div(m, denominator), kept);
            s.store(p, lanes_mut(&mut self.p, i));
            s.store(m, lanes_mut(&mut mean, i));
            s.store(v, lanes_mut(&mut square, i));
            most_mean = s.max(most_mean, s.abs(m));
            most_square = s.max(most_square, v);
        }
        let scale = |most| {
            let most = s.reduce_max(most);
            if most > LEAST_SCALE {
                (most, 1.0 / most)
            } else {
                (0.0, 0.0)
            }
        };
        let (mean_scale, mean_inverse) = scale(most_mean);
        let (square_scale, square_inverse) = scale(most_square);
        for i in 0..BLOCK / LANES {
            let (low, high) = uniforms(draw, i * LANES);
            let m = close_mean(s, s.load(lanes(&mean, i)), mean_inverse, s.load(&low));
            s.store_i8(m, lanes_mut(&mut self.first, i));
            let v = close_square(s, s.load(lanes(&square, i)), square_inverse, s.load(&high));
            store_u8(s, v, lanes_mut(&mut self.second, i));
        }
        (mean_scale, square_scale)
    }
}

#[inline(always)]
fn lanes<T>(of: &[T; BLOCK], i: usize) -> &[T; LANES] {
    &of.as_chunks::<LANES>().0[i]
}

#[inline(always)]
fn lanes_mut<T>(of: &mut [T; BLOCK], i: usize) -> &mut [T; LANES] {
    &mut of.as_chunks_mut::<LANES>().0[i]
}

#[inline(always)]
fn load_u8<S: Simd>(s: S, from: &[u8; LANES]) -> S::F {
    let signed = s.load_i8(&from.map(|byte| byte as i8));
    s.select_gt(s.splat(0.0), signed, s.add(signed, s.splat(256.0)), signed)
}

#[inline(always)]
fn store_u8<S: Simd>(s: S, v: S::F, to: &mut [u8; LANES]) {
    let signed = s.select_gt(v, s.splat(127.0), s.sub(v, s.splat(256.0)), v);
    let mut bytes = [0; LANES];
    s.store_i8(signed, &mut bytes);
    *to = bytes.map(|byte| byte as u8);
}

/// 32 random bits for an element at a step (the finaliser "lowbias32" of C. Wellons).
#[inline(always)]
fn hash(element: u32, step: u32) -> u32 {
    let mut x = element.wrapping_mul(0x9e37_79b9) ^ step.wrapping_add(1).wrapping_mul(0x85eb_ca6b);
    x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// Two numbers in (0, 1) for each of the elements from `first` on.
#[inline(always)]
fn uniforms(draw: Draw, first: usize) -> ([f32; LANES], [f32; LANES]) {
    let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        let random = hash(draw.element.wrapping_add((first + i) as u32), draw.step);
        low[i] = ((random & 0xffff) as f32 + 0.5) * (1.0 / 65536.0);
        high[i] = ((random >> 16) as f32 + 0.5) * (1.0 / 65536.0);
    }
    (low, high)
}

/// q ↦ sign(q)·(q/127)²
#[inline(always)]
fn open_mean<S: Simd>(s: S, code: S::F, scale: f32) -> S::F {
    let q = s.mul(code, s.splat(1.0 / 127.0));
    s.mul(s.mul(q, s.abs(q)), s.splat(scale))
}

/// q ↦ ((q + 1)/256)⁴
#[inline(always)]
fn open_square<S: Simd>(s: S, code: S::F, scale: f32) -> S::F {
    let k = s.mul(s.add(code, s.splat(1.0)), s.splat(1.0 / 256.0));
    let square = s.mul(k, k);
    s.mul(s.mul(square, square), s.splat(scale))
}

/// The largest whole number that is not above `x`, which is not negative.
#[inline(always)]
fn floor<S: Simd>(s: S, x: S::F) -> S::F {
    let nearest = s.round(x);
    s.select_gt(nearest, x, s.sub(nearest, s.splat(1.0)), nearest)
}

/// `inverse` is 1 / scale, and 0 where the scale is 0.
#[inline(always)]
fn close_mean<S: Simd>(s: S, m: S::F, inverse: f32, uniform: S::F) -> S::F {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let y = s.mul(s.min(s.mul(s.abs(m), s.splat(inverse)), one), s.splat(16129.0));
    let q = floor(s, s.sqrt(y));
    // From q² to (q + 1)² there are 2q + 1, and the upper is drawn for the share of it that y has behind it.
    let distance = s.fma(s.splat(2.0), q, one);
    let up = s.select_gt(s.fnma(q, q, y), s.mul(uniform, distance), one, zero);
    let code = s.min(s.add(q, up), s.splat(127.0));
    s.select_gt(zero, m, s.sub(zero, code), code)
}

#[inline(always)]
fn close_square<S: Simd>(s: S, v: S::F, inverse: f32, uniform: S::F) -> S::F {
    let (zero, one, inverse) = (s.splat(0.0), s.splat(1.0), s.splat(inverse));
    let w = s.min(s.mul(v, inverse), one);
    let fourth = s.sqrt(s.mul(s.sqrt(v), s.sqrt(inverse)));
    let k = s.min(s.max(floor(s, s.mul(s.splat(256.0), fourth)), one), s.splat(256.0));
    let square = s.mul(k, k);
    // From k⁴ to (k + 1)⁴ there are 4k³ + 6k² + 4k + 1; 2³² is the largest.
    let distance = s.fma(s.splat(4.0), k, one);
    let distance = s.fma(s.splat(6.0), square, distance);
    let distance = s.fma(s.mul(s.splat(4.0), k), square, distance);
    let rest = s.fnma(square, square, s.mul(w, s.splat(4_294_967_296.0)));
    let up = s.select_gt(rest, s.mul(uniform, distance), one, zero);
    s.min(s.add(s.sub(k, one), up), s.splat(255.0))
}
