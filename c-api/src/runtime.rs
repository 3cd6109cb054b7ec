//! Without an operating system: what Rust needs of the C library beside it.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(place: *mut c_void);
    #[cfg(target_os = "none")]
    fn abort() -> !;
}

/// Memory of the C library.
struct Malloc;

/// What `malloc` aligns to at least.
const ALIGNED: usize = 8;

// SAFETY: memory comes from `malloc` at its own alignment, or, where more is asked for, from a larger piece whose start is kept in the word before what is given;
// so pieces do not overlap, are as long and as aligned as the layout says, and go back to `free` as they came.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // SAFETY: the size of a layout is not 0 here, by the rules of `GlobalAlloc`.
            return unsafe { malloc(layout.size()) }.cast();
        }
        let Some(size) = layout.size().checked_add(layout.align()) else {
            return core::ptr::null_mut();
        };
        // SAFETY: as above.
        let start: *mut u8 = unsafe { malloc(size) }.cast();
        if start.is_null() {
            return start;
        }
        // At least 8 bytes, which a pointer has room in, and at most `align`: `start` is a multiple of 8.
        let skip = layout.align() - start.addr() % layout.align();
        // SAFETY: `skip` is at most `align`, so the place and `size` bytes from it lie in the piece, and the word before it too.
        unsafe {
            let place = start.add(skip);
            place.cast::<*mut u8>().sub(1).write(start);
            place
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let start = if layout.align() <= ALIGNED {
            place
        } else {
            // SAFETY: `alloc` wrote the start of the piece there.
            unsafe { place.cast::<*mut u8>().sub(1).read() }
        };
        // SAFETY: it came from `malloc`.
        unsafe { free(start.cast()) }
    }
}

#[global_allocator]
static MALLOC: Malloc = Malloc;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { abort() }
}
