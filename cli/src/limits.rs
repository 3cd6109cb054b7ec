//! What the machine can do, measured in the same run as the figures that are compared with it.

#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use std::time::Instant;

use onebit_kernels_cpu::{Isa, probe};

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

    /// Bytes a second that all threads read together, the fastest of some sweeps.
    pub(crate) fn measure(&self, isa: Isa) -> f64 {
        (0..SWEEPS).fold(0.0, |best, _| self.sweep(isa).max(best))
    }

    /// The same in a single sweep.
    pub(crate) fn sweep(&self, isa: Isa) -> f64 {
        let part = self.buffer.len().div_ceil(self.threads);
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
        self.buffer.len() as f64 / start.elapsed().as_secs_f64()
    }
}

/// f32 operations a second in fused multiply-adds.
pub(crate) fn fma_peak(isa: Isa, threads: usize) -> f64 {
    Peak::new(threads, |iterations| probe::fma_peak(isa, iterations)).measure()
}

/// bf16 operations a second in dot products; none where the path has no instruction for them.
#[cfg(feature = "train")]
pub(crate) fn bf16_peak(isa: Isa, threads: usize) -> Option<f64> {
    probe::bf16_dot_peak(isa, 1)?;
    Some(
        Peak::new(threads, |iterations| {
            probe::bf16_dot_peak(isa, iterations).unwrap_or(0.0)
        })
        .measure(),
    )
}

/// int8 operations a second in dot products.
pub(crate) fn int8_peak(isa: Isa, threads: usize) -> f64 {
    int8_dots(isa, threads).measure()
}

/// The peak of int8 dot products, to be measured.
pub(crate) fn int8_dots(isa: Isa, threads: usize) -> Peak<impl Fn(u64) -> f64 + Sync> {
    Peak::new(threads, move |iterations| probe::int8_dot_peak(isa, iterations))
}

/// A peak to be measured: `work(iterations)` does nothing else and returns its operations.
pub(crate) struct Peak<F> {
    threads: usize,
    work: F,
    iterations: u64,
    /// What these take one thread.
    seconds: f64,
}

impl<F: Fn(u64) -> f64 + Sync> Peak<F> {
    /// Rounds of some 10 ms on one thread.
    fn new(threads: usize, work: F) -> Self {
        let (mut iterations, mut seconds) = (1_000, 0.0);
        while iterations < 1 << 40 {
            let start = Instant::now();
            std::hint::black_box(work(iterations));
            seconds = start.elapsed().as_secs_f64();
            if seconds > 0.01 {
                break;
            }
            iterations *= 2;
        }
        Self {
            threads,
            work,
            iterations,
            seconds,
        }
    }

    /// Operations a second of all threads, the fastest of some rounds.
    fn measure(&self) -> f64 {
        (0..ROUNDS).fold(0.0, |best, _| self.round().max(best))
    }

    /// The same in a single round.
    pub(crate) fn round(&self) -> f64 {
        self.run(self.iterations)
    }

    /// What is sustained for some `seconds`: a host that holds back what has run for a while has a higher peak for milliseconds than anybody
    /// gets for seconds.
    pub(crate) fn sustained(&self, seconds: f64) -> f64 {
        let rounds = (seconds / self.seconds).clamp(1.0, 1e6);
        self.run((self.iterations as f64 * rounds) as u64)
    }

    fn run(&self, iterations: u64) -> f64 {
        let start = Instant::now();
        let done: f64 = std::thread::scope(|scope| {
            let running: Vec<_> = (0..self.threads)
                .map(|_| scope.spawn(|| (self.work)(iterations)))
                .collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        done / start.elapsed().as_secs_f64()
    }
}

/// The middle value; the lower of two. NaN for none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}
