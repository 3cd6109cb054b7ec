//! Pointwise arithmetic and whole-slice sums.
//!
//! Pointwise operations read each input and write each output once: at any size beyond the caches they run at the speed
//! of memory. The sums run in sixteen f32 lanes within blocks of [`BLOCK`] values, each block is folded 8-4-2-1, and the
//! blocks are added in f64 in order: the error stays that of a short f32 sum, whatever the length.

use crate::simd::{LANES, Simd, simd_kernel};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// Values summed in f32 before the sum goes on in f64.
pub const BLOCK: usize = 4096;

/// Makes a pointwise kernel: `pub fn name/body (s; parameters; inputs; outputs) { [value of each output] }`.
///
/// Within the block each input and each output (with the value it had) is the name of a vector of sixteen values.
/// Missing lanes of the last, partial vector read as 0 and are not written.
macro_rules! pointwise {
    ($(#[$meta:meta])* pub fn $name:ident / $body:ident
     ($s:ident; $($p:ident: $pt:ty),*; $($x:ident),*; $($y:ident),+) $value:block) => {
        #[inline(always)]
        #[allow(unused_variables, unused_assignments)]
        fn $body<S: $crate::simd::Simd>($s: S, $($p: $pt,)* $($x: &[f32],)* $($y: &mut [f32]),+) {
            const LANES: usize = $crate::simd::LANES;
            let len = [$($y.len()),+][0];
            $(assert_eq!($x.len(), len, "length of `{}`", stringify!($x));)*
            $(assert_eq!($y.len(), len, "length of `{}`", stringify!($y));)+
            let whole = len / LANES;
            {
                $(let $x = &$x.as_chunks::<LANES>().0[..whole];)*
                $(let $y = &mut $y.as_chunks_mut::<LANES>().0[..whole];)+
                for i in 0..whole {
                    let values = {
                        $(let $x = $s.load(&$x[i]);)*
                        $(let $y = $s.load(&$y[i]);)+
                        $value
                    };
                    let mut k = 0;
                    $($s.store(values[k], &mut $y[i]); k += 1;)+
                }
            }
            if whole * LANES < len {
                $(let $x = &$x[whole * LANES..];)*
                $(let $y = &mut $y[whole * LANES..];)+
                let values = {
                    $(let $x = $s.load_or($x, 0.0);)*
                    $(let $y = $s.load_or($y, 0.0);)+
                    $value
                };
                let mut k = 0;
                $($s.store_part(values[k], $y); k += 1;)+
            }
        }
        $crate::simd::simd_kernel! {
            $(#[$meta])*
            pub fn $name($($p: $pt,)* $($x: &[f32],)* $($y: &mut [f32]),+) = $body;
        }
    };
}
pub(crate) use pointwise;

pointwise! {
    /// `out = a + b`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add/add_body(s;; a, b; out) { [s.add(a, b)] }
}

pointwise! {
    /// `out = a · b`, value by value.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mul/mul_body(s;; a, b; out) { [s.mul(a, b)] }
}

pointwise! {
    /// `y += alpha · x`, fused.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn axpy/axpy_body(s; alpha: f32; x; y) { [s.fma(s.splat(alpha), x, y)] }
}

pointwise! {
    /// `out = alpha · x`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn scale/scale_body(s; alpha: f32; x; out) { [s.mul(s.splat(alpha), x)] }
}

simd_kernel! {
    /// Sum of `x`.
    pub fn sum(x: &[f32]) -> f64 = sum_body;
}

#[inline(always)]
fn sum_body<S: Simd>(s: S, x: &[f32]) -> f64 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        let mut acc = s.splat(0.0);
        let (whole, rest) = block.as_chunks::<LANES>();
        for v in whole {
            acc = s.add(acc, s.load(v));
        }
        acc = s.add(acc, s.load_or(rest, 0.0));
        total += f64::from(s.reduce_sum(acc));
    }
    total
}

simd_kernel! {
    /// Sum of the squares of `x`.
    pub fn sum_squares(x: &[f32]) -> f64 = sum_squares_body;
}

#[inline(always)]
fn sum_squares_body<S: Simd>(s: S, x: &[f32]) -> f64 {
    dot_body(s, x, x)
}

simd_kernel! {
    /// `Σ a[i]·b[i]`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot(a: &[f32], b: &[f32]) -> f64 = dot_body;
}

#[inline(always)]
fn dot_body<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "length of `b`");
    let mut total = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        total += f64::from(s.reduce_sum(dot_lanes(s, a, b)));
    }
    total
}

/// The sixteen lane sums of `a[i]·b[i]`: lane `i mod 16`, fused, in index order.
#[inline(always)]
pub(crate) fn dot_lanes<S: Simd>(s: S, a: &[f32], b: &[f32]) -> S::F {
    let mut acc = s.splat(0.0);
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        acc = s.fma(s.load(a), s.load(b), acc);
    }
    s.fma(s.load_or(a_rest, 0.0), s.load_or(b_rest, 0.0), acc)
}

simd_kernel! {
    /// Whether every value is finite (neither infinite nor NaN).
    pub fn all_finite(x: &[f32]) -> bool = all_finite_body;
}

#[inline(always)]
fn all_finite_body<S: Simd>(s: S, x: &[f32]) -> bool {
    for block in x.chunks(BLOCK) {
        // 0·x is 0 for a finite x and NaN otherwise, and NaN stays in the sum.
        let zero = s.splat(0.0);
        let mut acc = zero;
        let (whole, rest) = block.as_chunks::<LANES>();
        for v in whole {
            acc = s.fma(s.load(v), zero, acc);
        }
        acc = s.fma(s.load_or(rest, 0.0), zero, acc);
        if s.reduce_sum(acc).is_nan() {
            return false;
        }
    }
    true
}
