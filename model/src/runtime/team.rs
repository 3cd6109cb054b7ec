//! Threads that share one job after another, at about a microsecond a job (`barrier_ns` of `onebit bench decode`: 0.3 to 1.3 µs on two virtual CPUs).
//!
//! A job is a function of a piece number. The thread that brings it (the leader) opens a gate, takes pieces from a counter like everybody
//! else, and, when none is left, shuts the gate and waits for those inside. A worker that never came in is not waited for: with
//! more threads than cores a job is as slow as the threads that run, and not as the scheduler.
//!
//! ```text
//! gate, 64 bits:   job number (32) | shut (1) | workers inside (31)
//! ```
//!
//! The pointer to the job's function is written before the gate opens and read only by workers inside, so it is valid whenever it is
//! read. While a leader holds the team ([`Team::wake`]) workers spin and then yield; otherwise they spin a little, so that the next
//! token finds them awake, and sleep.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

const SHUT: u64 = 1 << 31;
const INSIDE: u64 = SHUT - 1;
/// Pauses before a waiting thread yields: tens of microseconds; few where Miri interprets, so that workers sleep there too.
const SPINS: u32 = if cfg!(miri) { 10 } else { 2_000 };
/// Yields before an idle worker sleeps, when no leader holds the team.
const IDLE_YIELDS: u32 = if cfg!(miri) { 5 } else { 50 };

/// A function of a piece number, borrowed for as long as the gate is open.
type Job = *const (dyn Fn(usize) + Sync);

/// What leader and workers share.
pub(super) struct Team {
    /// See the module's documentation.
    gate: AtomicU64,
    /// The job of the open gate; written by the leader alone, while the gate is shut and nobody is inside.
    job: UnsafeCell<Option<Job>>,
    pieces: AtomicUsize,
    next: AtomicUsize,
    panicked: AtomicBool,
    /// Held by the leader for as long as it runs jobs.
    lead: Mutex<()>,
    awake: AtomicUsize,
    dismissed: AtomicBool,
    bell: (Mutex<()>, Condvar),
}

// SAFETY: `job` is written by the leader alone (it holds `lead`) while no worker is inside, and read by workers inside; the gate's
// acquire and release order the two. The function behind it is `Sync`.
unsafe impl Sync for Team {}
// SAFETY: as above; the pointer is not used by whoever drops the team.
unsafe impl Send for Team {}

impl core::fmt::Debug for Team {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Team")
    }
}

impl Default for Team {
    fn default() -> Self {
        Self {
            gate: AtomicU64::new(SHUT),
            job: UnsafeCell::new(None),
            pieces: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            lead: Mutex::new(()),
            awake: AtomicUsize::new(0),
            dismissed: AtomicBool::new(false),
            bell: (Mutex::new(()), Condvar::new()),
        }
    }
}

/// Keeps the workers awake.
pub(super) struct Awake<'a>(&'a Team);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_sub(1, Ordering::Release);
    }
}

