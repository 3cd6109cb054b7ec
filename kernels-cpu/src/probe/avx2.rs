//! 256-bit probes.

use core::arch::asm;
use core::arch::x86_64::*;

use crate::isa::Avx2;

const CHAINS: usize = 8;

/// 32 pairs a chain and step.
pub(super) fn int8_dot(_: Avx2, iterations: u64) -> f64 {
    #[target_feature(enable = "avx2")]
    fn run(iterations: u64) {
        let ones = _mm256_set1_epi16(1);
        let x = _mm256_set1_epi8(3);
        let mut y = _mm256_set1_epi8(-5);
        let mut acc = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..iterations {
            for t in &mut acc {
                // SAFETY: no instruction at all; it makes `y` opaque, or the products would be computed once.
                unsafe { asm!("/* {0} */", inout(ymm_reg) y, options(pure, nomem, nostack, preserves_flags)) };
                *t = _mm256_add_epi32(*t, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
            }
        }
        for t in acc {
            core::hint::black_box(t);
        }
    }
    // SAFETY: the token proves that the CPU has AVX2.
    unsafe { run(iterations) };
    (2 * 32 * CHAINS) as f64 * iterations as f64
}

/// 128 bytes a step into four sums of eight bytes each lane.
pub(super) fn read_sweep(_: Avx2, bytes: &[u8]) -> u64 {
    #[target_feature(enable = "avx2")]
    fn run(bytes: &[u8]) -> u64 {
        let (blocks, rest) = bytes.as_chunks::<128>();
        let zero = _mm256_setzero_si256();
        let mut acc = [zero; 4];
        for block in blocks {
            for (i, t) in acc.iter_mut().enumerate() {
                // SAFETY: 32 bytes at 32 i lie in the block of 128.
                let v = unsafe { _mm256_loadu_si256(block.as_ptr().add(32 * i).cast()) };
                *t = _mm256_add_epi64(*t, _mm256_sad_epu8(v, zero));
            }
        }
        let t = _mm256_add_epi64(_mm256_add_epi64(acc[0], acc[1]), _mm256_add_epi64(acc[2], acc[3]));
        let mut lanes = [0u64; 4];
        // SAFETY: `lanes` is 32 bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), t) };
        lanes.iter().sum::<u64>() + rest.iter().map(|&b| u64::from(b)).sum::<u64>()
    }
    // SAFETY: the token proves that the CPU has AVX2.
    unsafe { run(bytes) }
}
