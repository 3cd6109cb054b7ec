//! The 16-lane f32 vector that every float kernel is written over.
//!
//! [`Simd`] is implemented by the capability tokens themselves, so its methods are safe: holding the token proves that the
//! CPU has the instructions. A kernel is one `#[inline(always)]` generic function over `S: Simd`; [`simd_kernel!`] makes
//! the public function that enters it once per instruction set under the right `#[target_feature]`.
//!
//! All implementations return the same bits: each operation is the correctly rounded IEEE one, `fma` is fused, and
//! [`Simd::reduce_sum`] folds lanes in one fixed order (16→8→4→2→1, lane `i` with lane `i + half`).

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(arm_vfma)]
mod cortex_m;
mod element;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_feature = "simd128")]
mod wasm;

pub(crate) use element::Element;

/// Lanes of the vector, on every instruction set.
pub const LANES: usize = 16;

/// Operations on 16 lanes of f32. See the [module](self) for why they are safe.
pub trait Simd: Copy {
    /// Sixteen f32.
    type F: Copy;

    /// How many of them the register file holds.
    const REGISTERS: usize = 8;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Sixteen values from memory.
    fn load(self, a: &[f32; LANES]) -> Self::F;
    /// Sixteen values to memory.
    fn store(self, v: Self::F, a: &mut [f32; LANES]);
    /// Sixteen half-precision values from memory, widened exactly.
    fn load_f16(self, a: &[f16; LANES]) -> Self::F;
    /// Sixteen bfloat16 values from memory, widened exactly.
    fn load_bf16(self, a: &[bf16; LANES]) -> Self::F;
    /// Sixteen bytes from memory, converted exactly.
    fn load_i8(self, a: &[i8; LANES]) -> Self::F;
    /// Sixteen whole numbers from memory, rounded to the nearest f32, ties to even.
    #[inline(always)]
    fn load_i32(self, a: &[i32; LANES]) -> Self::F {
        let mut full = [0.0; LANES];
        for (d, s) in full.iter_mut().zip(a) {
            *d = *s as f32;
        }
        self.load(&full)
    }
    /// To memory as bytes, for lanes that hold whole numbers in −128..=127 (other lanes store unspecified bytes).
    fn store_i8(self, v: Self::F, a: &mut [i8; LANES]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }` per lane (so `b` where either is NaN).
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }` per lane (so `b` where either is NaN).
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `|a|`.
    fn abs(self, a: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `if a > b { yes } else { no }` per lane (so `no` where either is NaN).
    fn select_gt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// `2^n` for lanes that hold whole numbers in −126..=127.
    fn exp2_int(self, n: Self::F) -> Self::F;
    /// Sum of the lanes, folded 8-4-2-1.
    fn reduce_sum(self, v: Self::F) -> f32;
    /// [`reduce_sum`](Self::reduce_sum) of each of four, together where that takes fewer operations.
    #[inline(always)]
    fn reduce_sums(self, v: [Self::F; 4]) -> [f32; 4] {
        let [a, b, c, d] = v;
        [
            self.reduce_sum(a),
            self.reduce_sum(b),
            self.reduce_sum(c),
            self.reduce_sum(d),
        ]
    }
    /// [`reduce_sum`](Self::reduce_sum) of each of a tile of rows by tokens.
    #[inline(always)]
    fn reduce_tile<const R: usize, const T: usize>(self, acc: [[Self::F; T]; R]) -> [[f32; T]; R] {
        let mut out = [[0.0; T]; R];
        for r in 0..R {
            if T == 1 {
                out[r][0] = self.reduce_sum(acc[r][0]);
                continue;
            }
            for quad in 0..T.div_ceil(4) {
                // Past the last token, its sum again.
                let of = |i: usize| acc[r][(4 * quad + i).min(T - 1)];
                let sums = self.reduce_sums([of(0), of(1), of(2), of(3)]);
                for i in 0..4 {
                    if 4 * quad + i < T {
                        out[r][4 * quad + i] = sums[i];
                    }
                }
            }
        }
        out
    }
    /// Largest lane, folded 8-4-2-1 with [`Simd::max`].
    fn reduce_max(self, v: Self::F) -> f32;

    /// `acc + Σ_c w[c]·x[c]`, each lane a chain of fused multiply-adds in the order of `c`; as many as the shorter has.
    #[inline(always)]
    fn chain<W: Element>(self, w: &[[W; LANES]], x: &[[f32; LANES]], acc: Self::F) -> Self::F {
        chain(self, w, x, acc)
    }

    /// `acc + Σ_k a[k]·b[k·row]`, each lane a chain of fused multiply-adds in the order of `k`.
    #[inline(always)]
    fn chain_scaled<W: Element>(self, a: &[f32], b: &[[W; LANES]], row: usize, acc: Self::F) -> Self::F {
        chain_scaled(self, a, b, row, acc)
    }

    /// Asks for the cache line at `at` to be brought near (second-level cache); it need not be readable
    /// memory: a hint without effect on results.
    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        let _ = at;
    }

