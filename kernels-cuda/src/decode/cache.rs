//! Keys and values of one sequence or of many.

use crate::device::{DeviceArray, Gpu, Result};

/// Positions of a block.
pub(super) const POSITIONS: usize = 128;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvKind {
    /// As they are computed.
    F32,
    /// Half precision.
    F16,
    /// Bytes, with a scale for each position and head.
    Int8,
}

impl KvKind {
    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            KvKind::F32 => 4,
            KvKind::F16 => 2,
            KvKind::Int8 => 1,
        }
    }

    /// Of the names of a kernel for f32, f16 and int8 the one for this.
    pub(super) fn of_three(self, [f32, f16, int8]: [&'static str; 3]) -> &'static str {
        match self {
            KvKind::F32 => f32,
            KvKind::F16 => f16,
            KvKind::Int8 => int8,
        }
    }
}

/// Keys and values of all layers of one sequence or of several, each `[sequences, layers, kv_heads, context, head_dim]`: of a key head panels of 64 transposed keys, as on the CPU, and rows of
/// values, here without padding.
#[derive(Clone, Debug)]
pub struct KvCache {
    pub(super) kind: KvKind,
    sequences: usize,
    layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) context: usize,
    keys: DeviceArray<u8>,
    values: DeviceArray<u8>,
    /// `[sequences, layers, kv_heads, context]` of keys, then of values; int8 alone.
    scales: Option<[DeviceArray<f32>; 2]>,
}

impl KvCache {
    /// With room for `context` positions, rounded up to 128.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`](crate::CudaError::OutOfMemory).
    pub fn new(
        gpu: &Gpu,
        kind: KvKind,
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        context: usize,
    ) -> Result<Self> {
        Self::many(gpu, kind, layers, kv_heads, head_dim, context, 1)
    }

    /// The caches of so many sequences, one behind the other.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`](crate::CudaError::OutOfMemory).
    pub fn many(
        gpu: &Gpu,
        kind: KvKind,
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        context: usize,
        sequences: usize,
    ) -> Result<Self> {
        let context = context.next_multiple_of(POSITIONS);
        let positions = sequences * layers * kv_heads * context;
        let scales = match kind {
            KvKind::Int8 => Some([gpu.zeros(positions)?, gpu.zeros(positions)?]),
            _ => None,
        };
        Ok(KvCache {
            kind,
            sequences,
            layers,
            kv_heads,
            head_dim,
            context,
            keys: gpu.zeros(positions * head_dim * kind.bytes())?,
            values: gpu.zeros(positions * head_dim * kind.bytes())?,
            scales,
        })
    }

    /// Sequences.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Positions of a head that lie between a sequence's memory and the next one's.
    pub(super) fn apart(&self) -> usize {
        self.layers * self.kv_heads * self.context
    }

    /// The memory of each key head, by sequence and layer: keys, values, and the scales of both (empty but for int8). The first positions lie at its beginning, of keys in
    /// whole panels of 64.
    pub fn heads(&self) -> impl Iterator<Item = [DeviceArray<u8>; 4]> {
        (0..self.sequences * self.layers * self.kv_heads).map(|head| self.head(head))
    }

    /// The memory of one of them.
    fn head(&self, head: usize) -> [DeviceArray<u8>; 4] {
        let bytes = self.context * self.head_dim * self.kind.bytes();
        let part = |array: &DeviceArray<u8>, bytes: usize| array.slice(head * bytes..(head + 1) * bytes);
        let scales = |i: usize| match &self.scales {
            Some(scales) => part(&scales[i].cast(), 4 * self.context),
            None => self.keys.slice(..0),
        };
        [part(&self.keys, bytes), part(&self.values, bytes), scales(0), scales(1)]
    }

    /// The memory of layer `layer` of the first sequence, up to that of the last one; in between lies that of other layers ([`apart`](Self::apart)).
    pub(super) fn layer(&self, layer: usize) -> CacheLayer {
        let first = layer * self.kv_heads * self.context;
        let end = (self.sequences - 1) * self.apart() + first + self.kv_heads * self.context;
        let bytes = self.head_dim * self.kind.bytes();
        let part = |array: &DeviceArray<u8>| array.slice(first * bytes..end * bytes);
        CacheLayer {
            keys: part(&self.keys),
            values: part(&self.values),
            scales: (self.scales.as_ref()).map(|both| both.each_ref().map(|array| array.slice(first..end))),
        }
    }

    /// Copies the first `positions` positions of sequence `from`, a whole number of panels of 64 or the context, over those of sequence `to`.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn copy(&self, gpu: &Gpu, from: usize, to: usize, positions: usize) -> Result<()> {
        let heads = self.layers * self.kv_heads;
        let bytes = positions * self.head_dim * self.kind.bytes();
        for head in 0..heads {
            let [from, to] = [from, to].map(|sequence| self.head(sequence * heads + head));
            for ((from, to), bytes) in from.iter().zip(&to).zip([bytes, bytes, 4 * positions, 4 * positions]) {
                let bytes = bytes.min(from.len());
                gpu.copy(&from.slice(..bytes), &to.slice(..bytes))?;
            }
        }
        Ok(())
    }

    /// Layers.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Positions that there is room for.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        2 * self.keys.bytes() + self.scales.iter().flatten().map(DeviceArray::bytes).sum::<usize>()
    }
}

/// Keys and values of a layer.
pub(super) struct CacheLayer {
    pub keys: DeviceArray<u8>,
    pub values: DeviceArray<u8>,
    /// Of int8.
    pub scales: Option<[DeviceArray<f32>; 2]>,
}
