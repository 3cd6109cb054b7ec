//! A sequence on a GPU.

use std::ops::Range;

use onebit_kernels_cpu::rope::rope_table;
use onebit_kernels_cuda::decode::{DecodeState, KvCache, KvKind, Logits, Room, Rotation};
use onebit_kernels_cuda::{Gpu, Pinned};

use super::recordings::{Recordings, STEPS};
use super::{CudaModel, CudaRuntimeError};
use crate::config::ModelConfig;
use crate::runtime::{KvType, RuntimeError, Sequence, Top};

/// A sequence being read and written on a GPU: [`Session`](crate::runtime::Session) with the same calls and the same logits.
pub struct CudaSession {
    model: CudaModel,
    state: DecodeState,
    recordings: Recordings,
    context: usize,
    kv: KvType,
    position: usize,
    /// Those of one token, `[vocab_size]`.
    logits: Pinned<f32>,
}

/// The form in which the kernels keep keys and values.
pub(super) fn kv_kind(kv: KvType) -> KvKind {
    match kv {
        KvType::F32 => KvKind::F32,
        KvType::F16 => KvKind::F16,
        KvType::Int8 => KvKind::Int8,
    }
}

/// The rotations of a context.
pub(super) fn rotation(gpu: &Gpu, config: &ModelConfig, context: usize) -> Result<Rotation, CudaRuntimeError> {
    // The cache is whole blocks of positions.
    let rows = context.next_multiple_of(128) * config.head_dim / 2;
    let (mut cos, mut sin) = (vec![0.0; rows], vec![0.0; rows]);
    rope_table(config.rope_theta, config.head_dim, 0, &mut cos, &mut sin);
    Ok(Rotation {
        cos: gpu.upload(&cos)?,
        sin: gpu.upload(&sin)?,
    })
}

impl CudaSession {
    /// An empty session of `context` tokens, keys and values kept as `kv`.
    ///
    /// # Errors
    /// [`RuntimeError::Option`] for a context that the model does not have; heads that attention has no kernel for; not enough memory.
    pub fn new(model: &CudaModel, context: usize, kv: KvType) -> Result<Self, CudaRuntimeError> {
        let (gpu, config) = (&model.gpu, model.config());
        let limit = config.max_position_embeddings;
        if context == 0 || context > limit {
            let error = RuntimeError::Option {
                name: "context",
                found: context,
                limit,
            };
            return Err(error.into());
        }
        let rotation = rotation(gpu, config, context)?;
        let room = Room::new(&model.model.shape, context);
        let state = DecodeState::new(gpu, &model.model, kv_kind(kv), room, rotation)?;
        let recordings = Recordings::new(model, &state, context)?;
        if room.chunk > 0 {
            gpu.compile_for(|| model.model.prefill(gpu, &state, room.chunk))?;
        }
        Ok(CudaSession {
            model: model.clone(),
            state,
            recordings,
            context,
            kv,
            position: 0,
            logits: gpu.pinned(config.vocab_size)?,
        })
    }

    /// The model.
    pub fn model(&self) -> &CudaModel {
        &self.model
    }

    /// Tokens that there is room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens of a prompt that are read at once.
    pub fn chunk(&self) -> usize {
        let Room { tokens, chunk, .. } = self.state.room();
        tokens.max(chunk)
    }

