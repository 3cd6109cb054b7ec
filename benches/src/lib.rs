//! Criterion benches live in `benches/`; this library holds what they share: the limits of the machine, measured in the
//! same run as the figures that are compared with them.
//!
//! ```
//! use onebit_kernels_cpu::Isa;
//!
//! // Operations a second, on one thread and on the best path: what a kernel's own rate is divided by.
//! assert!(onebit_benches::fma_peak(Isa::best(), 1) > 0.0);
//! ```
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use onebit_kernels_cpu::{Isa, probe};

/// Operations a second of `work(iterations) -> operations`, run on `threads` threads at once: the fastest of several
/// short rounds, as other load on the machine can only slow one down.
pub fn peak_rate(threads: usize, work: impl Fn(u64) -> f64 + Sync) -> f64 {
    // Calibrated on one thread to rounds of about 2 ms.
    let mut iterations = 1_000;
    while iterations < 1 << 40 {
        let start = Instant::now();
        work(iterations);
        if start.elapsed().as_secs_f64() > 0.002 {
            break;
        }
        iterations *= 2;
    }
    let mut best = 0.0f64;
    for _ in 0..25 {
        let start = Instant::now();
        let done: f64 = std::thread::scope(|scope| {
            let running: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(iterations))).collect();
            work(iterations) + running.into_iter().filter_map(|t| t.join().ok()).sum::<f64>()
        });
        best = best.max(done / start.elapsed().as_secs_f64());
    }
    best
}

/// Peak of f32 fused multiply-adds, operations a second.
pub fn fma_peak(isa: Isa, threads: usize) -> f64 {
    peak_rate(threads, |iterations| probe::fma_peak(isa, iterations))
}

/// Peak of bf16 dot products with f32 sums, operations a second; 0 where there is no instruction for them.
pub fn bf16_peak(isa: Isa, threads: usize) -> f64 {
    peak_rate(threads, |iterations| {
        probe::bf16_dot_peak(isa, iterations).unwrap_or(0.0)
    })
}

/// Reproducible values in −1..1.
pub fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `limit` and `kernel` in turn under `group/name`; the fastest seconds of each, unless a filter left the case out.
pub fn race(
    criterion: &mut Criterion,
    group: &str,
    name: &str,
    work: Throughput,
    limit: impl Fn(),
    mut kernel: impl FnMut(),
) -> Option<(f64, f64)> {
    let fastest = Cell::new((f64::INFINITY, f64::INFINITY));
    let mut group = criterion.benchmark_group(group);
    group.throughput(work);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                limit();
                let between = Instant::now();
                kernel();
                let took = between.elapsed();
                let (l, k) = fastest.get();
                fastest.set((l.min((between - start).as_secs_f64()), k.min(took.as_secs_f64())));
                total += took;
            }
            total
        });
    });
    group.finish();
    Some(fastest.get()).filter(|(_, kernel)| kernel.is_finite())
}
