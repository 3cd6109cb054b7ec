//! Memory of tensors, recycled.
//!
//! A training step allocates the same sizes again and again; asking the operating system for fresh pages each time costs
//! more than some kernels. A dropped [`Buffer`] therefore goes to a pool, keyed by length, and the next one of that length
//! takes it back. The pool keeps at most [`POOL_LIMIT`] bytes.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Bytes that a pool keeps at most, per element type.
const POOL_LIMIT: usize = 1 << 30;

/// Free memory of one element type.
pub(crate) struct Pool<T> {
    free: HashMap<usize, Vec<Vec<T>>>,
    bytes: usize,
}

/// Element types that have a pool.
pub(crate) trait Element: Copy + Default + Send + 'static {
    fn pool() -> &'static Mutex<Pool<Self>>;
}

macro_rules! element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            fn pool() -> &'static Mutex<Pool<Self>> {
                static POOL: LazyLock<Mutex<Pool<$t>>> =
                    LazyLock::new(|| Mutex::new(Pool { free: HashMap::new(), bytes: 0 }));
                &POOL
            }
        }
    )*};
}
element!(f32, i8, i32, u8, u32);

/// A vector that returns to the pool when dropped.
pub(crate) struct Buffer<T: Element>(Vec<T>);

impl<T: Element> Buffer<T> {
    /// `len` elements of unspecified (but initialised) content, for callers that write all of them.
    pub(crate) fn for_overwrite(len: usize) -> Self {
        let mut pool = T::pool().lock().unwrap_or_else(PoisonError::into_inner);
        match pool.free.get_mut(&len).and_then(Vec::pop) {
            Some(v) => {
                pool.bytes -= len * size_of::<T>();
                Buffer(v)
            }
            None => Buffer(vec![T::default(); len]),
        }
    }

    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut b = Self::for_overwrite(len);
        b.fill(T::default());
        b
    }
}

impl<T: Element> From<Vec<T>> for Buffer<T> {
    fn from(v: Vec<T>) -> Self {
        Buffer(v)
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let v = std::mem::take(&mut self.0);
        let bytes = v.len() * size_of::<T>();
        let mut pool = T::pool().lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > 0 && pool.bytes + bytes <= POOL_LIMIT {
            pool.bytes += bytes;
            pool.free.entry(v.len()).or_default().push(v);
        }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Element> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer of {} elements", self.0.len())
    }
}

impl<T: Element> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut b = Self::for_overwrite(self.len());
        b.copy_from_slice(self);
        b
    }
}
