//! A session takes its memory when it opens and none afterwards.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{every_option, random_ids, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_model::runtime::{FloatStorage, KvType, Serial, Session, SessionOptions};

/// Counts what the current thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call is passed on to the system's allocator; counting touches thread-local cells that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's layout, unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's pointer and layout, unchanged.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_allocation_after_the_session_opens() {
    let kinds = KvType::ALL.map(|kv| (kv, FloatStorage::Stored));
    for ((kv, storage), (name, config)) in kinds
        .into_iter()
        .chain([(KvType::F32, FloatStorage::Int4)])
        .flat_map(|kind| every_option().into_iter().map(move |option| (kind, option)))
    {
        let model = random_model(&config, 1, storage);
        let ids = random_ids(config.vocab_size, 40, 2);
        let options = SessionOptions {
            context: 48,
            chunk: 16,
            logit_rows: 4,
            kv,
        };
        let needed = options.memory_bytes(&config, &Serial).unwrap();
        let before = BYTES.get();
        let mut session = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let taken = BYTES.get() - before;
        // The input of an int4 head is not announced: it depends on the weights.
        let rounded = if storage == FloatStorage::Int4 {
            options.logit_rows * int4_gemv::blocks(config.hidden_size) * size_of::<InputBlock>()
        } else {
            0
        };
        let needed = needed + rounded;
        // What the sum leaves out is the lists of buffers: a few words for each key head and layer.
        let lists = 128 * config.num_hidden_layers * config.num_key_value_heads + 256;
        assert!(
            (needed..needed + lists).contains(&taken),
            "{name}: {taken} taken, {needed} announced"
        );

        let before = ALLOCATIONS.get();
        session.prefill(&ids).unwrap();
        for &id in &ids[..8] {
            session.decode(id).unwrap();
        }
        session.decode(0).unwrap_err();
        session.truncate(3);
        session.prefill_all(&ids, |_, _| ()).unwrap();
        assert_eq!(ALLOCATIONS.get() - before, 0, "{name}");
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0u8; 10]));
    assert_eq!(ALLOCATIONS.get() - before, 1, "the counter counts");
}
