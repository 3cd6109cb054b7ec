//! The memory of a session, all of it taken when the session opens.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::attention::cached;
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::ternary::padded_cols;
use onebit_kernels_cpu::{rope, ternary_gemm};

use super::RuntimeError;
use super::cache::{Cache, head_bytes, parts_len};
use super::floats::FloatValues;
use super::linear::{self, Scratch};
use super::session::SessionOptions;
use super::sketch::{SearchBuffers, SketchCounts};
use super::weights::PackedModel;
use crate::config::{FeedForward, LinearMode, ModelConfig};

pub(super) fn no_memory(what: &'static str, values: usize) -> RuntimeError {
    RuntimeError::OutOfMemory { what, values }
}

pub(super) fn product(what: &'static str, a: usize, b: usize) -> Result<usize, RuntimeError> {
    a.checked_mul(b).ok_or_else(|| no_memory(what, usize::MAX))
}

/// Values from which on a buffer is left to the system to fill with zeros.
const LARGE: usize = 1 << 18;

/// `n` values of 0, or the error that there is no memory for them.
pub(super) fn zeros<T: Clone + Default>(what: &'static str, n: usize) -> Result<Vec<T>, RuntimeError> {
    let mut values: Vec<T> = Vec::new();
    values.try_reserve_exact(n).map_err(|_| no_memory(what, n))?;
    if n < LARGE {
        values.resize(n, T::default());
        return Ok(values);
    }
    drop(core::hint::black_box(values));
    // Pages of zeros that the system gives when they are touched: a short prompt does not pay for the buffers of a long one.
    Ok(vec![T::default(); n])
}

/// Everything that a forward pass writes; `T` is the tokens of a chunk.
pub(super) struct Buffers {
    /// One for each sequence.
    pub caches: Vec<Cache>,
    /// `[context, head_dim / 2]`
    pub cos: Vec<f32>,
    /// `[context, head_dim / 2]`
    pub sin: Vec<f32>,
    /// Rows of `cos` and `sin` for the tokens of a chunk of several sequences, `[T, head_dim / 2]` each.
    pub turns: [Vec<f32>; 2],
    /// The residual stream, `[T, hidden_size]`.
    pub x: Vec<f32>,
    /// A normed input of linears, `[T, widest]`.
    pub normed: Vec<f32>,
    /// The same as bytes, `[T, widest]`.
    pub bytes: Vec<i8>,
    /// `[T]`
    pub scales: Vec<f32>,
    /// The same bytes as int4 linears take them, `[T, blocks of the widest]`, where the model has such.
    pub blocks: Vec<InputBlock>,
    /// Results of q, k, v or of gate, up, `[T, rows]` each, one after the other.
    pub stacked: Vec<f32>,
    /// Results of attention or of the activation function, `[T, query_size or intermediate_size]`.
    pub mixed: Vec<f32>,
    /// What is added to the residual stream, `[T, hidden_size]`.
    pub branch: Vec<f32>,
    /// For what is laid out after it was computed, of several tokens by several threads: results of q, k and v, or logits.
    pub tile: Vec<f32>,
    /// `[logit_rows, vocab_size]`
    pub logits: Vec<f32>,
    /// The parts of each block of positions and key head, for a few tokens at once.
    pub parts: Vec<f32>,
    /// One for each thread.
    pub scratch: Vec<Scratch>,
    /// The input of an int4 head, `[logit_rows, blocks]`, where the model has one.
    pub head_input: Vec<InputBlock>,
    /// For the search of the head, where the model has a sketch of it.
    pub search: Option<SearchBuffers>,
    /// What the search did so far.
    pub searched: SketchCounts,
}

/// Values of each buffer.
struct Lengths {
    widest: usize,
    stacked: usize,
    mixed: usize,
    tile: usize,
    logits: usize,
    parts: usize,
    row: usize,
    panel: usize,
    blocks: usize,
}

impl Lengths {
    fn new(config: &ModelConfig, options: &SessionOptions, threads: usize) -> Result<Self, RuntimeError> {
        const WHAT: &str = "the buffers of a chunk";
        let gates = if config.feed_forward == FeedForward::Relu2 {
            1
        } else {
            2
        };
        let attention = config.query_size() + 2 * config.key_value_size();
        let stacked = product(WHAT, options.chunk, attention.max(gates * config.intermediate_size))?;
        let logits = product("the logits", options.logit_rows, config.vocab_size)?;
        let mut tile = 0;
        if threads > 1 && options.chunk > 1 {
            tile = product(WHAT, options.chunk, attention)?;
            if options.logit_rows > 1 {
                tile = tile.max(logits);
            }
        }
        let widest = PackedModel::widest_input(config);
        Ok(Self {
            widest: product(WHAT, options.chunk, widest)?,
            stacked,
            mixed: product(WHAT, options.chunk, config.query_size().max(config.intermediate_size))?,
            tile,
            logits,
            parts: parts_len(config, options)?,
            row: product(WHAT, 3, config.intermediate_size)?,
            panel: if options.chunk > linear::FEW_TOKENS {
                ternary_gemm::scratch_len(widest)
            } else {
                0
            },
            blocks: match config.uses_mode(LinearMode::Int4) {
                true => product(WHAT, options.chunk, int4_gemv::blocks(widest))?,
                false => 0,
            },
        })
    }
}

