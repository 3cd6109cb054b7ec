//! The session of a generator, on the CPU or on a GPU.

use std::sync::Arc;

use super::GenerationError;
use crate::runtime::cuda::CudaSession;
use crate::runtime::{KvType, PackedModel, Pool, Sequence, Session, Top};

/// A session, wherever it runs.
pub(super) enum AnySession {
    /// On the CPU, which has the model.
    Cpu(Session<Arc<PackedModel>, Pool>),
    /// On a GPU, and the fingerprint of the model that was copied there.
    Gpu(CudaSession, [u8; 32]),
}

impl AnySession {
    /// What [prompt caches](super::prompt_cache) of this session carry: the same on every device.
    pub fn fingerprint(&self) -> [u8; 32] {
        match self {
            AnySession::Cpu(session) => super::prompt_cache::fingerprint(session.model(), session.options().kv),
            AnySession::Gpu(_, fingerprint) => *fingerprint,
        }
    }

    /// One on a GPU, of a copy of `model`.
    pub fn on_gpu(session: CudaSession, model: &PackedModel) -> Self {
        let kv: KvType = session.kv();
        AnySession::Gpu(session, super::prompt_cache::fingerprint(model, kv))
    }
}

impl Sequence for AnySession {
    type Error = GenerationError;

    fn vocab_size(&self) -> usize {
        match self {
            AnySession::Cpu(session) => session.vocab_size(),
            AnySession::Gpu(session, _) => session.vocab_size(),
        }
    }

    fn context(&self) -> usize {
        match self {
            AnySession::Cpu(session) => Sequence::context(session),
            AnySession::Gpu(session, _) => session.context(),
        }
    }

    fn truncate(&mut self, position: usize) {
        match self {
            AnySession::Cpu(session) => session.truncate(position),
            AnySession::Gpu(session, _) => session.truncate(position),
        }
    }

    fn prefill_top(&mut self, ids: &[u32], top: Option<Top<'_>>) -> Result<&[f32], GenerationError> {
        Ok(match self {
            AnySession::Cpu(session) => session.prefill_top(ids, top)?,
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
            AnySession::Gpu(session, _) => session.prefill_all_top(ids, top, each)?,
        }
        Ok(())
    }

    fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        match self {
            AnySession::Cpu(session) => session.snapshot_bytes(positions),
            AnySession::Gpu(session, _) => session.snapshot_bytes(positions),
        }
    }

    fn snapshot(&self, positions: usize, each: impl FnMut(&[u8])) -> Result<(), GenerationError> {
        match self {
            AnySession::Cpu(session) => session.snapshot(positions, each)?,
            AnySession::Gpu(session, _) => session.snapshot(positions, each)?,
        }
        Ok(())
    }

    fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), GenerationError> {
        match self {
            AnySession::Cpu(session) => session.restore(positions, stored, bytes)?,
            AnySession::Gpu(session, _) => session.restore(positions, stored, bytes)?,
        }
        Ok(())
    }
}
