//! Keys and values as bytes, so that what was read once need not be read again by another process.
//!
//! For each key head, by layer: keys, values and, for int8, the scales of both, in whole panels of positions (the layout of
//! [`onebit_kernels_cpu::attention::cached`]), in this machine's byte order. The first positions of each part lie at its beginning, so a
//! snapshot can also be taken up in part.

use core::ops::Deref;

use onebit_kernels_cpu::attention::cached::{KvHead, KvType, key_len, scale_len, value_len};

use super::RuntimeError;
use super::executor::Executor;
use super::session::Session;
use super::weights::PackedModel;
use crate::config::ModelConfig;

/// Bytes of the parts of one head.
pub(super) fn part_bytes(kv: KvType, positions: usize, head_dim: usize) -> [usize; 4] {
    let scales = match kv {
        KvType::Int8 => 4 * scale_len(positions),
        KvType::F32 | KvType::F16 => 0,
    };
    let width = kv.value_bytes();
    [
        width * key_len(positions, head_dim),
        width * value_len(positions, head_dim),
        scales,
        scales,
    ]
}

/// Bytes of `positions` positions of a model; `None` where no machine has so many.
pub(super) fn bytes_of(config: &ModelConfig, kv: KvType, positions: usize) -> Option<usize> {
    let heads = config.num_hidden_layers * config.num_key_value_heads;
    // A token's bytes times the positions, rounded up to panels, must be a number before it is computed exactly.
    let widest = part_bytes(KvType::F32, 1, config.head_dim).iter().sum::<usize>();
    positions.checked_mul(widest)?.checked_mul(heads)?;
    let head: usize = part_bytes(kv, positions, config.head_dim).iter().sum();
    head.checked_mul(heads)
}

/// The parts of one head as bytes.
pub(super) fn parts<'a>(kv: KvHead<&'a [f32], &'a [half::f16], &'a [i8]>) -> [&'a [u8]; 4] {
    use bytemuck::cast_slice;
    match kv {
        KvHead::F32 { keys, values } => [cast_slice(keys), cast_slice(values), &[], &[]],
        KvHead::F16 { keys, values } => [cast_slice(keys), cast_slice(values), &[], &[]],
        KvHead::Int8 {
            keys,
            values,
            key_scales,
            value_scales,
        } => [
            cast_slice(keys),
            cast_slice(values),
            cast_slice(key_scales),
            cast_slice(value_scales),
        ],
    }
}

/// The same, to be changed.
pub(super) fn parts_mut<'a>(kv: KvHead<&'a mut [f32], &'a mut [half::f16], &'a mut [i8]>) -> [&'a mut [u8]; 4] {
    use bytemuck::cast_slice_mut;
    match kv {
        KvHead::F32 { keys, values } => [cast_slice_mut(keys), cast_slice_mut(values), &mut [], &mut []],
        KvHead::F16 { keys, values } => [cast_slice_mut(keys), cast_slice_mut(values), &mut [], &mut []],
        KvHead::Int8 {
            keys,
            values,
            key_scales,
            value_scales,
        } => [
            cast_slice_mut(keys),
            cast_slice_mut(values),
            cast_slice_mut(key_scales),
            cast_slice_mut(value_scales),
        ],
    }
}

impl<M: Deref<Target = PackedModel>, E: Executor> Session<M, E> {
    /// Bytes of a snapshot of `positions` tokens; `None` where no machine has so many.
    pub fn snapshot_bytes(&self, positions: usize) -> Option<usize> {
        bytes_of(self.model().config(), self.options().kv, positions)
    }

    /// Hands the keys and values of the first `positions` tokens to `each`, piece by piece: [`snapshot_bytes`](Self::snapshot_bytes) in all.
    ///
    /// # Errors
    /// [`RuntimeError::Snapshot`] if fewer are held.
    pub fn snapshot(&self, positions: usize, mut each: impl FnMut(&[u8])) -> Result<(), RuntimeError> {
        if positions > self.position() {
            return Err(RuntimeError::Snapshot {
                expected: positions,
                found: self.position(),
            });
        }
        if positions == 0 {
            return Ok(());
        }
        let lengths = part_bytes(self.options().kv, positions, self.model().config().head_dim);
        for head in self.heads() {
            for (part, length) in parts(head.view()).into_iter().zip(lengths) {
                each(&part[..length]);
            }
        }
        Ok(())
    }

    /// Takes up the first `positions` tokens of a snapshot of `stored`, in place of what is held. The bytes must come from a session over the same
    /// weights with the same [`KvType`], or the logits are those of nothing.
    ///
    /// # Errors
    /// [`RuntimeError::ContextFull`], or [`RuntimeError::Snapshot`] where the bytes are not those of so many tokens; the session is then unchanged.
    pub fn restore(&mut self, positions: usize, stored: usize, bytes: &[u8]) -> Result<(), RuntimeError> {
        let limit = self.options().context;
        if positions > limit {
            return Err(RuntimeError::ContextFull {
                position: 0,
                more: positions,
                limit,
            });
        }
        let expected = self.snapshot_bytes(stored).filter(|_| positions <= stored);
        if expected != Some(bytes.len()) {
            return Err(RuntimeError::Snapshot {
                expected: expected.unwrap_or(usize::MAX),
                found: bytes.len(),
            });
        }
        self.reset();
        if positions == 0 {
            return Ok(());
        }
        let (kv, head_dim) = (self.options().kv, self.model().config().head_dim);
        let (lengths, strides) = (part_bytes(kv, positions, head_dim), part_bytes(kv, stored, head_dim));
        let mut rest = bytes;
        for head in self.heads_mut() {
            let parts = head.parts_mut(positions, head_dim);
            for ((part, length), stride) in parts.into_iter().zip(lengths).zip(strides) {
                let (stored, after) = rest.split_at(stride);
                part[..length].copy_from_slice(&stored[..length]);
                rest = after;
            }
        }
        self.held(positions);
        Ok(())
    }
}
