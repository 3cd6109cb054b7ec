//! What the scheduler needs of the sequences that it reads side by side: a [`Batch`] on CPUs, a `CudaBatch` on a GPU.

use std::ops::Deref;

#[cfg(feature = "cuda")]
use crate::runtime::cuda::{CudaBatch, CudaRuntimeError};
use crate::runtime::{Batch, Executor, PackedModel, RuntimeError, Turn};

/// Sequences that are read side by side. The methods are those of [`Batch`].
pub trait Engine {
    /// Why it refuses.
    type Error;

    /// Tokens of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Forgets all but the first `position` tokens of a sequence.
    fn truncate(&mut self, sequence: usize, position: usize);

    /// Gives sequence `to` the first `positions` tokens of sequence `from`.
    ///
    /// # Errors
    /// As [`Batch::copy`].
    fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<(), Self::Error>;

    /// Reads the tokens of some sequences, and hands the logits of the turns that want them to `each` with their items, perhaps on several threads at once.
    ///
    /// # Errors
    /// As [`Batch::step`].
    fn step<T: Send>(
        &mut self,
        turns: &[Turn<'_>],
        items: &mut [T],
        each: impl Fn(&mut T, &mut [f32]) + Sync,
    ) -> Result<(), Self::Error>;
}

/// What both batches have under the same names.
macro_rules! own_calls {
    ($error:ty) => {
        type Error = $error;

        fn vocab_size(&self) -> usize {
            self.model().config().vocab_size
        }

        fn truncate(&mut self, sequence: usize, position: usize) {
            self.truncate(sequence, position);
        }

        fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<(), $error> {
            self.copy(from, to, positions)
        }

        fn step<T: Send>(
            &mut self,
            turns: &[Turn<'_>],
            items: &mut [T],
            each: impl Fn(&mut T, &mut [f32]) + Sync,
        ) -> Result<(), $error> {
            self.step(turns, items, each)
        }
    };
}

impl<M: Deref<Target = PackedModel>, E: Executor> Engine for Batch<M, E> {
    own_calls!(RuntimeError);
}

#[cfg(feature = "cuda")]
impl Engine for CudaBatch {
    own_calls!(CudaRuntimeError);
}
