//! What the machine can do, measured in the same run as the figures that are compared with it.

use std::time::Instant;

use onebit_engine::Isa;
use onebit_kernels_cpu::probe;

use crate::{CliError, Result, device};

/// Bytes swept for the bandwidth: several times the largest caches.
pub(crate) const BUFFER_BYTES: u64 = 512 << 20;
/// Sweeps of one measurement; the fastest counts, because other load only slows one down.
const SWEEPS: usize = 5;
/// Rounds of a peak; likewise.
const ROUNDS: usize = 5;

/// A buffer to read from memory.
pub(crate) struct Bandwidth {
    buffer: Vec<u8>,
    threads: usize,
}

impl Bandwidth {
    /// A buffer of `bytes`, or a quarter of the available memory if that is less.
    pub(crate) fn new(threads: usize, bytes: u64) -> Result<Self> {
        let bytes = device::available_memory()
            .map_or(bytes, |free| bytes.min(free / 4))
            .max(1 << 20) as usize;
        let mut buffer = Vec::new();
        let refused = |_| {
            CliError::Failed(format!(
                "no memory for a buffer of {bytes} bytes to measure the bandwidth; close other programs"
            ))
        };
        buffer.try_reserve_exact(bytes).map_err(refused)?;
        // Written, so that every page is the program's own and none is the shared page of zeros.
        buffer.resize(bytes, 1);
        Ok(Self { buffer, threads })
    }

    /// Bytes a second that all threads read together.
    pub(crate) fn measure(&self, isa: Isa) -> f64 {
        let part = self.buffer.len().div_ceil(self.threads);
        let mut best = 0.0f64;
        for _ in 0..SWEEPS {
            let start = Instant::now();
            let sum: u64 = std::thread::scope(|scope| {
                let running: Vec<_> = self
                    .buffer
                    .chunks(part)
                    .map(|part| scope.spawn(move || probe::read_sweep(isa, part)))
                    .collect();
                running
                    .into_iter()
                    .filter_map(|thread| thread.join().ok())
                    .fold(0, u64::wrapping_add)
            });
            std::hint::black_box(sum);
            best = best.max(self.buffer.len() as f64 / start.elapsed().as_secs_f64());
        }
        best
    }
}

/// f32 operations a second in fused multiply-adds.
pub(crate) fn fma_peak(isa: Isa, threads: usize) -> f64 {
    peak(threads, |iterations| probe::fma_peak(isa, iterations))
}

/// int8 operations a second in dot products.
pub(crate) fn int8_peak(isa: Isa, threads: usize) -> f64 {
    peak(threads, |iterations| probe::int8_dot_peak(isa, iterations))
}

fn peak(threads: usize, work: impl Fn(u64) -> f64 + Sync) -> f64 {
    // Rounds of some 10 ms on one thread.
    let mut iterations = 1_000;
    while iterations < 1 << 40 {
        let start = Instant::now();
        std::hint::black_box(work(iterations));
        if start.elapsed().as_secs_f64() > 0.01 {
            break;
        }
        iterations *= 2;
    }
    let mut best = 0.0f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let done: f64 = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(iterations))).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        best = best.max(done / start.elapsed().as_secs_f64());
    }
    best
}
