//! Cortex-M: SysTick, 24 bits that count down with the processor's clock.

use cortex_m::Peripherals;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::{ExceptionFrame, exception};

/// Nanoseconds of a tick, and so QEMU's instructions: the clocks of mps2-an386 and mps2-an505 have 25 and 20 MHz.
const TICK: u64 = if cfg!(board = "mps2-an505") { 50 } else { 40 };
const MASK: u32 = 0x00ff_ffff;

/// Starts the counter.
pub fn start_counter() {
    if let Some(mut peripherals) = Peripherals::take() {
        let timer = &mut peripherals.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(MASK);
        timer.clear_current();
        timer.enable_counter();
    }
}

/// A value of the counter.
pub(super) struct Instant(u32);

impl Instant {
    pub(super) fn now() -> Self {
        Self(SYST::get_current())
    }

    pub(super) fn elapsed(&self) -> u64 {
        u64::from(self.0.wrapping_sub(SYST::get_current()) & MASK) * TICK
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    semihosting::println!("hard fault: {frame:?}");
    semihosting::process::exit(102)
}
