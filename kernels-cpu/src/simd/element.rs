//! What float kernels read from memory.

use half::{bf16, f16};

use super::{LANES, Simd};
use crate::isa::Scalar;

/// A number that is widened exactly to f32 as it is read.
///
/// `pub` because a method of [`Simd`] names it; nothing outside of the crate can.
pub trait Element: Copy {
    /// What fills up missing lanes.
    const ZERO: Self;
    /// Sixteen of them.
    fn load<S: Simd>(s: S, a: &[Self; LANES]) -> S::F;

    /// [`Simd::chain`] of the portable vector.
    #[inline(always)]
    fn chain(w: &[[Self; LANES]], x: &[[f32; LANES]], acc: [f32; LANES]) -> [f32; LANES] {
        super::chain(Scalar, w, x, acc)
    }

    /// [`Simd::chain_scaled`] of the portable vector.
    #[inline(always)]
    fn chain_scaled(a: &[f32], b: &[[Self; LANES]], row: usize, acc: [f32; LANES]) -> [f32; LANES] {
        super::chain_scaled(Scalar, a, b, row, acc)
    }
}

macro_rules! element {
    ($($t:ty, $zero:expr, $load:ident $(, $chains:item)*;)*) => {$(
        impl Element for $t {
            const ZERO: Self = $zero;
            #[inline(always)]
            fn load<S: Simd>(s: S, a: &[Self; LANES]) -> S::F {
                s.$load(a)
            }
            $($chains)*
        }
    )*};
}

element! {
    f32, 0.0, load;
    f16, f16::ZERO, load_f16;
    bf16, bf16::ZERO, load_bf16;
    i8, 0, load_i8,
        #[cfg(arm_vfma)]
        fn chain(w: &[[i8; LANES]], x: &[[f32; LANES]], acc: [f32; LANES]) -> [f32; LANES] {
            super::cortex_m::chain(w, x, acc)
        },
        #[cfg(arm_vfma)]
        fn chain_scaled(a: &[f32], b: &[[i8; LANES]], row: usize, acc: [f32; LANES]) -> [f32; LANES] {
            super::cortex_m::chain_scaled(a, b, row, acc)
        };
}
