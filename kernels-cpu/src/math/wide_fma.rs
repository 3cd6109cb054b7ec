//! `a · b + c`, rounded once, in the arithmetic of f64: for processors and compilers without the instruction.
//!
//! The product is exact in f64, so the sum is rounded to 53 bits and then to 24. The second rounding goes wrong only where the first ended on the middle between two
//! f32, or where the f32 is subnormal and has fewer bits. There the first is made a rounding to odd, after which the second is always right (Boldo and Melquiond,
//! "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008). `libm`'s `fmaf` looks for the middles of normal numbers alone: a
//! subnormal sum beside a middle is a last place off.

/// The bits of an f64 below those of an f32, and where they are half of its last place.
const BELOW: u64 = 0x1fff_ffff;
const HALF: u64 = 0x1000_0000;

/// See the [module](self).
#[inline]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let twice = sum as f32;
    let small = twice.abs() <= f32::MIN_POSITIVE;
    if sum.to_bits() & BELOW != HALF && !small {
        return twice;
    }
    // Knuth's two-sum: the error of the sum, exactly.
    let c_part = sum - product;
    let error = (product - (sum - c_part)) + (c - c_part);
    let inexact = u64::from(error != 0.0 && sum.is_finite());
    // Where the sum was rounded away from 0, the number before it; then what is left over makes the last bit 1.
    let away = (sum.to_bits() ^ error.to_bits()) >> 63 & inexact;
    f64::from_bits((sum.to_bits() - away) | inexact) as f32
}
