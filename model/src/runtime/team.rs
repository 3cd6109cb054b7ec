//! Threads that share one job after another, at a microsecond a job or less (`barrier_ns` of `onebit bench decode`: 0.2 to 1 µs on two virtual CPUs).
//!
//! A job is a function of a piece number and of the thread's own number, 0 for the leader. The thread that brings it (the leader) publishes how many pieces are left, takes them like
//! everybody else, and, when none is left, waits for those that others still work on. A worker that never took a piece is not waited for: with
//! more threads than cores a job is as slow as the threads that run, and not as the scheduler.
//!
//! ```text
//! state, 64 bits:   pieces left (32) | pieces that workers are in (32)          a claim: left − 1, working + 1
//! ```
//!
//! The pointer to the job's function is written before the pieces are published and read by workers that hold one, so it is valid whenever
//! it is read: the leader does not end the job while a piece is left or held. State and pointer share a cache line of their own, which is
//! all that moves between cores: the leader takes its first piece as it publishes the others, and a claim is one exchange.
//!
//! While a leader holds the team ([`Team::wake`]) workers spin and then yield; otherwise they spin a little, so that the next
//! token finds them awake, and sleep.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use onebit_kernels_cpu::prefetch::prefetch;

use super::Shares;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

/// Cache lines of the leader's stack, from the job's function on, that hold what a job borrows.
const STACK_LINES: usize = 16;
/// One piece that a worker is in; one that is left.
const WORKING: u64 = 1;
const LEFT: u64 = 1 << 32;
/// Most pieces of a job.
const MAX_PIECES: usize = u32::MAX as usize;
/// Pauses before a waiting thread yields: tens of microseconds; few where Miri interprets, so that workers sleep there too.
const SPINS: u32 = if cfg!(miri) { 10 } else { 2_000 };
/// Yields before an idle worker sleeps, when no leader holds the team.
const IDLE_YIELDS: u32 = if cfg!(miri) { 5 } else { 50 };

/// A function of a piece number and a thread number, borrowed for as long as pieces are left or held.
type Job = *const (dyn Fn(usize, usize) + Sync);

/// What a job moves between cores, on a line (two, as some CPUs fetch pairs) of its own.
#[repr(align(128))]
struct Board {
    /// See the module's documentation.
    state: AtomicU64,
    /// The job of the pieces; written by the leader alone, while none is left or held.
    job: UnsafeCell<Option<Job>>,
}

/// On a line of its own: the leader writes it at every job, and workers poll what would lie beside it.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What leader and workers share.
pub(super) struct Team {
    board: Board,
    panicked: AtomicBool,
    /// Held by the leader for as long as it runs jobs.
    lead: Apart<Mutex<()>>,
    awake: AtomicUsize,
    dismissed: AtomicBool,
    bell: (Mutex<()>, Condvar),
}