impl Team {
    /// Wakes the workers and keeps them so until the guard goes.
    pub(super) fn wake(&self) -> Awake<'_> {
        self.awake.fetch_add(1, Ordering::Release);
        self.ring();
        Awake(self)
    }

    /// Ends the workers.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        // Taken so that a worker between its last look and its sleep is not missed.
        drop(self.bell.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.1.notify_all();
    }

    /// Cuts two slices into pieces of so many elements and calls `f(first element of a, piece of a, piece of b)` for each pair, on
    /// whichever threads come.
    ///
    /// # Panics
    /// If `f` does, after every piece has been called; if a piece has no elements.
    pub(super) fn run_zipped<T: Send, U: Send>(
        &self,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let (a, b) = (Cut::new(a.0, a.1), Cut::new(b.0, b.1));
        self.run(a.pieces().min(b.pieces()), &|i| {
            // SAFETY: `run` calls with each number once.
            let (piece, other) = unsafe { (a.piece(i), b.piece(i)) };
            f(i * a.chunk, piece, other);
        });
    }

    /// Calls `f` once with each of `0..pieces`.
    fn run(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        let Some(_lead) = self.try_lead() else {
            return (0..pieces).for_each(f);
        };
        // SAFETY: the lifetime of `f` is dropped from the type only; nobody is inside when this function returns, and nobody can
        // come in after that.
        let job: Job = unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: this thread leads, the gate is shut and nobody is inside.
        unsafe { *self.job.get() = Some(job) };
        self.pieces.store(pieces, Ordering::Relaxed);
        self.next.store(0, Ordering::Relaxed);
        self.panicked.store(false, Ordering::Relaxed);
        let number = (self.gate.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.gate.store(number << 32, Ordering::Release);
        self.take_pieces(f);
        self.gate.fetch_or(SHUT, Ordering::Relaxed);
        let mut waited = 0;
        while self.gate.load(Ordering::Acquire) & INSIDE != 0 {
            pause(&mut waited);
        }
        assert!(!self.panicked.load(Ordering::Relaxed), "a piece of the work panicked");
    }

    fn try_lead(&self) -> Option<MutexGuard<'_, ()>> {
        match self.lead.try_lock() {
            Ok(guard) => Some(guard),
            // The leader panicked after its job was over, as `run` does.
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn take_pieces(&self, f: &(dyn Fn(usize) + Sync)) {
        let pieces = self.pieces.load(Ordering::Relaxed);
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= pieces {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| f(i))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
        }
    }

    /// A worker's life.
    pub(super) fn work(&self) {
        // The gate as it was at the last visit.
        let mut seen = 0;
        let mut waited = 0;
        while !self.dismissed.load(Ordering::Acquire) {
            let gate = self.gate.load(Ordering::Relaxed);
            if gate & SHUT != 0 || gate >> 32 == seen {
                pause(&mut waited);
                if waited > SPINS + IDLE_YIELDS && self.awake.load(Ordering::Acquire) == 0 {
                    self.sleep();
                    waited = 0;
                }
                continue;
            }
            if (self
                .gate
                .compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed))
            .is_err()
            {
                continue;
            }
            seen = gate >> 32;
            waited = 0;
            // SAFETY: this thread is inside, so the leader does not write; it wrote before the gate opened.
            if let Some(job) = unsafe { *self.job.get() } {
                // SAFETY: the leader waits for this thread to go before the function's borrow ends.
                self.take_pieces(unsafe { &*job });
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    fn sleep(&self) {
        let mut guard = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        while self.awake.load(Ordering::Acquire) == 0 && !self.dismissed.load(Ordering::Acquire) {
            guard = self.bell.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A slice in pieces that different threads take.
struct Cut<T> {
    start: *mut T,
    len: usize,
    chunk: usize,
}

// SAFETY: a piece is handed to one thread at a time (the condition of `piece`), and `T` may change threads.
unsafe impl<T: Send> Sync for Cut<T> {}

impl<T> Cut<T> {
    fn pieces(&self) -> usize {
        self.len.div_ceil(self.chunk)
    }

    fn new(slice: &mut [T], chunk: usize) -> Self {
        assert!(chunk > 0, "a piece has elements");
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            chunk,
        }
    }

    /// Piece `i`; the last may be shorter.
    ///
    /// # Safety
    /// No piece is taken twice while the slice is borrowed.
    #[expect(clippy::mut_from_ref, reason = "pieces are disjoint, and the caller takes each once")]
    unsafe fn piece(&self, i: usize) -> &mut [T] {
        let first = (i * self.chunk).min(self.len);
        let len = self.chunk.min(self.len - first);
        // SAFETY: `first..first + len` lies inside the slice, and no other piece overlaps it.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

/// Spins at first, yields then.
fn pause(waited: &mut u32) {
    *waited = waited.saturating_add(1);
    if *waited < SPINS {
        core::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