impl Buffers {
    pub fn new(
        config: &ModelConfig,
        options: &SessionOptions,
        threads: usize,
        sequences: usize,
    ) -> Result<Self, RuntimeError> {
        const WHAT: &str = "the buffers of a chunk";
        let lengths = Lengths::new(config, options, threads)?;
        let turns = match sequences {
            1 => 0,
            _ => product(WHAT, options.chunk, config.head_dim / 2)?,
        };
        let mut caches = Vec::with_capacity(sequences);
        for _ in 0..sequences {
            caches.push(Cache::new(config, options)?);
        }
        let table = product("the rotary table", options.context, config.head_dim / 2)?;
        let hidden = product(WHAT, options.chunk, config.hidden_size)?;
        let (mut cos, mut sin) = (zeros("the rotary table", table)?, zeros("the rotary table", table)?);
        rope::rope_table(config.rope_theta, config.head_dim, 0, &mut cos, &mut sin);
        let mut scratch = Vec::with_capacity(threads);
        for _ in 0..threads {
            scratch.push(Scratch {
                sums: zeros("scratch", linear::sums_len(options.chunk))?,
                factors: zeros("scratch", options.chunk)?,
                panel: zeros("scratch", lengths.panel)?,
                scores: zeros("scratch", cached::scratch_len(config.head_dim))?,
                columns: zeros("scratch", config.hidden_size)?,
                row: zeros("scratch", lengths.row)?,
                saved: 0,
            });
        }
        Ok(Self {
            caches,
            cos,
            sin,
            turns: [zeros(WHAT, turns)?, zeros(WHAT, turns)?],
            x: zeros(WHAT, hidden)?,
            normed: zeros(WHAT, lengths.widest)?,
            bytes: zeros(WHAT, lengths.widest)?,
            scales: zeros(WHAT, options.chunk)?,
            stacked: zeros(WHAT, lengths.stacked)?,
            mixed: zeros(WHAT, lengths.mixed)?,
            branch: zeros(WHAT, hidden)?,
            tile: zeros(WHAT, lengths.tile)?,
            logits: zeros("the logits", lengths.logits)?,
            parts: zeros("the parts of attention", lengths.parts)?,
            scratch,
            blocks: zeros(WHAT, lengths.blocks)?,
            head_input: Vec::new(),
            search: None,
            searched: SketchCounts::default(),
        })
    }

    /// Takes the memory for the rounded input of `model`'s head, for so many tokens, where it is an int4 one.
    pub fn add_head_input(&mut self, model: &PackedModel, logit_rows: usize) -> Result<(), RuntimeError> {
        const WHAT: &str = "the input of the head";
        let head = model.head();
        if let FloatValues::Int4 { .. } = head.values {
            self.head_input = zeros(WHAT, product(WHAT, logit_rows, int4_gemv::blocks(head.cols))?)?;
        }
        Ok(())
    }

    /// Bytes that [`new`](Self::new) takes for one sequence, the cache with room for the whole context.
    pub fn bytes_needed(config: &ModelConfig, options: &SessionOptions, threads: usize) -> Result<usize, RuntimeError> {
        let lengths = Lengths::new(config, options, threads)?;
        let heads = config.num_hidden_layers as u128 * config.num_key_value_heads as u128;
        let cache = heads * head_bytes(config, options)? as u128;
        let table = options.context as u128 * config.head_dim as u128;
        let chunk = options.chunk as u128 * (2 * config.hidden_size as u128 + 1);
        let shared = [
            lengths.widest,
            lengths.stacked,
            lengths.mixed,
            lengths.tile,
            lengths.logits,
            lengths.parts,
        ];
        let shared: u128 = shared.into_iter().map(|n| n as u128).sum();
        let scores = cached::scratch_len(config.head_dim) as u128;
        let each = 4
            * (linear::sums_len(options.chunk) as u128
                + options.chunk as u128
                + scores
                + (config.hidden_size + lengths.row) as u128)
            + lengths.panel as u128;
        let blocks = lengths.blocks as u128 * size_of::<InputBlock>() as u128;
        let total = cache + 4 * (table + chunk + shared) + lengths.widest as u128 + blocks + threads as u128 * each;
        usize::try_from(total).map_err(|_| no_memory("the session", usize::MAX))
    }
}

/// The bytes of `xq` for `tokens` tokens of `cols` values.
pub(super) fn quantized_len(tokens: usize, cols: usize) -> usize {
    tokens * padded_cols(cols)
}
