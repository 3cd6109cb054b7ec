//! The formula: the oracle of the other paths.

use half::f16;

use super::{BLOCK_BYTES, BLOCK_STEPS, Dots, InputBlock};
use crate::isa::Scalar;
use crate::simd::LANES;

impl Dots for Scalar {
    type S = Self;
    type Codes = [u8; BLOCK_BYTES];

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn open(self, codes: &[u8; BLOCK_BYTES]) -> Self::Codes {
        *codes
    }

    #[inline(always)]
    fn sums(self, codes: Self::Codes, x: &InputBlock) -> [f32; LANES] {
        let mut sums = [0i32; LANES];
        for (j, code) in codes.into_iter().enumerate() {
            let (low, high) = (i32::from(code & 15) - 8, i32::from(code >> 4) - 8);
            sums[j / 4] += low * i32::from(x.low[j]) + high * i32::from(x.high[j]);
        }
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn weight_steps(self, w: &[f16; BLOCK_STEPS]) -> [f32; LANES] {
        core::array::from_fn(|lane| w[lane / 4].to_f32_const())
    }

    #[inline(always)]
    fn input_steps(self, x: &[f32; BLOCK_STEPS]) -> [f32; LANES] {
        core::array::from_fn(|lane| x[lane / 4])
    }
}
