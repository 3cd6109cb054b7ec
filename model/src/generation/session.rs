//! The session of a generator, on the CPU or on a GPU.

use std::sync::Arc;

use super::GenerationError;
#[cfg(feature = "cuda")]
use crate::runtime::cuda::CudaSession;
use crate::runtime::{PackedModel, Pool, Sequence, Session, Top};

/// A session, wherever it runs.
pub(super) enum AnySession {
    /// On the CPU, which has the model.
    Cpu(Session<Arc<PackedModel>, Pool>),
    /// On a GPU, and the fingerprint of the model that was copied there.
    #[cfg(feature = "cuda")]
    Gpu(CudaSession, [u8; 32]),
}

impl AnySession {
    /// What [prompt caches](super::prompt_cache) of this session carry: the same on every device.
    pub fn fingerprint(&self) -> [u8; 32] {
        match self {
            AnySession::Cpu(session) => super::prompt_cache::fingerprint(session.model(), session.options().kv),
            #[cfg(feature = "cuda")]
            AnySession::Gpu(_, fingerprint) => *fingerprint,
        }
    }

    /// One on a GPU, of a copy of `model`.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(session: CudaSession, model: &PackedModel) -> Self {
        let fingerprint = super::prompt_cache::fingerprint(model, session.kv());
        AnySession::Gpu(session, fingerprint)
    }
}

impl Sequence for AnySession {
    type Error = GenerationError;

    fn vocab_size(&self) -> usize {
        match self {
            AnySession::Cpu(session) => session.vocab_size(),
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.vocab_size(),
        }
    }

    fn context(&self) -> usize {
        match self {
            AnySession::Cpu(session) => Sequence::context(session),
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.context(),
        }
    }

    fn truncate(&mut self, position: usize) {
        match self {
            AnySession::Cpu(session) => session.truncate(position),
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.truncate(position),
        }
    }

    fn prefill_top(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&[f32], GenerationError> {
        Ok(match self {
            AnySession::Cpu(session) => session.prefill_top(ids, top)?,
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.prefill_top(ids, top)?,
        })
    }

    fn prefill_all_top(
        &mut self,
        ids: &[u32],
        top: Option<Top<'_>>,
        each: impl FnMut(usize, &[f32]),
    ) -> Result<(), GenerationError> {
        match self {
            AnySession::Cpu(session) => session.prefill_all_top(ids, top, each)?,
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.prefill_all_top(ids, top, each)?,
        }
        Ok(())
    }

    fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        match self {
            AnySession::Cpu(session) => session.snapshot_bytes(positions),
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.snapshot_bytes(positions),
        }
    }

    fn snapshot(&self, positions: usize, each: impl FnMut(&[u8])) -> Result<(), GenerationError> {
        match self {
            AnySession::Cpu(session) => session.snapshot(positions, each)?,
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.snapshot(positions, each)?,
        }
        Ok(())
    }

    fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), GenerationError> {
        match self {
            AnySession::Cpu(session) => session.restore(positions, stored, bytes)?,
            #[cfg(feature = "cuda")]
            AnySession::Gpu(session, _) => session.restore(positions, stored, bytes)?,
        }
        Ok(())
    }
}
