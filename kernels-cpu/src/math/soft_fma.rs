//! `a · b + c`, rounded once, in integers: for processors without floating point.
//!
//! `libm` takes a product and a sum of f64 for it, which are software themselves there. On an RV32IMAC a multiply-add of the int8 head, the conversion
//! of the byte and the loop included, took 470 instructions with it and takes 270 with this. The bits are those of the instruction, on every input.
//!
//! The product of two significands has 48 bits and is exact in 64. Both summands are put at the top of 64 bits, the smaller is shifted down to the
//! larger with what falls out kept as one sticky bit, and the sum is rounded to nearest, ties to even. Where bits fall out, the summands are so far
//! apart that at most one leading bit cancels, so the sticky bit is enough.

/// Bits of a significand below its leading one.
const FRACTION: u32 = 23;
/// Bits of rounding below a significand at the top of 64 bits.
const ROUND: u32 = 40;

/// Sign, biased exponent (less than 1 for subnormals) and significand with its leading one at bit 23, of a number that is finite and not 0.
#[inline(always)]
fn parts(bits: u32) -> (u32, i32, u32) {
    let (exponent, fraction) = (bits >> FRACTION & 0xff, bits & 0x007f_ffff);
    if exponent > 0 {
        return (bits >> 31, exponent as i32, fraction | 1 << FRACTION);
    }
    let shift = fraction.leading_zeros() - 8;
    (bits >> 31, 1 - shift as i32, fraction << shift)
}

/// `x` shifted down, the lowest bit set if anything fell out.
#[inline(always)]
fn shift_sticky(x: u64, by: u32) -> u64 {
    match by {
        0 => x,
        1..64 => x >> by | u64::from(x << (64 - by) != 0),
        _ => 1,
    }
}

/// See the [module](self).
#[inline(never)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    let (ab, bb, cb) = (a.to_bits(), b.to_bits(), c.to_bits());
    let special = |bits: u32| bits << 1 == 0 || bits << 1 >= 0xff << 24;
    if special(ab) || special(bb) || special(cb) {
        // Infinity or NaN as a summand of finite factors, whose product might overflow on its own.
        if cb << 1 >= 0xff << 24 && ab << 1 < 0xff << 24 && bb << 1 < 0xff << 24 {
            return c + c;
        }
        // With a 0 or something infinite among them at most one of the two operations rounds.
        return if cb << 1 == 0 && ab << 1 != 0 && bb << 1 != 0 {
            a * b
        } else {
            a * b + c
        };
    }
    let ((a_sign, a_exp, a), (b_sign, b_exp, b), (c_sign, c_exp, c)) = (parts(ab), parts(bb), parts(cb));
    let p_sign = a_sign ^ b_sign;
    // In [2^60, 2^62) and [2^61, 2^62): the sum has room. Values are these times 2^exponent.
    let (p, p_exp) = ((u64::from(a) * u64::from(b)) << 14, a_exp + b_exp - 314);
    let (c, c_exp) = (u64::from(c) << 38, c_exp - 188);
    let (p, c, exp) = match p_exp - c_exp {
        d @ 0.. => (p, shift_sticky(c, d as u32), p_exp),
        d => (shift_sticky(p, d.unsigned_abs()), c, c_exp),
    };
    let (sum, sign) = match (p_sign == c_sign, p >= c) {
        (true, _) => (p + c, p_sign),
        (false, true) => (p - c, p_sign),
        (false, false) => (c - p, c_sign),
    };
    if sum == 0 {
        return 0.0;
    }
    let zeros = sum.leading_zeros();
    let (sum, exp) = (sum << zeros, exp - zeros as i32 + 63 + 127);
    if exp >= 255 {
        return f32::from_bits(sign << 31 | 0xff << FRACTION);
    }
    // A subnormal result has fewer bits.
    let (sum, exp) = if exp < 1 {
        (shift_sticky(sum, (1 - exp) as u32), 1)
    } else {
        (sum, exp)
    };
    let (significand, rest) = ((sum >> ROUND) as u32, sum & ((1 << ROUND) - 1));
    let half = 1u64 << (ROUND - 1);
    let up = rest > half || (rest == half && significand & 1 == 1);
    // The leading one, where there is one, is the last step of the exponent; rounding up may go on into it.
    let magnitude = ((exp as u32 - 1) << FRACTION) + significand + u32::from(up);
    f32::from_bits(sign << 31 | magnitude)
}

#[cfg(test)]
mod tests {
    use super::fma;
    use crate::rng::Key;

    fn check(a: f32, b: f32, c: f32) {
        let (found, expected) = (fma(a, b, c), a.mul_add(b, c));
        assert!(
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
            "fma({a:e}, {b:e}, {c:e}) is {expected:e}, not {found:e}"
        );
    }

    #[test]
    fn every_edge_with_every_other() {
        let edges = [
            0,
            1,
            2,
            0x7f_ffff,
            0x80_0000,
            0x80_0001,
            0xff_ffff,
            0x100_0000,
            0x2000_0000,
            0x33ff_ffff,
            0x3400_0000,
            0x3f7f_ffff,
            0x3f80_0000,
            0x3f80_0001,
            0x4b7f_ffff,
            0x4b80_0001,
            0x5f80_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
        ];
        let edges = edges
            .into_iter()
            .flat_map(|bits| [bits, bits | 1 << 31])
            .map(f32::from_bits);
        for a in edges.clone() {
            for b in edges.clone() {
                edges.clone().for_each(|c| check(a, b, c));
            }
        }
    }

    #[test]
    fn random_bits_and_sums_that_cancel() {
        for i in 0..300_000 {
            let [a, b, c, d] = Key::new(3, 1, i).words();
            let (x, y, z) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
            check(x, y, z);
            // Exponents near each other, and a summand near the product, from some bits away down to the last ones.
            let near = |bits: u32| f32::from_bits(bits & 0x87ff_ffff | 0x3800_0000);
            check(near(a), near(b), near(c));
            let product = near(a) * near(b);
            check(
                near(a),
                near(b),
                f32::from_bits((-product).to_bits() ^ (d & ((1 << (d >> 27)) - 1))),
            );
            // At the borders of the subnormals.
            check(
                near(a),
                f32::from_bits(b & 0x83ff_ffff),
                f32::from_bits(c & 0x80ff_ffff),
            );
        }
    }
}
