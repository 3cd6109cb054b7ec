//! The heap, whose bytes are counted, and the stack, which is painted: together with the statics all of the RAM that the program uses.
//!
//! ```text
//! RAM    [ statics, heap among them | free …        painted …         stack ]     256 KiB, by the board's memory.x
//! ```

use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use embedded_alloc::LlffHeap;

/// Bytes of the heap.
const HEAP: usize = 236 << 10;
/// What stack that nobody used holds.
const PAINT: u32 = 0xc0de_5afe;

static mut ARENA: MaybeUninit<[u64; HEAP / 8]> = MaybeUninit::uninit();

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    heap: LlffHeap::empty(),
    most: AtomicUsize::new(0),
};

/// A heap that knows how many bytes were in use at most.
struct Counting {
    heap: LlffHeap,
    most: AtomicUsize,
}

// SAFETY: the heap underneath is given every call unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.heap.alloc(layout) };
        if !block.is_null() {
            // What the heap hands out, its rounding included.
            self.most.fetch_max(self.heap.used(), Ordering::Relaxed);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.dealloc(block, layout) };
    }
}

unsafe extern "C" {
    /// Where the statics begin.
    static mut __sdata: u32;
    /// The end of the statics; where the stack may reach to.
    static mut __sheap: u32;
    /// Where the stack begins.
    static mut _stack_start: u32;
    /// Bytes of RAM that the board is said to have: a number, not a place.
    static __ram_size: u8;
    /// The begin of the flash.
    static __flash_start: u8;
    /// In flash: what the statics that are not 0 begin with. Nothing lies behind it.
    static __sidata: u8;
    /// The end of the statics that are not 0.
    static __edata: u8;
    /// Memory of QEMU's board that a microcontroller does not have, some megabytes.
    static mut __bench_memory: u8;
}

/// Gives the heap its memory. To be called once, before anything is allocated.
pub fn start_heap() {
    // SAFETY: the arena is the heap's alone, and `entry!` calls this once.
    unsafe { ALLOCATOR.heap.init(&raw mut ARENA as usize, HEAP) };
}

/// Bytes of the heap that nobody uses now.
pub fn heap_free() -> usize {
    ALLOCATOR.heap.free()
}

/// Fills what is free below the stack.
#[inline(never)]
pub fn paint_stack() {
    let here = 0u32;
    let mut at = &raw mut __sheap;
    // Room for this function's own frame.
    let end = (&raw const here).wrapping_sub(64);
    while at.cast_const() < end {
        // SAFETY: between the statics and the stack lies nothing.
        unsafe { at.write_volatile(PAINT) };
        at = at.wrapping_add(1);
    }
}

/// Bytes of RAM that there are.
pub fn ram() -> usize {
    (&raw const __ram_size).addr()
}

/// Bytes of flash that the program takes.
pub fn flash() -> usize {
    let values = (&raw const __edata).addr() - (&raw const __sdata).addr();
    (&raw const __sidata).addr() + values - (&raw const __flash_start).addr()
}

/// Bytes in memory that QEMU's boards have and microcontrollers do not, at a multiple of 64.
pub struct BenchCopy(pub &'static mut [u8]);

impl AsRef<[u8]> for BenchCopy {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

/// A copy of `bytes` there. There is room for one: to be called once.
///
/// # Panics
/// When it is called again.
pub fn bench_copy(bytes: &[u8]) -> BenchCopy {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "there is room for one copy");
    // SAFETY: memory.x says where megabytes lie that nothing else uses; they are handed out once.
    let memory = unsafe { core::slice::from_raw_parts_mut(&raw mut __bench_memory, bytes.len()) };
    memory.copy_from_slice(bytes);
    BenchCopy(memory)
}

/// Where the RAM went, in bytes.
pub struct Usage {
    /// Statics without the heap.
    pub statics: usize,
    /// The heap's most bytes in use at once.
    pub heap: usize,
    /// The stack's deepest reach.
    pub stack: usize,
}

impl Usage {
    /// So far.
    pub fn so_far() -> Self {
        let (bottom, top) = (&raw const __sheap, (&raw const _stack_start).cast::<u8>());
        let mut at = bottom;
        // SAFETY: the memory from the end of the statics to the begin of the stack is there, and words of it are read as they are.
        while at.cast::<u8>() < top && unsafe { at.read_volatile() } == PAINT {
            at = at.wrapping_add(1);
        }
        Self {
            statics: bottom.addr() - (&raw const __sdata).addr() - HEAP,
            heap: ALLOCATOR.most.load(Ordering::Relaxed),
            stack: top.addr() - at.addr(),
        }
    }
}
