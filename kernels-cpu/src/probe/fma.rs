//! Chains of fused multiply-adds, over the vector of every path.

use core::hint::black_box;

use crate::simd::{LANES, Simd, simd_kernel};

/// Multiply-adds of `iterations` steps on `CHAINS` vectors; returns floating-point operations done.
#[inline(always)]
fn chains<S: Simd, const CHAINS: usize>(s: S, iterations: u64) -> f64 {
    // Values stay near 1 whatever the count: x -> x / 2 + 1 / 2.
    let half = s.splat(black_box(0.5));
    let mut acc = [s.splat(black_box(1.0)); CHAINS];
    for _ in 0..iterations {
        for x in &mut acc {
            *x = s.fma(*x, half, half);
        }
    }
    let mut sum = 0.0;
    for x in acc {
        sum += s.reduce_sum(x);
    }
    black_box(sum);
    (2 * CHAINS * LANES) as f64 * iterations as f64
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn chains_12<S: Simd>(s: S, iterations: u64) -> f64 {
    chains::<S, 12>(s, iterations)
}

#[inline(always)]
fn chains_6<S: Simd>(s: S, iterations: u64) -> f64 {
    chains::<S, 6>(s, iterations)
}

#[cfg(target_arch = "x86_64")]
simd_kernel! {
    /// Twelve 512-bit registers: enough chains to cover the latency of two units.
    pub fn wide(iterations: u64) -> f64 = chains_12;
}
simd_kernel! {
    /// Sixteen lanes are two 256-bit registers: six vectors are twelve registers, and leave room for the constant.
    pub fn narrow(iterations: u64) -> f64 = chains_6;
}
