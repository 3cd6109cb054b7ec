//! RISC-V: the counter of retired instructions.

use riscv::register::minstret;

/// Nothing to do: the counter runs from reset.
pub fn start_counter() {}

/// A value of the counter.
pub(super) struct Instant(u64);

impl Instant {
    pub(super) fn now() -> Self {
        Self(minstret::read64())
    }

    pub(super) fn elapsed(&self) -> u64 {
        minstret::read64().wrapping_sub(self.0)
    }
}

/// Where the start-up crate goes with a trap that is no interrupt.
#[unsafe(no_mangle)]
extern "C" fn ExceptionHandler(_frame: &riscv_rt::TrapFrame) -> ! {
    let (cause, at) = (riscv::register::mcause::read().bits(), riscv::register::mepc::read());
    semihosting::println!("trap {cause} at {at:#x}");
    semihosting::process::exit(102)
}
