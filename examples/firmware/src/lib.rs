//! What the programs in `bin/` share: the model in flash, the board, and the figures of its memory.
//!
//! | program | what it does |
//! |---|---|
//! | `story` | compares the kernels with the portable ones, tells the stories of `golden.txt` and compares every id, prints RAM, flash and instructions |
//! | `damage` | cuts and changes the model at many bytes; each must be an error value that is printed, or a model that answers |
//!
//! `./run.sh TARGET` builds and runs them in QEMU. A program ends QEMU with status 0 if all was as it must be, with 1 if a comparison failed,
//! with 101 after a panic and with 102 after a fault of the processor.
#![no_std]

extern crate alloc;

pub mod board;
pub mod kernels;
pub mod memory;

/// The model, where the runtime can use it in place: its tensors lie at multiples of 64 bytes of the file.
pub static MODEL: &[u8] = onebit_model::include_aligned!(env!("MODEL"));

/// What the model must tell.
pub static GOLDEN: &str = include_str!(env!("GOLDEN"));

/// Makes `$main`, a `fn() -> bool`, what the processor begins with; `true` is success.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_arch = "arm")]
        use cortex_m_rt::entry;
        #[cfg(target_arch = "riscv32")]
        use riscv_rt::entry;

        #[entry]
        fn start() -> ! {
            $crate::memory::paint_stack();
            $crate::memory::start_heap();
            $crate::board::start_counter();
            let good = $main();
            semihosting::process::exit(if good { 0 } else { 1 })
        }
    };
}
