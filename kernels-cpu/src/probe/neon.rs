//! 128-bit probes.

use core::arch::aarch64::*;

use crate::isa::Neon;

/// Sixteen bytes at a time may add 1020 to each of four 32-bit sums: so many times before they are widened.
const BLOCK: usize = 64 << 14;

/// 64 bytes a step into four sums.
pub(super) fn read_sweep(_: Neon, bytes: &[u8]) -> u64 {
    #[target_feature(enable = "neon")]
    fn run(bytes: &[u8]) -> u64 {
        let mut sum = 0;
        for block in bytes.chunks(BLOCK) {
            let (steps, rest) = block.as_chunks::<64>();
            let mut acc = [vdupq_n_u32(0); 4];
            for step in steps {
                for i in 0..4 {
                    // SAFETY: 16 bytes at 16 i lie in the step of 64.
                    let v = unsafe { vld1q_u8(step.as_ptr().add(16 * i)) };
                    acc[i] = vpadalq_u16(acc[i], vpaddlq_u8(v));
                }
            }
            for t in acc {
                sum += vaddlvq_u32(t);
            }
            sum += rest.iter().map(|&b| u64::from(b)).sum::<u64>();
        }
        sum
    }
    // SAFETY: the token proves that the CPU has NEON.
    unsafe { run(bytes) }
}
