//! A token from its id to the next, as one sequence of launches.

use super::{Attention, HeadOutput, KvCache, KvKind, Rotation, VocabularyMatrix, attend, embed, head};
use crate::device::{CudaError, DeviceArray, Gpu, Result};
use crate::ternary_gemv::{
    Epilogue, MOST_NORMED, MOST_TOKENS, TernaryMatrix, norm_quantize, normed_ternary_gemv, ternary_gemv,
};

/// The activation function between up and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardKind {
    /// `max(up, 0)²`
    Relu2,
    /// `max(gate, 0)² · up`
    GatedRelu2,
    /// `gate · σ(gate) · up`
    SwiGlu,
}

/// The sizes of a network.
#[derive(Clone, Copy, Debug)]
pub struct DecodeShape {
    /// Values of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Values between up and down.
    pub inner: usize,
    /// Of every norm.
    pub eps: f32,
    /// What a branch is multiplied by before it is added.
    pub residual_scale: f32,
    /// The activation function.
    pub feed_forward: FeedForwardKind,
}

/// The weights of a block.
#[derive(Clone, Debug)]
pub struct DecodeLayer {
    /// `[hidden]`
    pub input_norm: DeviceArray<f32>,
    /// `[hidden]`
    pub post_attention_norm: DeviceArray<f32>,
    /// Of queries and of keys, `[head_dim]`.
    pub qk_norms: Option<[DeviceArray<f32>; 2]>,
    /// `[heads · head_dim]`
    pub attn_sub_norm: Option<DeviceArray<f32>>,
    /// `[inner]`
    pub ffn_sub_norm: Option<DeviceArray<f32>>,
    /// q over k over v.
    pub qkv: TernaryMatrix,
    /// `[hidden, heads · head_dim]`
    pub o: TernaryMatrix,
    /// Gate beside up, or up alone.
    pub up: TernaryMatrix,
    /// `[hidden, inner]`
    pub down: TernaryMatrix,
}

/// Which tokens of a step get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: only the cache is filled.
    None,
    /// The last, in the first row.
    Last,
    /// The last; its largest becomes the next id, and the position moves on by the tokens.
    Next,
    /// All.
    All,
}

/// A network.
#[derive(Clone, Debug)]
pub struct DecodeModel {
    /// Its sizes.
    pub shape: DecodeShape,
    /// `[vocabulary, hidden]`
    pub embedding: VocabularyMatrix,
    /// The same; the embedding if none.
    pub head: Option<VocabularyMatrix>,
    /// The last norm, `[hidden]`.
    pub norm: DeviceArray<f32>,
    /// The blocks.
    pub layers: Vec<DecodeLayer>,
}

/// A sequence that is being read and written, all of it on the GPU.
#[derive(Clone, Debug)]
pub struct DecodeState {
    /// Ids, position and the largest logits.
    pub output: HeadOutput,
    /// `[tokens, vocabulary]`
    pub logits: DeviceArray<f32>,
    /// Keys and values.
    pub cache: KvCache,
    attention: Attention,
    x: DeviceArray<f32>,
    qkv: DeviceArray<f32>,
    mixed: DeviceArray<f32>,
    active: DeviceArray<f32>,
    bytes: DeviceArray<i8>,
    scales: DeviceArray<f32>,
}

impl DecodeState {
    /// With room for `context` positions, `tokens` of them at a time.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for heads that attention has no form for, more than 16 tokens, or a table that is too short; [`CudaError::OutOfMemory`].
    pub fn new(
        gpu: &Gpu,
        model: &DecodeModel,
        kind: KvKind,
        context: usize,
        tokens: usize,
        rotation: Rotation,
    ) -> Result<Self> {
        if tokens == 0 || tokens > MOST_TOKENS {
            return Err(CudaError::shape(
                "DecodeState",
                format!("1 to {MOST_TOKENS} tokens"),
                tokens,
            ));
        }
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            inner,
            eps,
            ..
        } = model.shape;
        let cache = KvCache::new(gpu, kind, model.layers.len(), kv_heads, head_dim, context)?;
        let widest = model
            .layers
            .iter()
            .flat_map(|layer| [&layer.qkv, &layer.o, &layer.up, &layer.down])
            .map(TernaryMatrix::padded_cols)
            .max();
        Ok(DecodeState {
            output: HeadOutput::new(gpu, tokens, cache.context())?,
            logits: gpu.zeros(tokens * model.head().rows())?,
            attention: Attention::new(gpu, heads, eps, tokens, rotation, &cache)?,
            cache,
            x: gpu.zeros(tokens * hidden)?,
            qkv: gpu.zeros(tokens * (heads + 2 * kv_heads) * head_dim)?,
            mixed: gpu.zeros(tokens * heads * head_dim)?,
            active: gpu.zeros(tokens * inner)?,
            bytes: gpu.zeros(tokens * widest.unwrap_or(0))?,
            scales: gpu.zeros(tokens)?,
        })
    }

    /// Bytes that a state takes, for a network of so many `layers` and words of `vocabulary`: what grows with the context, and what does not. About: arrays of a few
    /// values are left out.
    pub fn bytes_needed(
        shape: &DecodeShape,
        (layers, vocabulary): (usize, usize),
        kind: KvKind,
        context: usize,
        tokens: usize,
    ) -> [u64; 2] {
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            inner,
            ..
        } = *shape;
        let scales = if kind == KvKind::Int8 { 4 } else { 0 };
        let position = 2 * layers * kv_heads * (head_dim * kind.bytes() + scales) + 4 * head_dim + 4;
        let parts = 4 * tokens * heads * (head_dim + 2);
        let context = context.next_multiple_of(128);
        let widest = hidden.max(heads * head_dim).max(inner).next_multiple_of(320);
        let token = 4 * (vocabulary + hidden + (2 * heads + 2 * kv_heads) * head_dim + inner) + widest;
        [
            position as u64 * context as u64 + parts as u64 * (context / 128) as u64,
            tokens as u64 * token as u64,
        ]
    }

    /// Writes `ids` from position `first` on, and says that what comes next is the token at `position`.
    ///
    /// # Errors
    /// [`CudaError::Shape`] where they do not fit in the context.
    pub fn place(&self, gpu: &Gpu, first: usize, ids: &[u32], position: usize) -> Result<()> {
        let context = self.output.ids.len();
        if first + ids.len() > context || position > context {
            return Err(CudaError::shape(
                "DecodeState",
                format!("positions up to {context}"),
                first + ids.len(),
            ));
        }
        gpu.write(&self.output.ids.slice(first..first + ids.len()), ids)?;
        gpu.write(&self.output.position, &[position as u32])
    }
}