    /// How keys and values are kept.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    pub(super) fn gpu(&self) -> &Gpu {
        &self.model.gpu
    }

    pub(super) fn cache(&self) -> &KvCache {
        &self.state.cache
    }

    /// Says that `positions` tokens are held now.
    pub(super) fn held(&mut self, positions: usize) {
        self.position = positions;
    }

    /// Tokens held.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Forgets all but the first `position` tokens; no change if fewer are held.
    pub fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Reads `ids` after what is held and returns the logits after the last of them, `[vocab_size]`.
    ///
    /// # Errors
    /// [`RuntimeError::EmptyInput`], [`RuntimeError::ContextFull`] or [`RuntimeError::UnknownToken`], the session being unchanged then; the GPU's.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<&[f32], CudaRuntimeError> {
        self.check(ids)?;
        let mut rows = 0;
        for ids in ids.chunks(self.chunk()) {
            self.read(ids)?;
            rows = ids.len();
        }
        self.head(rows - 1..rows)?;
        self.download(0)
    }

    /// Reads `ids` and calls `each(i, logits)` for every one of them in order, with the logits `[vocab_size]` after `ids[i]`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn prefill_all(&mut self, ids: &[u32], mut each: impl FnMut(usize, &[f32])) -> Result<(), CudaRuntimeError> {
        self.check(ids)?;
        let (chunk, few) = (self.chunk(), self.state.room().tokens);
        for (i, ids) in ids.chunks(chunk).enumerate() {
            self.read(ids)?;
            // The head has room for fewer tokens.
            for first in (0..ids.len()).step_by(few) {
                let rows = first..ids.len().min(first + few);
                self.head(rows.clone())?;
                for row in rows {
                    each(chunk * i + row, self.download(row - first)?);
                }
            }
        }
        Ok(())
    }

    /// Reads one token and returns the logits after it, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub fn decode(&mut self, id: u32) -> Result<&[f32], CudaRuntimeError> {
        self.check(&[id])?;
        self.state.place(&self.model.gpu, self.position, &[id], self.position)?;
        self.recordings
            .up_to(self.position + 1, &self.model, &self.state)?
            .step
            .launch()?;
        self.position += 1;
        self.download(0)
    }

    /// Reads `id` and then `count - 1` tokens, each the one with the largest logit after those before (of equals the lowest), and returns the `count`
    /// tokens so chosen, of which the last is not read yet. The host waits only at the end.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), for `count` tokens.
    pub fn greedy(&mut self, id: u32, count: usize) -> Result<Vec<u32>, CudaRuntimeError> {
        self.check_room(count)?;
        self.check(&[id])?;
        let gpu = &self.model.gpu;
        self.state.place(gpu, self.position, &[id], self.position)?;
        let end = self.position + count;
        while self.position < end {
            let tokens = if end - self.position >= STEPS { STEPS } else { 1 };
            let until = self.position + tokens;
            let recorded = self.recordings.up_to(until, &self.model, &self.state)?;
            let graph = if tokens == STEPS {
                &recorded.steps
            } else {
                &recorded.step
            };
            graph.launch()?;
            self.position = until;
        }
        // The last token of a full context has no place of its own.
        let mut ids = gpu.download(&self.state.output.ids.slice(self.position + 1 - count..self.position))?;
        ids.push(gpu.download(&self.state.output.best.slice(..1))?[0]);
        Ok(ids)
    }

    /// Launches the tokens of `ids`, at most [`chunk`](Self::chunk), without their logits: those of a step in one if they are that few.
    fn read(&mut self, ids: &[u32]) -> Result<(), CudaRuntimeError> {
        let (gpu, model) = (&self.model.gpu, &self.model.model);
        self.state.place(gpu, self.position, ids, self.position)?;
        if ids.len() <= self.state.room().tokens {
            let state = self.state.expecting(self.position + ids.len());
            model.step(gpu, &state, ids.len(), Logits::None)?;
        } else {
            model.prefill(gpu, &self.state, ids.len())?;
        }
        self.position += ids.len();
        Ok(())
    }

    /// Launches the head for tokens `rows` of what was read last.
    fn head(&self, rows: Range<usize>) -> Result<(), CudaRuntimeError> {
        Ok(self.model.model.logits(&self.model.gpu, &self.state, rows, 0)?)
    }

    /// The logits of token `row` of the last launch.
    fn download(&mut self, row: usize) -> Result<&[f32], CudaRuntimeError> {
        let (gpu, vocab) = (&self.model.gpu, self.model.config().vocab_size);
        let logits = self.state.logits.slice(row * vocab..(row + 1) * vocab);
        gpu.read_pinned(&logits, &mut self.logits)?;
        gpu.synchronize()?;
        Ok(self.logits.as_slice())
    }

    pub(super) fn check_room(&self, tokens: usize) -> Result<(), RuntimeError> {
        if tokens > self.context - self.position {
            return Err(RuntimeError::ContextFull {
                position: self.position,
                more: tokens,
                limit: self.context,
            });
        }
        Ok(())
    }

    fn check(&self, ids: &[u32]) -> Result<(), RuntimeError> {
        let vocab_size = self.model.config().vocab_size;
        if ids.is_empty() {
            return Err(RuntimeError::EmptyInput);
        }
        self.check_room(ids.len())?;
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(index) => Err(RuntimeError::UnknownToken {
                id: ids[index],
                index,
                vocab_size,
            }),
            None => Ok(()),
        }
    }
}

impl Sequence for CudaSession {
    type Error = CudaRuntimeError;

    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn context(&self) -> usize {
        self.context
    }

    fn truncate(&mut self, position: usize) {
        self.truncate(position);
    }

    /// With every logit: the whole head costs less here than a search in it.
    fn prefill_top(&mut self, ids: &[u32], _: Option<Top<'_>>) -> Result<&[f32], CudaRuntimeError> {
        match *ids {
            [id] => self.decode(id),
            _ => self.prefill(ids),
        }
    }

    fn prefill_all_top(
        &mut self,
        ids: &[u32],
        _: Option<Top<'_>>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), CudaRuntimeError> {
        match *ids {
            [id] => {
                each(0, self.decode(id)?);
                Ok(())
            }
            _ => self.prefill_all(ids, each),
        }
    }

    fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        self.snapshot_bytes(positions)
    }

    fn snapshot(&self, positions: usize, each: impl FnMut(&[u8])) -> Result<(), CudaRuntimeError> {
        self.snapshot(positions, each)
    }

    fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), CudaRuntimeError> {
        self.restore(positions, stored, bytes)
    }
}
