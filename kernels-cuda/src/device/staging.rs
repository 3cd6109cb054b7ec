//! Much memory of the GPU brought to the host fast.

use cudarc::driver::result;

use super::{DeviceArray, Element, Gpu, Pinned, Result};

/// Two buffers that the GPU copies to by itself: one is filled while the other is emptied. Memory that is not pinned is copied to at a fraction of that speed.
pub struct Staging {
    gpu: Gpu,
    buffers: [Pinned<u8>; 2],
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").finish_non_exhaustive()
    }
}

impl Staging {
    /// Bytes of a buffer: large enough that the copy's beginning does not count.
    pub const CHUNK: usize = 8 << 20;

    /// Buffers for `gpu`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Staging {
            gpu: gpu.clone(),
            buffers: [gpu.pinned(Self::CHUNK)?, gpu.pinned(Self::CHUNK)?],
        })
    }

    /// Calls `take` with the values of `array`, after everything that was launched, piece by piece and in order, each with the number of its first element.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn read<T: Element>(&mut self, array: &DeviceArray<T>, mut take: impl FnMut(usize, &[T])) -> Result<()> {
        let most = Self::CHUNK / size_of::<T>();
        let pieces: Vec<_> = (0..array.len())
            .step_by(most)
            .map(|first| first..array.len().min(first + most))
            .collect();
        let mut before = None;
        for (i, piece) in pieces.into_iter().enumerate() {
            let [even, odd] = &mut self.buffers;
            let (to, from) = if i % 2 == 0 { (even, odd) } else { (odd, even) };
            let bytes = &mut to.as_mut_slice()[..piece.len() * size_of::<T>()];
            self.gpu.bind()?;
            // SAFETY: as many bytes as the slice of the array has; the buffer is not read before the mark behind the copy was waited for, nor freed before the
            // stream has come to rest.
            unsafe { result::memcpy_dtoh_async(bytes, array.slice(piece.clone()).address(), self.gpu.0.stream)? };
            let done = self.gpu.mark()?;
            if let Some((piece, done)) = before.replace((piece, done)) {
                emptied(from, &piece, &done, &mut take)?;
            }
            if i + 1 == array.len().div_ceil(most)
                && let Some((piece, done)) = before.take()
            {
                emptied(to, &piece, &done, &mut take)?;
            }
        }
        Ok(())
    }
}

fn emptied<T: Element>(
    buffer: &Pinned<u8>,
    piece: &std::ops::Range<usize>,
    done: &super::Event,
    take: &mut impl FnMut(usize, &[T]),
) -> Result<()> {
    done.wait()?;
    let bytes = &buffer.as_slice()[..piece.len() * size_of::<T>()];
    take(piece.start, bytemuck::cast_slice(bytes));
    Ok(())
}
