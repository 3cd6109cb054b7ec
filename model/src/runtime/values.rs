//! Values that a model owns, or that lie in memory which others hold: a mapped file, a board's flash.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, Range};

use bytemuck::Pod;

/// Bytes that never change and that any number of [`Values`] lie in.
#[derive(Clone)]
pub struct SharedBytes(Holder);

#[derive(Clone)]
enum Holder {
    Static(&'static [u8]),
    Counted(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl SharedBytes {
    /// Bytes that live as long as the program, such as a board's flash.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Holder::Static(bytes))
    }

    /// Bytes that live as long as any view of them. `holder` must give the same bytes whenever it is asked.
    pub fn new(holder: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        Self(Holder::Counted(holder))
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Holder::Static(bytes) => bytes,
            Holder::Counted(holder) => (**holder).as_ref(),
        }
    }

    /// The little-endian values in `range`. `None` if the range is not inside the bytes, holds no whole number of values, or does not
    /// begin where such a value may lie in memory; nor is there a view of wider values on a machine with the other byte order.
    pub fn view<T: Pod>(&self, range: Range<usize>) -> Option<Values<T>> {
        if cfg!(target_endian = "big") && size_of::<T>() > 1 {
            return None;
        }
        bytemuck::try_cast_slice::<u8, T>(self.bytes().get(range.clone())?).ok()?;
        let shared = self.clone();
        Some(Values(Held::Shared(shared, range, PhantomData)))
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({})", self.bytes().len())
    }
}

/// A slice of values, owned or shared. A clone of shared values is another view of the same memory.
#[derive(Clone)]
pub struct Values<T>(Held<T>);

#[derive(Clone)]
enum Held<T> {
    Owned(Vec<T>),
    Shared(SharedBytes, Range<usize>, PhantomData<T>),
}

impl<T> Values<T> {
    /// Whether the values lie in memory that others hold.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Held::Shared(..))
    }
}

impl<T: Pod> Values<T> {
    /// The values in a vector of their own.
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Held::Owned(values) => values,
            Held::Shared(..) => self.to_vec(),
        }
    }
}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Held::Owned(values))
    }
}

impl<T: Pod> FromIterator<T> for Values<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Vec::from_iter(values).into()
    }
}

impl<T: Pod> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::Owned(values) => values,
            // `view` has seen that the cast is possible.
            Held::Shared(shared, range, _) => shared
                .bytes()
                .get(range.clone())
                .and_then(|bytes| bytemuck::try_cast_slice(bytes).ok())
                .unwrap_or(&[]),
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for Values<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static WORDS: [u32; 4] = [0x3f80_0000, 0x4000_0000, 0, 0];

    fn words() -> SharedBytes {
        SharedBytes::from_static(bytemuck::cast_slice(&WORDS))
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_view_is_the_memory_itself() {
        let view = words().view::<f32>(0..8).unwrap();
        assert_eq!(*view, [1.0, 2.0]);
        assert_eq!(view.as_ptr().cast::<u8>(), words().bytes().as_ptr());
        assert_eq!(view.clone().as_ptr(), view.as_ptr());
        assert!(view.is_shared() && !Values::from(alloc::vec![1.0]).is_shared());
        assert_eq!(view, Values::from(alloc::vec![1.0, 2.0]));
        assert_eq!(view.into_vec(), [1.0, 2.0]);
        let counted = SharedBytes::new(Arc::new(alloc::vec![1u8, 2, 3]));
        assert_eq!(*counted.view::<i8>(1..3).unwrap(), [2, 3]);
    }

    #[test]
    fn what_is_no_slice_of_such_values_is_no_view() {
        let bytes = words();
        assert!(bytes.view::<f32>(0..7).is_none(), "not whole");
        assert!(bytes.view::<f32>(1..5).is_none(), "misaligned");
        assert!(bytes.view::<u8>(9..17).is_none(), "outside");
        #[allow(clippy::reversed_empty_ranges, reason = "a range from a damaged file")]
        let reversed = 4..2;
        assert!(bytes.view::<u8>(reversed).is_none(), "reversed");
        assert!(bytes.view::<u8>(16..16).is_some_and(|view| view.is_empty()));
    }
}
