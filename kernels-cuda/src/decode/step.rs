//! A network, and tokens from their ids to logits, as one sequence of launches: few at a time, or a chunk of a prompt.

use std::ops::Range;

use super::attention::attend_to;
use super::state::Activations;
use super::{DecodeState, HeadSketch, Vocabulary, attend, attend_many, largest};
use crate::device::{CudaError, DeviceArray, Gpu, Result};
use crate::mixed_linear::{LinearStack, mixed_linear};
use crate::ternary_gemm::Opened;
use crate::ternary_gemv::{Epilogue, MOST_PARTS, Parts, attended_ternary_gemv, takes_parts};

/// The norms of queries and of keys.
type Norms<'a> = Option<[&'a DeviceArray<f32>; 2]>;

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
    /// What the logits are capped by: `cap · tanh(logits / cap)`.
    pub softcap: Option<f32>,
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
    pub qkv: LinearStack,
    /// `[hidden, heads · head_dim]`
    pub o: LinearStack,
    /// Gate beside up, or up alone.
    pub up: LinearStack,
    /// `[hidden, inner]`
    pub down: LinearStack,
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
    /// Of the last only the largest, which becomes the next id, and the position moves on by the tokens; with the [sketch](HeadSketch) of the head if the model has one.
    Largest,
    /// All.
    All,
}

/// A network.
#[derive(Clone, Debug)]
pub struct DecodeModel {
    /// Its sizes.
    pub shape: DecodeShape,
    /// `[vocabulary, hidden]`
    pub embedding: Vocabulary,
    /// The same; the embedding if none.
    pub head: Option<Vocabulary>,
    /// Of the head.
    pub sketch: Option<HeadSketch>,
    /// The last norm, `[hidden]`.
    pub norm: DeviceArray<f32>,
    /// The blocks.
    pub layers: Vec<DecodeLayer>,
}

