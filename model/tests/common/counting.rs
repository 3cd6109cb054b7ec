//! The allocator of tests that say how much memory something takes. Each of them is a program of its own, and names this file by its path: `common`
//! itself is also built without the standard library.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one thread asked for and holds. Signed: what another thread took may be given back here.
struct Counts {
    allocations: Cell<usize>,
    bytes: Cell<usize>,
    held: Cell<isize>,
    peak: Cell<isize>,
}

thread_local! {
    static THREAD: Counts = const {
        Counts {
            allocations: Cell::new(0),
            bytes: Cell::new(0),
            held: Cell::new(0),
            peak: Cell::new(0),
        }
    };
}

/// What all threads hold together.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn taken(bytes: usize) {
    THREAD.with(|thread| {
        thread.allocations.set(thread.allocations.get() + 1);
        thread.bytes.set(thread.bytes.get() + bytes);
        // A size is at most `isize::MAX`, by the rules of `Layout`.
        thread.held.set(thread.held.get() + bytes as isize);
        thread.peak.set(thread.peak.get().max(thread.held.get()));
    });
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

fn given_back(bytes: usize) {
    THREAD.with(|thread| thread.held.set(thread.held.get() - bytes as isize));
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator; counting touches atomics and thread-local cells that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new lie beside each other while the bytes are moved.
        taken(size);
        given_back(layout.size());
        // SAFETY: the caller's pointer, layout and size, unchanged.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and the most bytes that this thread held at once meanwhile, beyond those before it.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = THREAD.with(|thread| {
        thread.peak.set(thread.held.get());
        thread.held.get()
    });
    let result = work();
    let peak = THREAD.with(|thread| thread.peak.get());
    (result, (peak - before).unsigned_abs())
}

/// The same of all threads together, for a program in which nothing else that matters runs meanwhile.
pub fn peak_of_all_threads<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

/// What `work` gives, how many allocations this thread asked for meanwhile, and how many bytes in all.
pub fn asked<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let now = || THREAD.with(|thread| (thread.allocations.get(), thread.bytes.get()));
    let (allocations, bytes) = now();
    let result = work();
    let (allocations_now, bytes_now) = now();
    (result, allocations_now - allocations, bytes_now - bytes)
}

/// It sees what it is there to see, in every test that uses it.
#[test]
fn the_counter_counts() {
    use std::hint::black_box;

    let pair = || drop(black_box([vec![0u8; 1000], vec![0u8; 500]]));
    let ((), bytes) = peak_of(pair);
    assert!((1500..1700).contains(&bytes), "{bytes}");
    let ((), bytes) = peak_of(|| (0..3).for_each(|_| pair()));
    assert!(
        (1500..1700).contains(&bytes),
        "{bytes}: what was given back does not count"
    );
    let ((), allocations, bytes) = asked(|| (0..3).for_each(|_| pair()));
    assert_eq!((allocations, bytes), (6, 4500));
}
