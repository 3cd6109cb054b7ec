//! Keys and values of a session on a GPU as the bytes that [`Session::snapshot`](crate::runtime::Session::snapshot) gives: what one has read the other can take up.

use onebit_kernels_cuda::DeviceArray;

use super::{CudaRuntimeError, CudaSession};
use crate::runtime::RuntimeError;
use crate::runtime::snapshot::part_bytes;

impl CudaSession {
    fn part_bytes(&self, positions: usize) -> [usize; 4] {
        part_bytes(self.kv(), positions, self.model().config().head_dim)
    }

    /// As [`Session::snapshot_bytes`](crate::runtime::Session::snapshot_bytes).
    pub fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        crate::runtime::snapshot::bytes_of(self.model().config(), self.kv(), positions)
    }

    /// As [`Session::snapshot`](crate::runtime::Session::snapshot).
    ///
    /// # Errors
    /// As there; the GPU's.
    pub fn snapshot(&self, positions: usize, mut each: impl FnMut(&[u8])) -> Result<(), CudaRuntimeError> {
        if positions > self.position() {
            return Err(RuntimeError::Snapshot {
                expected: positions,
                found: self.position(),
            }
            .into());
        }
        if positions == 0 {
            return Ok(());
        }
        let lengths = self.part_bytes(positions);
        for head in self.cache().heads() {
            for (part, length) in head.iter().zip(lengths).filter(|(_, length)| *length > 0) {
                each(&self.gpu().download(&part.slice(..length))?);
            }
        }
        Ok(())
    }

    /// As [`Session::restore`](crate::runtime::Session::restore).
    ///
    /// # Errors
    /// As there; the GPU's, and nothing is held then.
    pub fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), CudaRuntimeError> {
        self.reset();
        self.check_room(positions)?;
        let expected = self.snapshot_bytes(stored).filter(|_| positions <= stored);
        if expected != Some(bytes.len()) {
            return Err(RuntimeError::Snapshot {
                expected: expected.unwrap_or(usize::MAX),
                found: bytes.len(),
            }
            .into());
        }
        if positions == 0 {
            return Ok(());
        }
        let (lengths, strides) = (self.part_bytes(positions), self.part_bytes(stored));
        let mut rest = bytes;
        for head in self.cache().heads() {
            let parts: [DeviceArray<u8>; 4] = head;
            for ((part, length), stride) in parts.iter().zip(lengths).zip(strides) {
                let (stored, after) = rest.split_at(stride);
                self.gpu().write(&part.slice(..length), &stored[..length])?;
                rest = after;
            }
        }
        self.held(positions);
        Ok(())
    }
}
