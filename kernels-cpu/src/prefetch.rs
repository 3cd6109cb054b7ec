//! Asking for cache lines before they are needed.

/// Bytes of a line.
pub const LINE: usize = 64;

macro_rules! prefetch_into {
    ($(#[$meta:meta])* $name:ident, $x86:ident, $arm:literal) => {
        $(#[$meta])*
        #[inline(always)]
        pub fn $name(at: *const u8, lines: usize) {
            for i in 0..lines {
                let line = at.wrapping_add(i * LINE);
                #[cfg(all(target_arch = "x86_64", not(miri)))]
                // SAFETY: a prefetch has no effect but on the caches, whatever the address; SSE is part of x86-64.
                unsafe {
                    core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::$x86 }>(line.cast());
                }
                #[cfg(all(target_arch = "aarch64", not(miri)))]
                // SAFETY: as above; the instruction is part of AArch64.
                unsafe {
                    core::arch::asm!(concat!("prfm ", $arm, ", [{0}]"), in(reg) line, options(nostack, readonly, preserves_flags));
                }
                #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
                let _ = line;
            }
        }
    };
}

prefetch_into! {
    /// Asks for `lines` cache lines from `at` on to be brought into the first-level cache. A hint: it reads nothing, cannot fault, and the
    /// memory need not be readable.
    prefetch, _MM_HINT_T0, "pldl1keep"
}

prefetch_into! {
    /// Asks for `lines` cache lines from `at` on to be brought into the second-level cache. A hint, as [`prefetch`] is.
    prefetch_level2, _MM_HINT_T1, "pldl2keep"
}