impl DecodeModel {
    /// The head.
    pub fn head(&self) -> &VocabularyMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of weights that a token reads.
    pub fn bytes_per_token(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .flat_map(|layer| [&layer.qkv, &layer.o, &layer.up, &layer.down]);
        layers.map(TernaryMatrix::bytes).sum::<usize>() + self.head().bytes()
    }

    /// Launches all of `tokens` tokens, those from the position on: into the cache, and as `logits` says their logits into `state.logits` and the id of the
    /// largest of each into `state.output.best`. It can be recorded.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for weights that do not fit each other or more tokens than the state has room for.
    pub fn step(&self, gpu: &Gpu, state: &DecodeState, tokens: usize, logits: Logits) -> Result<()> {
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            inner,
            eps,
            residual_scale,
            feed_forward,
        } = self.shape;
        if tokens == 0 || tokens > state.scales.len() {
            return Err(CudaError::shape(
                "DecodeModel",
                format!("1 to {} tokens", state.scales.len()),
                tokens,
            ));
        }
        let [x, qkv, mixed, active] = [
            (&state.x, hidden),
            (&state.qkv, (heads + 2 * kv_heads) * head_dim),
            (&state.mixed, heads * head_dim),
            (&state.active, inner),
        ]
        .map(|(array, width)| array.slice(..tokens * width));
        let project =
            |matrix: &TernaryMatrix, x: &DeviceArray<f32>, norm: Option<&DeviceArray<f32>>, epilogue: Epilogue<'_>| {
                if tokens <= MOST_NORMED {
                    return normed_ternary_gemv(gpu, matrix, x, norm, eps, epilogue);
                }
                let (bytes, scales) = (
                    state.bytes.slice(..tokens * matrix.padded_cols()),
                    state.scales.slice(..tokens),
                );
                norm_quantize(gpu, x, matrix.cols(), norm, eps, &bytes, &scales)?;
                ternary_gemv(gpu, matrix, &bytes, &scales, epilogue)
            };
        embed(gpu, &self.embedding, &state.output.ids, &state.output.position, &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            project(&layer.qkv, &x, Some(&layer.input_norm), Epilogue::Store(&qkv))?;
            let norms = layer.qk_norms.as_ref().map(|norms| norms.each_ref());
            attend(
                gpu,
                &state.attention,
                &state.cache,
                index,
                &qkv,
                norms,
                &state.output.position,
                &mixed,
            )?;
            project(
                &layer.o,
                &mixed,
                layer.attn_sub_norm.as_ref(),
                Epilogue::Add(&x, residual_scale),
            )?;
            let epilogue = match feed_forward {
                FeedForwardKind::Relu2 => Epilogue::Relu2(&active),
                FeedForwardKind::GatedRelu2 => Epilogue::GatedRelu2(&active),
                FeedForwardKind::SwiGlu => Epilogue::GatedSilu(&active),
            };
            project(&layer.up, &x, Some(&layer.post_attention_norm), epilogue)?;
            project(
                &layer.down,
                &active,
                layer.ffn_sub_norm.as_ref(),
                Epilogue::Add(&x, residual_scale),
            )?;
        }
        let (first, advance) = match logits {
            Logits::None => return Ok(()),
            Logits::Last => (tokens - 1, 0),
            Logits::Next => (tokens - 1, tokens),
            Logits::All => (0, 0),
        };
        let (x, count) = (x.slice(first * hidden..), tokens - first);
        let logits = state.logits.slice(..count * self.head().rows());
        head(
            gpu,
            self.head(),
            &x,
            &self.norm,
            eps,
            Some(&logits),
            &state.output,
            advance,
        )
    }
}
