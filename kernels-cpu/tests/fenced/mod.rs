//! Slices between pages that may not be touched.

pub use pages::Fenced;

/// At which fence the slice lies.
#[derive(Clone, Copy)]
pub enum Fence {
    Before,
    After,
}

/// A slice between two pages that may not be touched.
#[cfg(not(miri))]
mod pages {
    use std::ffi::c_void;
    use std::ops::{Deref, DerefMut};
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    use super::Fence;

    const PAGE: usize = 4096;

    /// A slice between two pages that may not be touched.
    pub struct Fenced<T> {
        map: NonNull<c_void>,
        bytes: usize,
        start: *mut T,
        len: usize,
    }

    impl<T: Copy> Fenced<T> {
        pub fn new(fence: Fence, values: impl IntoIterator<Item = T>) -> Self {
            let values: Vec<T> = values.into_iter().collect();
            let inner = size_of_val(&values[..]).next_multiple_of(PAGE).max(PAGE);
            let bytes = inner + 2 * PAGE;
            let all = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a mapping of its own; only the pages between the fences are handed out, and `len` values fit there.
            unsafe {
                let map = mmap_anonymous(null_mut(), bytes, all, MapFlags::PRIVATE).expect("memory");
                let first = map.cast::<u8>().add(PAGE);
                mprotect(map, PAGE, MprotectFlags::empty()).expect("a fence before");
                mprotect(first.add(inner).cast(), PAGE, MprotectFlags::empty()).expect("a fence after");
                let start = match fence {
                    Fence::Before => first,
                    Fence::After => first.add(inner - size_of_val(&values[..])),
                }
                .cast::<T>();
                start.copy_from_nonoverlapping(values.as_ptr(), values.len());
                Self {
                    map: NonNull::new(map).expect("a mapping"),
                    bytes,
                    start,
                    len: values.len(),
                }
            }
        }
    }

    impl<T> Deref for Fenced<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            // SAFETY: `new` wrote `len` values there.
            unsafe { std::slice::from_raw_parts(self.start, self.len) }
        }
    }

    impl<T> DerefMut for Fenced<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: as above, and the mapping belongs to this value alone.
            unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
        }
    }

    impl<T> Drop for Fenced<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, and nothing borrows from it any more.
            unsafe { munmap(self.map.as_ptr(), self.bytes) }.expect("unmapped");
        }
    }
}

/// Miri fences every allocation, to the byte.
#[cfg(miri)]
mod pages {
    pub struct Fenced<T>(Box<[T]>);

    impl<T: Copy> Fenced<T> {
        pub fn new(_: super::Fence, values: impl IntoIterator<Item = T>) -> Self {
            Self(values.into_iter().collect())
        }
    }

    impl<T> std::ops::Deref for Fenced<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> std::ops::DerefMut for Fenced<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }
}
