//! What reads tokens and answers with logits, wherever it runs.

use core::ops::Deref;

use super::RuntimeError;
use super::executor::Executor;
use super::session::Session;
use super::sketch::Top;
use super::weights::PackedModel;

/// A sequence being read and written: a [`Session`], or one on a GPU. Whichever it is, the logits are the same, bit for bit, and so are the bytes of the
/// positions that a snapshot holds.
pub trait Sequence {
    /// What can go wrong.
    type Error: From<RuntimeError>;

    /// Logits of a token.
    fn vocab_size(&self) -> usize;

    /// Tokens that there is room for.
    fn context(&self) -> usize;

    /// As [`Session::truncate`].
    fn truncate(&mut self, position: usize);

    /// As [`Session::prefill_top`]. Logits that cannot be among the `top` may be there or not.
    ///
    /// # Errors
    /// As there, and those of the device; the session is then unchanged but for what a device's failure leaves.
    fn prefill_top(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&[f32], Self::Error>;

    /// As [`Session::prefill_all_top`].
    ///
    /// # Errors
    /// As [`prefill_top`](Self::prefill_top).
    fn prefill_all_top(
        &mut self,
        ids: &[u32],
        top: Option<Top<'_>>,
        each: impl FnMut(usize, &[f32]),
    ) -> Result<(), Self::Error>;

    /// As [`Session::snapshot_bytes`].
    fn snapshot_bytes(&self, positions: usize) -> Option<usize>;

    /// As [`Session::snapshot`].
    ///
    /// # Errors
    /// As there, and those of the device.
    fn snapshot(&self, positions: usize, each: impl FnMut(&[u8])) -> Result<(), Self::Error>;

    /// As [`Session::restore`].
    ///
    /// # Errors
    /// As there, and those of the device; nothing is held then.
    fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), Self::Error>;
}

impl<M: Deref<Target = PackedModel>, E: Executor> Sequence for Session<M, E> {
    type Error = RuntimeError;

    fn vocab_size(&self) -> usize {
        self.model().config().vocab_size
    }

    fn context(&self) -> usize {
        self.options().context
    }

    fn truncate(&mut self, position: usize) {
        self.truncate(position);
    }

    fn prefill_top(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&[f32], RuntimeError> {
        self.prefill_top(ids, top)
    }

    fn prefill_all_top(
        &mut self,
        ids: &[u32],
        top: Option<Top<'_>>,
        each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.prefill_all_top(ids, top, each)
    }

    fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        self.snapshot_bytes(positions)
    }

    fn snapshot(&self, positions: usize, each: impl FnMut(&[u8])) -> Result<(), RuntimeError> {
        self.snapshot(positions, each)
    }

    fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), RuntimeError> {
        self.restore(positions, stored, bytes)
    }
}
