//! 512-bit probes.

use core::arch::asm;
use core::arch::x86_64::*;

use crate::isa::Avx512;

const CHAINS: usize = 12;

/// 64 pairs a chain and step.
pub(super) fn int8_dot(_: Avx512, iterations: u64) -> f64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn run(iterations: u64) {
        let x = core::hint::black_box(_mm512_set1_epi8(3));
        let y = core::hint::black_box(_mm512_set1_epi8(-5));
        let mut acc = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..iterations {
            for t in &mut acc {
                *t = _mm512_dpbusd_epi32(*t, x, y);
            }
        }
        for t in acc {
            core::hint::black_box(t);
        }
    }
    // SAFETY: the token proves that the CPU has AVX-512 F and VNNI.
    unsafe { run(iterations) };
    (2 * 64 * CHAINS) as f64 * iterations as f64
}

/// 32 pairs of values a chain and step. The caller has seen that the CPU has BF16.
pub(super) fn bf16_dot(_: Avx512, iterations: u64) -> f64 {
    #[target_feature(enable = "avx512f")]
    fn run(iterations: u64) {
        // One half in each value.
        let x = core::hint::black_box(_mm512_set1_epi32(0x3f00_3f00));
        let mut acc = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..iterations {
            for t in &mut acc {
                // SAFETY: registers only.
                unsafe {
                    asm!("vdpbf16ps {0}, {1}, {1}", inout(zmm_reg) *t, in(zmm_reg) x,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        for t in acc {
            core::hint::black_box(t);
        }
    }
    // SAFETY: the token proves that the CPU has AVX-512 F, and the caller has seen BF16.
    unsafe { run(iterations) };
    (2 * 32 * CHAINS) as f64 * iterations as f64
}

/// 256 bytes a step into four sums of eight bytes each lane.
pub(super) fn read_sweep(_: Avx512, bytes: &[u8]) -> u64 {
    #[target_feature(enable = "avx512f,avx512bw")]
    fn run(bytes: &[u8]) -> u64 {
        let (blocks, rest) = bytes.as_chunks::<256>();
        let zero = _mm512_setzero_si512();
        let mut acc = [zero; 4];
        for block in blocks {
            for (i, t) in acc.iter_mut().enumerate() {
                // SAFETY: 64 bytes at 64 i lie in the block of 256.
                let v = unsafe { _mm512_loadu_si512(block.as_ptr().add(64 * i).cast()) };
                *t = _mm512_add_epi64(*t, _mm512_sad_epu8(v, zero));
            }
        }
        let t = _mm512_add_epi64(_mm512_add_epi64(acc[0], acc[1]), _mm512_add_epi64(acc[2], acc[3]));
        _mm512_reduce_add_epi64(t) as u64 + rest.iter().map(|&b| u64::from(b)).sum::<u64>()
    }
    // SAFETY: the token proves that the CPU has AVX-512 F and BW.
    unsafe { run(bytes) }
}
