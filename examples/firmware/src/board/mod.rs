//! What differs from processor to processor: the counter of instructions, and what a fault does.
//!
//! Instructions are counted under QEMU's `-icount shift=0`, where each takes one nanosecond of the board's time: a timer that runs from the
//! board's clock then counts them, to the length of a tick. On a real chip the same counters count clock cycles.

#[cfg(target_arch = "arm")]
mod cortex_m;
#[cfg(target_arch = "riscv32")]
mod riscv32;

#[cfg(target_arch = "arm")]
use cortex_m as processor;
#[cfg(target_arch = "riscv32")]
use riscv32 as processor;

pub use processor::start_counter;

/// The board, as QEMU calls it.
pub const NAME: &str = env!("BOARD");

/// Counts from where it was made.
pub struct Stopwatch(processor::Instant);

impl Stopwatch {
    /// One that begins now.
    pub fn start() -> Self {
        Self(processor::Instant::now())
    }

    /// Instructions since then; on a Cortex-M of at most 600 million.
    pub fn instructions(&self) -> u64 {
        self.0.elapsed()
    }
}
