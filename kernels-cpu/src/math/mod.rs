//! Elementary functions over the 16-lane vector, the same bits on every path.
//!
//! Each is a range reduction, a polynomial in fused multiply-adds (fitted at Chebyshev nodes) and a reconstruction, for
//! the whole range of f32: subnormal inputs and results, the right limits at ±∞, NaN in → NaN out. The unit is the last
//! place (ulp) of the result:
//!
//! | function | method | error measured against f64 | flops a lane |
//! |---|---|---|---|
//! | [`exp`] | `x = n·ln 2 + r`, degree 7 in `r`, two scalings by a power of two | < 1 ulp | 14 |
//! | [`ln`] | `x = 2^e·m`, `m` in `[√½, √2)`, degree 11 in `m − 1` | < 1 ulp | 16 |
//! | [`tanh`] | odd polynomial below 0.6, `1 − 2/(e^{2x} + 1)` above | < 1.5 ulp | 28 |
//! | [`sigmoid`] | `1/(1 + e^{−x})` or `e^x/(1 + e^x)`, so that the small side keeps its digits | < 2.2 ulp | 18 |
//!
//! `cargo test -p onebit-kernels-cpu math` checks the error column.

use crate::simd::{LANES, Simd};

#[cfg(any(soft_float, test))]
#[cfg_attr(feature = "std", allow(dead_code, reason = "with std the compiler's is taken"))]
pub(crate) mod soft_fma;
#[cfg(test)]
mod tests;
#[cfg(any(not(feature = "std"), target_arch = "wasm32", test))]
#[cfg_attr(
    feature = "std",
    allow(dead_code, reason = "with std the instruction is taken where there is one")
)]
pub(crate) mod wide_fma;

/// Square root, rounded correctly and so the same wherever it comes from. Single values go through here and [`sqrt_f64`]: `core` has no
/// square root, and that of `libm` is inline assembly, which the compiler cannot vectorise nor Miri interpret.
#[inline(always)]
pub fn sqrt_f32(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

/// As [`sqrt_f32`].
#[inline(always)]
pub fn sqrt_f64(x: f64) -> f64 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrt(x);
}

/// `c[0] + c[1]·x + c[2]·x² + …` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, c: [f32; N]) -> S::F {
    let mut y = s.splat(c[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = s.fma(y, x, s.splat(c[i]));
    }
    y
}

/// `e^x`: 0 below −103.98, subnormal down to there, ∞ above 88.73.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const LOG2_E: f32 = core::f32::consts::LOG2_E;
    // ln 2 in two parts; the first has 15 bits, so that n·LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    // `min` and `max` return their second operand where either is NaN, so NaN passes both.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let n = s.round(s.mul(x, s.splat(LOG2_E)));
    let r = s.fnma(n, s.splat(LN2_LOW), s.fnma(n, s.splat(LN2_HIGH), x));
    let q = polynomial(
        s,
        r,
        [
            0.5,
            0.166_666_67,
            0.041_666_463,
            0.008_333_31,
            0.001_393_373_1,
            0.000_198_910_8,
        ],
    );
    let y = s.fma(s.mul(r, r), q, r);
    let y = s.add(y, s.splat(1.0));
    // 2^n in two factors: n reaches −150 and 128, past what one factor can hold. The first product is exact.
    let half = s.round(s.mul(n, s.splat(0.5)));
    s.mul(s.mul(y, s.exp2_int(half)), s.exp2_int(s.sub(n, half)))
}

/// Natural logarithm: −∞ at ±0, NaN below.
#[inline(always)]
pub(crate) fn ln<S: Simd>(s: S, x: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let tiny = s.splat(f32::MIN_POSITIVE);
    // Subnormals are lifted by 2^24 into the normal range.
    let normal = s.select_gt(tiny, x, s.mul(x, s.splat(16_777_216.0)), x);
    let mut mantissa = [0.0; LANES];
    let mut exponent = [0.0; LANES];
    s.store(normal, &mut mantissa);
    for i in 0..LANES {
        let above = (mantissa[i].to_bits() as i32).wrapping_sub(SQRT_HALF);
        exponent[i] = (above >> 23) as f32;
        mantissa[i] = f32::from_bits(((above & 0x007f_ffff) + SQRT_HALF) as u32);
    }
    let lifted = s.select_gt(tiny, x, s.splat(24.0), s.splat(0.0));
    let e = s.sub(s.load(&exponent), lifted);
    let f = s.sub(s.load(&mantissa), s.splat(1.0));
    let p = polynomial(
        s,
        f,
        [
            0.333_333_3,
            -0.249_999_97,
            0.200_007_16,
            -0.166_678_03,
            0.142_490_58,
            -0.124_256_87,
            0.116_854_2,
            -0.114_797_34,
            0.069_716_12,
        ],
    );
    let z = s.mul(f, f);
    let y = s.mul(s.mul(f, z), p);
    let y = s.fma(e, s.splat(LN2_LOW), y);
    let y = s.fnma(s.splat(0.5), z, y);
    let y = s.fma(e, s.splat(LN2_HIGH), s.add(f, y));
    // Positive and finite: y. ∞: ∞. Zero: −∞. Negative or NaN: NaN.
    let infinity = s.splat(f32::INFINITY);
    let zero = s.splat(0.0);
    let finite = s.select_gt(infinity, x, y, x);
    let not_positive = s.select_gt(s.abs(x), zero, s.splat(f32::NAN), s.splat(f32::NEG_INFINITY));
    let nan_or_not_positive = s.select_gt(infinity, s.abs(x), not_positive, s.splat(f32::NAN));
    s.select_gt(x, zero, finite, nan_or_not_positive)
}

/// Hyperbolic tangent; keeps the sign of zero.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let z = s.mul(x, x);
    let p = polynomial(
        s,
        z,
        [-0.333_333_3, 0.133_329_15, -0.053_873_95, 0.021_110_96, -0.006_269_12],
    );
    let near = s.mul(x, s.fma(z, p, one));
    let size = s.abs(x);
    let e = exp(s, s.add(size, size));
    let far = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    let far = s.select_gt(s.splat(0.0), x, s.sub(s.splat(0.0), far), far);
    s.select_gt(size, s.splat(0.6), far, near)
}

/// Logistic function `1/(1 + e^{−x})`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    let e = exp(s, s.sub(zero, s.abs(x)));
    s.div(s.select_gt(zero, x, e, one), s.add(one, e))
}
