//! Keys and values of the tokens seen so far.

use alloc::vec::Vec;

use half::f16;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::attention::cached::{self, KvHead, KvMut, KvRef, KvType, key_len, scale_len, value_len};

use super::buffers::{no_memory, product};
use super::session::SessionOptions;
use super::{LONGEST_DRAFT, RuntimeError};
use crate::config::ModelConfig;

const WHAT: &str = "the key-value cache";

/// Up to so many tokens at once the work of attention is shared by blocks of positions, beyond by tokens: as many as are read ahead.
pub(super) const FEW_TOKENS: usize = LONGEST_DRAFT + 1;

/// The cache: a head for each layer and key head, by layer. Room for the context is reserved, and touched only as positions come. What lies
/// past the session's position is never seen by a query, so forgetting tokens costs nothing.
pub(super) struct Cache {
    pub heads: Vec<Head>,
}

impl Cache {
    pub fn new(config: &ModelConfig, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let count = config.num_hidden_layers * config.num_key_value_heads;
        head_bytes(config, options)?;
        let mut heads = Vec::new();
        heads.try_reserve_exact(count).map_err(|_| no_memory(WHAT, count))?;
        for _ in 0..count {
            heads.push(Head::new(options.kv, options.context, config.head_dim)?);
        }
        Ok(Self { heads })
    }
}

/// Bytes of the cache of one key head.
pub(super) fn head_bytes(config: &ModelConfig, options: &SessionOptions) -> Result<usize, RuntimeError> {
    let width = config.head_dim + value_len(1, config.head_dim) / scale_len(1);
    let (row, scales) = match options.kv {
        KvType::F32 => (4 * width, 0),
        KvType::F16 => (2 * width, 0),
        KvType::Int8 => (width, 8),
    };
    let positions =
        (options.context.checked_next_multiple_of(scale_len(1))).ok_or_else(|| no_memory(WHAT, usize::MAX))?;
    product(WHAT, positions, row + scales)
}

/// Values of the parts of every block and key head, for a few tokens.
pub(super) fn parts_len(config: &ModelConfig, options: &SessionOptions) -> Result<usize, RuntimeError> {
    let rows = options.chunk.min(FEW_TOKENS) * config.num_attention_heads;
    let blocks = options.context.div_ceil(cached::BLOCK);
    product(
        "the parts of attention",
        cached::part_len(rows, config.head_dim),
        blocks,
    )
}

/// The keys and values of one key head.
pub(super) struct Head(KvHead<Vec<f32>, Vec<f16>, Vec<i8>>);

fn room<T>(len: usize) -> Result<Vec<T>, RuntimeError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| no_memory(WHAT, len))?;
    Ok(values)
}

/// Makes `values` at least `len` long.
fn lengthen<T: Copy + Default>(values: &mut Vec<T>, len: usize) {
    if values.len() < len {
        values.resize(len, T::default());
    }
}

impl Head {
    fn new(kv: KvType, context: usize, head_dim: usize) -> Result<Self, RuntimeError> {
        let (keys, values, scales) = (
            key_len(context, head_dim),
            value_len(context, head_dim),
            scale_len(context),
        );
        Ok(Self(match kv {
            KvType::F32 => KvHead::F32 {
                keys: room(keys)?,
                values: room(values)?,
            },
            KvType::F16 => KvHead::F16 {
                keys: room(keys)?,
                values: room(values)?,
            },
            KvType::Int8 => KvHead::Int8 {
                keys: room(keys)?,
                values: room(values)?,
                key_scales: room(scales)?,
                value_scales: room(scales)?,
            },
        }))
    }

    /// What queries read.
    pub fn view(&self) -> KvRef<'_> {
        self.0.view()
    }

    /// Its parts as bytes with room for `positions` positions, of which there is enough.
    pub fn parts_mut(&mut self, positions: usize, head_dim: usize) -> [&mut [u8]; 4] {
        super::snapshot::parts_mut(self.view_mut(positions, head_dim))
    }

    /// The same with room for `positions` positions, of which there is enough (nothing is allocated).
    fn view_mut(&mut self, positions: usize, head_dim: usize) -> KvMut<'_> {
        let (key_len, value_len, scale_len) = (
            key_len(positions, head_dim),
            value_len(positions, head_dim),
            scale_len(positions),
        );
        match &mut self.0 {
            KvHead::F32 { keys, values } => {
                lengthen(keys, key_len);
                lengthen(values, value_len);
            }
            KvHead::F16 { keys, values } => {
                lengthen(keys, key_len);
                lengthen(values, value_len);
            }
            KvHead::Int8 {
                keys,
                values,
                key_scales,
                value_scales,
            } => {
                lengthen(keys, key_len);
                lengthen(values, value_len);
                lengthen(key_scales, scale_len);
                lengthen(value_scales, scale_len);
            }
        }
        self.0.view_mut()
    }

    /// Stores the keys and values of `tokens` tokens from position `first` on; rows are `stride` apart.
    pub fn store(
        &mut self,
        isa: Isa,
        head_dim: usize,
        [first, tokens]: [usize; 2],
        keys: &[f32],
        values: &[f32],
        stride: usize,
    ) {
        let kv = self.view_mut(first + tokens, head_dim);
        cached::store(isa, kv, head_dim, first, keys, values, stride);
    }
}
