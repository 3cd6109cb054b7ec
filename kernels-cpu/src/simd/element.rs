//! What float kernels read from memory.

use half::{bf16, f16};

use super::{LANES, Simd};

/// A number that is widened exactly to f32 as it is read.
pub(crate) trait Element: Copy {
    /// What fills up missing lanes.
    const ZERO: Self;
    /// Sixteen of them.
    fn load<S: Simd>(s: S, a: &[Self; LANES]) -> S::F;
}

macro_rules! element {
    ($($t:ty, $zero:expr, $load:ident;)*) => {$(
        impl Element for $t {
            const ZERO: Self = $zero;
            #[inline(always)]
            fn load<S: Simd>(s: S, a: &[Self; LANES]) -> S::F {
                s.$load(a)
            }
        }
    )*};
}

element! {
    f32, 0.0, load;
    f16, f16::ZERO, load_f16;
    bf16, bf16::ZERO, load_bf16;
    i8, 0, load_i8;
}