// SAFETY: `job` is written by the leader alone (it holds `lead`) while no piece is left or held, and read by workers that hold one; the
// state's acquire and release order the two. The function behind it is `Sync`.
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
            board: Board {
                state: AtomicU64::new(0),
                job: UnsafeCell::new(None),
            },
            panicked: AtomicBool::new(false),
            lead: Apart::default(),
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

    /// Cuts two slices into shares of units of so many elements and calls `f(first element of a, piece of a, piece of b, scratch of the thread)`
    /// for each that is not empty.
    ///
    /// # Panics
    /// If `f` does, after every piece has been called; if there are fewer scratches than threads.
    pub(super) fn run_shared<T: Send, U: Send, S: Send>(
        &self,
        shares: Shares,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        scratch: &mut [S],
        f: impl Fn(usize, &mut [T], &mut [U], &mut S) + Sync,
    ) {
        let (a_unit, b_unit) = (a.1, b.1);
        let (a, b, scratch) = (Parts::new(a.0), Parts::new(b.0), Parts::new(scratch));
        self.run(shares.pieces, &|i, thread| {
            let (range, other) = (shares.range(a.len, a_unit, i), shares.range(b.len, b_unit, i));
            assert!(thread < scratch.len, "a scratch for each thread");
            if !range.is_empty() {
                let first = range.start;
                // SAFETY: `run` calls with each piece once, and pieces do not overlap; a thread takes one piece after the other, so its scratch
                // is used by one at a time. Where the leader has no team it is the only thread of its call, with the number 0.
                let (piece, other, scratch) =
                    unsafe { (a.range(range), b.range(other), scratch.range(thread..thread + 1)) };
                f(first, piece, other, &mut scratch[0]);
            }
        });
    }

    /// Calls `f` once with each of `0..pieces` and the number of the thread that does.
    fn run(&self, pieces: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let Some(_lead) = self.try_lead() else {
            return (0..pieces).for_each(|i| f(i, 0));
        };
        let Some(last) = pieces.checked_sub(1) else { return };
        assert!(pieces <= MAX_PIECES, "so many pieces can be counted");
        // SAFETY: the lifetime of `f` is dropped from the type only; no piece is held when this function returns, and none is left
        // to be taken after that.
        let job: Job = unsafe {
            core::mem::transmute::<&(dyn Fn(usize, usize) + Sync), &'static (dyn Fn(usize, usize) + Sync)>(f)
        };
        // SAFETY: this thread leads, and no piece is left or held.
        unsafe { *self.board.job.get() = Some(job) };
        // The last one is the leader's.
        self.board.state.store(last as u64 * LEFT, Ordering::Release);
        self.call(f, last, 0);
        let mut waited = 0;
        loop {
            let state = self.board.state.load(Ordering::Acquire);
            if state >= LEFT {
                let claim =
                    self.board
                        .state
                        .compare_exchange_weak(state, state - LEFT, Ordering::Relaxed, Ordering::Relaxed);
                if claim.is_ok() {
                    self.call(f, (state / LEFT - 1) as usize, 0);
                }
            } else if state != 0 {
                pause(&mut waited);
            } else {
                break;
            }
        }
        let panicked = self.panicked.load(Ordering::Relaxed) && self.panicked.swap(false, Ordering::Relaxed);
        assert!(!panicked, "a piece of the work panicked");
    }

    /// Piece `i`; a panic is kept for the leader.
    fn call(&self, f: &(dyn Fn(usize, usize) + Sync), i: usize, thread: usize) {
        if catch_unwind(AssertUnwindSafe(|| f(i, thread))).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
        }
    }

    fn try_lead(&self) -> Option<MutexGuard<'_, ()>> {
        match self.lead.0.try_lock() {
            Ok(guard) => Some(guard),
            // The leader panicked after its job was over, as `run` does.
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The life of worker `thread`, from 1 on, a number that no other has.
    pub(super) fn work(&self, thread: usize) {
        let mut waited = 0;
        while !self.dismissed.load(Ordering::Acquire) {
            let state = self.board.state.load(Ordering::Relaxed);
            if state < LEFT {
                pause(&mut waited);
                if waited > SPINS + IDLE_YIELDS && self.awake.load(Ordering::Acquire) == 0 {
                    self.sleep();
                    waited = 0;
                }
                continue;
            }
            // Whatever happened since the load: where the state is the same, that piece of that job is left.
            let claimed = state - LEFT + WORKING;
            let claim = (self.board.state).compare_exchange_weak(state, claimed, Ordering::Acquire, Ordering::Relaxed);
            if claim.is_err() {
                continue;
            }
            waited = 0;
            // SAFETY: this thread holds a piece, so the leader does not write; it wrote before it published the pieces.
            if let Some(job) = unsafe { *self.board.job.get() } {
                // What the function borrows lies around it on the leader's stack, one reference behind another: each would be a trip to
                // the other core's cache.
                prefetch(job.cast(), STACK_LINES);
                // SAFETY: the leader waits for this piece before the function's borrow ends.
                self.call(unsafe { &*job }, (state / LEFT - 1) as usize, thread);
            }
            self.board.state.fetch_sub(WORKING, Ordering::Release);
        }
    }

    fn sleep(&self) {
        let mut guard = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        while self.awake.load(Ordering::Acquire) == 0 && !self.dismissed.load(Ordering::Acquire) {
            guard = self.bell.1.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A slice whose parts different threads take.
struct Parts<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: a part is handed to one thread at a time (the condition of `range`), and `T` may change threads.
unsafe impl<T: Send> Sync for Parts<T> {}

impl<T> Parts<T> {
    fn new(slice: &mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
        }
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// `range` ends inside the slice, and overlaps nothing that is taken while the slice is borrowed.
    #[expect(clippy::mut_from_ref, reason = "ranges are disjoint, and the caller takes each once")]
    unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
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
