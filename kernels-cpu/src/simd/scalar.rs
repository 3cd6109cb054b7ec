//! The portable twin: sixteen f32 in an array, each operation as its formula says.

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Scalar;
use crate::math::sqrt_f32;

/// `a * b + c`, rounded once.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    // WebAssembly has no such instruction, and what the compiler has in its place is `libm`'s.
    #[cfg(all(feature = "std", not(target_arch = "wasm32")))]
    return a.mul_add(b, c);
    #[cfg(any(not(feature = "std"), target_arch = "wasm32"))]
    return crate::math::wide_fma::fma(a, b, c);
}

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn fold(v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let v8: [f32; 8] = core::array::from_fn(|i| f(v[i], v[i + 8]));
    let v4: [f32; 4] = core::array::from_fn(|i| f(v8[i], v8[i + 4]));
    let v2: [f32; 2] = core::array::from_fn(|i| f(v4[i], v4[i + 2]));
    f(v2[0], v2[1])
}

impl Simd for Scalar {
    type F = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, a: &[f32; LANES]) -> Self::F {
        *a
    }
    #[inline(always)]
    fn store(self, v: Self::F, a: &mut [f32; LANES]) {
        *a = v;
    }
    #[inline(always)]
    fn load_f16(self, a: &[f16; LANES]) -> Self::F {
        a.map(f16::to_f32_const)
    }
    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F {
        a.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Self::F {
        a.map(f32::from)
    }
    #[inline(always)]
    fn store_i8(self, v: Self::F, a: &mut [i8; LANES]) {
        *a = v.map(|x| x as i8);
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        core::array::from_fn(|i| fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        core::array::from_fn(|i| fma(-a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(|x| f32::from_bits(x.to_bits() & 0x7fff_ffff))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(sqrt_f32)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(libm::rintf)
    }
    #[inline(always)]
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        core::array::from_fn(|i| if a[i] > b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        n.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn reduce_sum(self, v: Self::F) -> f32 {
        fold(v, |x, y| x + y)
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        fold(v, |x, y| if x > y { x } else { y })
    }
}