impl DecodeModel {
    /// The head.
    pub fn head(&self) -> &Vocabulary {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The matrices of all blocks.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &LinearStack> {
        let layers = self.layers.iter();
        layers.flat_map(|layer| [&layer.qkv, &layer.o, &layer.up, &layer.down])
    }

    /// Bytes of the blocks' matrices.
    pub fn block_bytes(&self) -> usize {
        self.matrices().map(LinearStack::bytes).sum()
    }

    /// Bytes of weights that a token reads of which the [largest](Logits::Largest) logit is wanted. Of a head with a sketch, that; the few rows that it leaves are not
    /// counted.
    pub fn bytes_per_token(&self) -> usize {
        let head = self.sketch.as_ref().map_or(self.head().bytes(), HeadSketch::bytes);
        self.block_bytes() + head
    }

    /// Launches all of `tokens` tokens, those from the position on: into the cache, and as `logits` says their logits into `state.logits` and the id of the
    /// largest of each into `state.output.best`. It can be recorded.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for weights that do not fit each other or more tokens than a step of the state has room for.
    pub fn step(&self, gpu: &Gpu, state: &DecodeState, tokens: usize, logits: Logits) -> Result<()> {
        check(tokens, state.room.tokens)?;
        self.sequence(gpu, state, tokens, None)?;
        match logits {
            Logits::None => Ok(()),
            Logits::Last => self.logits(gpu, state, tokens - 1..tokens, 0),
            Logits::Next => self.logits(gpu, state, tokens - 1..tokens, tokens),
            Logits::Largest => self.largest(gpu, state, tokens - 1, tokens),
            Logits::All => self.logits(gpu, state, 0..tokens, 0),
        }
    }

    /// Launches a chunk of `tokens` tokens of a prompt, those from the position on, into the cache, with what a [`step`](Self::step) gives, bit for bit.
    /// Until the next launch [`logits`](Self::logits) makes those of any of them.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for weights that do not fit each other or more tokens than a chunk of the state has room for.
    pub fn prefill(&self, gpu: &Gpu, state: &DecodeState, tokens: usize) -> Result<()> {
        check(tokens, state.room.chunk)?;
        self.sequence(gpu, state, tokens, state.activations.opened.as_ref())
    }

    /// Launches the head for tokens `rows` of what was launched last, as many as a step's at most: their logits into the first rows of `state.logits`. The position moves on
    /// by `advance`.
    ///
    /// # Errors
    /// [`CudaError::Shape`] for more tokens than there is room for.
    pub fn logits(&self, gpu: &Gpu, state: &DecodeState, rows: Range<usize>, advance: usize) -> Result<()> {
        let (hidden, x) = (self.shape.hidden, &state.activations.x);
        if rows.start > rows.end || rows.end * hidden > x.len() {
            return Err(CudaError::shape(
                "DecodeModel",
                format!("some of {} tokens", x.len() / hidden),
                format!("{rows:?}"),
            ));
        }
        check(rows.len(), state.room.tokens)?;
        let logits = state.logits.slice(..rows.len() * self.head().rows());
        self.head().head(
            gpu,
            &x.slice(rows.start * hidden..rows.end * hidden),
            &self.norm,
            (self.shape.eps, self.shape.softcap),
            &logits,
            &state.activations.inputs,
            &state.output,
            advance,
        )
    }

    /// Launches what chooses the id of token `row`.
    fn largest(&self, gpu: &Gpu, state: &DecodeState, row: usize, advance: usize) -> Result<()> {
        let (Some(sketch), Some(search), Vocabulary::Floats(head)) = (&self.sketch, &state.search, self.head()) else {
            return self.logits(gpu, state, row..row + 1, advance);
        };
        let (hidden, x) = (self.shape.hidden, &state.activations.x);
        let x = x.slice(row * hidden..(row + 1) * hidden);
        let head = (head, sketch);
        largest(
            gpu,
            head,
            &x,
            &self.norm,
            (self.shape.eps, self.shape.softcap),
            search,
            &state.output,
            advance,
        )
    }

    /// The blocks for the next `tokens` tokens of one sequence.
    fn sequence(&self, gpu: &Gpu, state: &DecodeState, tokens: usize, opened: Option<&Opened>) -> Result<()> {
        let (attention, cache, position) = (&state.attention, &state.cache, &state.output.position);
        let ids = (&state.output.ids, position);
        self.blocks(
            gpu,
            &state.activations,
            tokens,
            opened,
            ids,
            |index, norms, qkv, mixed| {
                let o = self.layers[index].o.single();
                if opened.is_some() {
                    attend_many(gpu, attention, cache, index, qkv, norms, position, mixed)?;
                } else if tokens == 1 && o.is_some_and(|o| takes_parts(gpu, o, self.shape.head_dim)) {
                    attend_to(gpu, attention, cache, index, qkv, norms, position, mixed, MOST_PARTS)?;
                    return Ok(Some(attention.parts(cache, position)));
                } else {
                    attend(gpu, attention, cache, index, qkv, norms, position, mixed)?;
                }
                Ok(None)
            },
        )
    }

    /// From ids, those from `ids[position]` on, to the residual stream behind the last block. `attend` is told a layer, the norms of its queries and keys, and q, k and v, and writes what the heads
    /// give, or leaves their parts to the product behind it.
    pub(super) fn blocks<'a>(
        &'a self,
        gpu: &Gpu,
        activations: &Activations,
        tokens: usize,
        opened: Option<&Opened>,
        (ids, position): (&DeviceArray<u32>, &DeviceArray<u32>),
        attend: impl Fn(usize, Norms<'a>, &DeviceArray<f32>, &DeviceArray<f32>) -> Result<Option<Parts<'a>>>,
    ) -> Result<()> {
        let DecodeShape {
            hidden,
            heads,
            kv_heads,
            head_dim,
            inner,
            eps,
            residual_scale,
            feed_forward,
            ..
        } = self.shape;
        let [x, qkv, mixed, active] = [
            (&activations.x, hidden),
            (&activations.qkv, (heads + 2 * kv_heads) * head_dim),
            (&activations.mixed, heads * head_dim),
            (&activations.active, inner),
        ]
        .map(|(array, width)| array.slice(..tokens * width));
        let project =
            |stack: &LinearStack, x: &DeviceArray<f32>, norm: Option<&DeviceArray<f32>>, epilogue: Epilogue<'_>| {
                mixed_linear(gpu, stack, x, norm, eps, epilogue, &activations.inputs, opened)
            };
        self.embedding.embed(gpu, ids, position, &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            project(&layer.qkv, &x, Some(&layer.input_norm), Epilogue::Store(&qkv))?;
            let norms = layer.qk_norms.as_ref().map(|norms| norms.each_ref());
            let (norm, epilogue) = (layer.attn_sub_norm.as_ref(), Epilogue::Add(&x, residual_scale));
            match (attend(index, norms, &qkv, &mixed)?, layer.o.single()) {
                (Some(parts), Some(o)) => attended_ternary_gemv(gpu, o, &mixed, norm, eps, epilogue, parts)?,
                _ => project(&layer.o, &mixed, norm, epilogue)?,
            }
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
        Ok(())
    }
}

/// 1 to `most` tokens.
fn check(tokens: usize, most: usize) -> Result<()> {
    if tokens == 0 || tokens > most {
        return Err(CudaError::shape("DecodeModel", format!("1 to {most} tokens"), tokens));
    }
    Ok(())
}
