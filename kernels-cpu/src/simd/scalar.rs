//! The portable twin: sixteen f32 in an array, each operation as its formula says.

use half::{bf16, f16};

use super::{Element, LANES, Simd};
use crate::isa::Scalar;
use crate::math::sqrt_f32;

/// `a * b + c`, rounded once.
#[cfg(all(feature = "std", not(target_arch = "wasm32")))]
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// As above by the instruction: `core` has no `mul_add` on stable, and what `libm` has for ARM is software.
///
/// The numbers go by way of core registers, for on stable the compiler does not know that the target has others.
#[cfg(all(not(feature = "std"), arm_vfma))]
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    let mut bits = c.to_bits();
    // SAFETY: the target has single-precision floating point with fused multiply-add; registers alone are touched.
    unsafe {
        core::arch::asm!(
            "vmov s0, s1, {a}, {b}",
            "vmov s2, {c}",
            "vfma.f32 s2, s0, s1",
            "vmov {c}, s2",
            a = in(reg) a.to_bits(), b = in(reg) b.to_bits(), c = inout(reg) bits,
            out("s0") _, out("s1") _, out("s2") _, options(pure, nomem, nostack),
        );
    }
    f32::from_bits(bits)
}

#[cfg(all(not(feature = "std"), soft_float, not(arm_vfma)))]
pub(crate) use crate::math::soft_fma::fma;

/// As above in the arithmetic of f64, which the target has. Called and not inlined: it is long, and kernels have many. WebAssembly has no such instruction, and
/// what the compiler has in its place is `libm`'s.
#[cfg(any(target_arch = "wasm32", not(any(feature = "std", arm_vfma, soft_float))))]
#[inline(never)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    crate::math::wide_fma::fma(a, b, c)
}

/// `x` as f32.
#[cfg(not(arm_vfma))]
#[inline(always)]
fn widen(x: f16) -> f32 {
    x.to_f32_const()
}

/// As above by the instruction; what `half` has for ARM is software.
#[cfg(arm_vfma)]
#[inline(always)]
fn widen(x: f16) -> f32 {
    let mut bits = u32::from(x.to_bits());
    // SAFETY: the target has single-precision floating point with this conversion; registers alone are touched.
    unsafe {
        core::arch::asm!(
            "vmov s0, {x}", "vcvtb.f32.f16 s0, s0", "vmov {x}, s0",
            x = inout(reg) bits, out("s0") _, options(pure, nomem, nostack),
        );
    }
    f32::from_bits(bits)
}

#[inline(always)]
fn zip(mut a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    // No `from_fn` and no `map`: where size counts they are left to be called.
    for i in 0..LANES {
        a[i] = f(a[i], b[i]);
    }
    a
}

#[inline(always)]
fn each(mut a: [f32; LANES], f: impl Fn(f32) -> f32) -> [f32; LANES] {
    for x in &mut a {
        *x = f(*x);
    }
    a
}

#[inline(always)]
fn widened<T: Copy>(a: &[T; LANES], f: impl Fn(T) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (out, x) in out.iter_mut().zip(a) {
        *out = f(*x);
    }
    out
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
    /// As many as the 32 registers of a processor without vectors hold.
    const REGISTERS: usize = 2;

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
        widened(a, widen)
    }
    #[inline(always)]
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F {
        widened(a, |x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, a: &[i8; LANES]) -> Self::F {
        widened(a, f32::from)
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
        let mut out = c;
        for i in 0..LANES {
            out[i] = fma(a[i], b[i], c[i]);
        }
        out
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        let mut out = c;
        for i in 0..LANES {
            out[i] = fma(-a[i], b[i], c[i]);
        }
        out
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
        each(a, |x| f32::from_bits(x.to_bits() & 0x7fff_ffff))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each(a, sqrt_f32)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        each(a, libm::rintf)
    }
    #[inline(always)]
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        let mut out = no;
        for i in 0..LANES {
            if a[i] > b[i] {
                out[i] = yes[i];
            }
        }
        out
    }
    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        each(n, |x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn chain<W: Element>(self, w: &[[W; LANES]], x: &[[f32; LANES]], acc: Self::F) -> Self::F {
        W::chain(w, x, acc)
    }
    #[inline(always)]
    fn chain_scaled<W: Element>(self, a: &[f32], b: &[[W; LANES]], row: usize, acc: Self::F) -> Self::F {
        W::chain_scaled(a, b, row, acc)
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
