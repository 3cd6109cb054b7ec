//! The tokens of a step.

use std::ops::Range;

use onebit_engine::Tensor;

use super::Trainer;
use crate::Result;
use crate::data::TokenFile;

/// Inputs and targets of one micro-batch, each `[batch·seq]`.
pub(super) struct Batch {
    pub ids: Tensor,
    pub targets: Tensor,
}

impl Trainer {
    /// The micro-batch of a global index.
    pub(super) fn batch(&self, index: u64) -> Result<Batch> {
        let (ids, targets) = self.batch_ids(index)?;
        let (shape, device) = ([ids.len()], self.network.device());
        Ok(Batch {
            ids: Tensor::from_u32(device, shape, ids)?,
            targets: Tensor::from_u32(device, shape, targets)?,
        })
    }

    /// Its inputs and targets.
    pub(super) fn batch_ids(&self, index: u64) -> Result<(Vec<u32>, Vec<u32>)> {
        let (batch, seq) = (self.options.batch_size, self.options.seq_len);
        self.source.windows(index * batch as u64, batch, seq)
    }
}

/// What tells one training file from another: its length, its tokenizer, and a hash of both ends.
pub(super) fn data_identity(tokens: &TokenFile) -> Result<String> {
    const ENDS: usize = 1 << 12;
    let n = tokens.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tokens.tokenizer().unwrap_or_default());
    let mut ids = Vec::new();
    for range in [0..n.min(ENDS), n.saturating_sub(ENDS)..n] {
        tokens.get(range, &mut ids)?;
        hasher.update(bytemuck::cast_slice(&ids));
    }
    Ok(format!("{n} tokens, {}", hasher.finalize().to_hex()))
}

/// Inputs and targets of windows of `seq + 1` tokens.
pub(super) fn windows_ids(
    tokens: &TokenFile,
    windows: impl Iterator<Item = Range<usize>>,
    seq: usize,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut ids, mut targets, mut window) = (Vec::new(), Vec::new(), Vec::new());
    for range in windows {
        tokens.get(range, &mut window)?;
        ids.extend_from_slice(&window[..seq]);
        targets.extend_from_slice(&window[1..]);
    }
    Ok((ids, targets))
}