    /// Up to sixteen values from memory, missing lanes `fill`.
    #[inline(always)]
    fn load_or(self, a: &[f32], fill: f32) -> Self::F {
        let mut full = [fill; LANES];
        for (d, s) in full.iter_mut().zip(a) {
            *d = *s;
        }
        self.load(&full)
    }

    /// The first `a.len()` (at most sixteen) lanes to memory.
    #[inline(always)]
    fn store_part(self, v: Self::F, a: &mut [f32]) {
        let mut full = [0.0; LANES];
        self.store(v, &mut full);
        for (d, s) in a.iter_mut().zip(&full) {
            *d = *s;
        }
    }
}

/// [`Simd::chain`] by its other operations.
#[inline(always)]
fn chain<S: Simd, W: Element>(s: S, w: &[[W; LANES]], x: &[[f32; LANES]], mut acc: S::F) -> S::F {
    for (w, x) in w.iter().zip(x) {
        acc = s.fma(W::load(s, w), s.load(x), acc);
    }
    acc
}

/// [`Simd::chain_scaled`] by its other operations.
#[inline(always)]
fn chain_scaled<S: Simd, W: Element>(s: S, a: &[f32], b: &[[W; LANES]], row: usize, mut acc: S::F) -> S::F {
    for (k, a) in a.iter().enumerate() {
        acc = s.fma(s.splat(*a), W::load(s, &b[k * row]), acc);
    }
    acc
}

/// Makes the public entry of a kernel: `pub fn name(isa, args…) -> R` calls `body(token, args…)` under the
/// `#[target_feature]` of the token. `body` must be `#[inline(always)] fn body<S: Simd>(s: S, args…) -> R`.
macro_rules! simd_kernel {
    ($(#[$meta:meta])* pub fn $name:ident $(<$($life:lifetime),*>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$meta])*
        pub fn $name $(<$($life),*>)? (isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            match isa.floats() {
                $crate::isa::FloatIsa::Scalar(s) => $body(s, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                $crate::isa::FloatIsa::Avx2(s) => $crate::simd::enter!(
                    "avx2,fma,f16c", $crate::isa::Avx2, s, ($($($life),*)?), ($($arg: $ty),*), ($($ret)?), $body
                ),
                #[cfg(target_arch = "x86_64")]
                $crate::isa::FloatIsa::Avx512(s) => $crate::simd::enter!(
                    "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
                    $crate::isa::Avx512, s, ($($($life),*)?), ($($arg: $ty),*), ($($ret)?), $body
                ),
                #[cfg(target_arch = "aarch64")]
                $crate::isa::FloatIsa::Neon(s) => $crate::simd::enter!(
                    "neon", $crate::isa::Neon, s, ($($($life),*)?), ($($arg: $ty),*), ($($ret)?), $body
                ),
                // The whole module has the instructions.
                #[cfg(target_feature = "simd128")]
                $crate::isa::FloatIsa::Simd128(s) => $body(s, $($arg),*),
            }
        }
    };
}
pub(crate) use simd_kernel;

/// Calls `body(token, args…)` under `features`, which the type of `token` must prove.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! enter {
    ($features:literal, $type:path, $token:ident, ($($life:lifetime),*), ($($arg:ident : $ty:ty),*), ($($ret:ty)?), $body:path) => {{
        #[target_feature(enable = $features)]
        fn enter<$($life),*>(token: $type, $($arg: $ty),*) $(-> $ret)? {
            $body(token, $($arg),*)
        }
        // SAFETY: a token of this type proves that the CPU has these features.
        unsafe { enter($token, $($arg),*) }
    }};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use enter;
