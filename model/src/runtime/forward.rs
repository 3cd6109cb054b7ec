//! The forward pass of a chunk of tokens: the block of ARCHITECTURE.md §2.3, each token by the same operations whatever the
//! chunk, so that prefill, decode and a resumed cache agree bit for bit.

use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::ternary::padded_cols;
use onebit_kernels_cpu::{Isa, activation, elementwise, quantize, rms_norm, rope};

use super::buffers::{Buffers, quantized_len};
use super::executor::{Executor, Shares};
use super::linear::{self, Input, MAX_STACK, Matrix, Scratch};
use super::product::Product;
use super::weights::{Block, Linear, PackedModel};
use crate::config::FeedForward;

/// Tokens of a chunk that belong to one sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The number of the sequence.
    pub sequence: usize,
    /// Where they begin in the chunk.
    pub at: usize,
    /// Position of the first of them in their context.
    pub first: usize,
    pub tokens: usize,
}

/// One pass: a model, the machine, and whose tokens the chunk holds.
pub(super) struct Pass<'a, E> {
    pub model: &'a PackedModel,
    pub exec: &'a E,
    pub isa: Isa,
    /// One after the other, by ascending sequence.
    pub spans: &'a [Span],
    /// Tokens of all of them.
    pub tokens: usize,
}

impl<E: Executor> Pass<'_, E> {
    /// Runs all blocks: `buffers.x` holds the residual stream afterwards, and the cache the chunk's keys and values.
    pub fn blocks(&self, ids: &[u32], buffers: &mut Buffers) {
        self.embed(ids, buffers);
        for (layer, block) in self.model.blocks.iter().enumerate() {
            self.block(layer, block, buffers);
        }
    }

    /// The rows of the rotary table that the tokens of several sequences need, into `buffers.turns`.
    pub fn gather_turns(&self, buffers: &mut Buffers) {
        if self.spans.len() < 2 {
            return;
        }
        let half = self.model.config.head_dim / 2;
        for (table, rows) in [&buffers.cos, &buffers.sin].into_iter().zip(&mut buffers.turns) {
            for span in self.spans {
                rows[span.at * half..][..span.tokens * half]
                    .copy_from_slice(&table[span.first * half..][..span.tokens * half]);
            }
        }
    }

    /// The rows of the embedding into `buffers.x`.
    pub fn embed(&self, ids: &[u32], buffers: &mut Buffers) {
        let hidden = self.model.config.hidden_size;
        for (&id, x) in ids.iter().zip(buffers.x.chunks_exact_mut(hidden)) {
            self.model.embedding.copy_row(id as usize, x);
        }
    }

    /// Runs block `layer` over the residual stream in `buffers.x`.
    pub fn block(&self, layer: usize, block: &Block, buffers: &mut Buffers) {
        self.attention(layer, block, buffers);
        self.feed_forward(block, buffers);
    }

    fn attention(&self, layer: usize, block: &Block, buffers: &mut Buffers) {
        let config = &self.model.config;
        let (tokens, hidden, dim) = (self.tokens, config.hidden_size, config.head_dim);
        let (query, key_value) = (config.query_size(), config.key_value_size());
        let Buffers {
            caches,
            cos,
            sin,
            turns,
            x,
            normed,
            bytes,
            scales,
            blocks,
            stacked,
            mixed,
            branch,
            tile,
            parts,
            scratch,
            ..
        } = buffers;

        let stacked = &mut stacked[..tokens * (query + 2 * key_value)];
        let (source, norm) = (Source::Rows(&x[..tokens * hidden]), Some(&*block.input_norm));
        let linears = [&block.q, &block.k, &block.v];
        let room = Room {
            normed,
            bytes,
            scales,
            blocks,
            scratch,
        };
        if tokens == 1 || self.exec.threads() == 1 {
            self.project(&linears, source, norm, room, stacked);
        } else {
            let tile = &mut tile[..stacked.len()];
            self.project(&linears, source, norm, room, tile)
                .lay_out(self.exec, stacked);
        }

        let (q, rest) = stacked.split_at_mut(tokens * query);
        let (k, v) = rest.split_at_mut(tokens * key_value);
        let (cos, sin) = match *self.spans {
            [Span { first, .. }] => {
                let table = first * dim / 2..(first + tokens) * dim / 2;
                (&cos[table.clone()], &sin[table])
            }
            _ => (&*turns[0], &*turns[1]),
        };
        // `mixed` is free until attention writes it, and holds a head's values before they are normed.
        self.turn(q, config.num_attention_heads, block.q_norm.as_deref(), cos, sin, mixed);
        self.turn(k, config.num_key_value_heads, block.k_norm.as_deref(), cos, sin, mixed);
        let mixed = &mut mixed[..tokens * query];
        self.attend(layer, [&*q, &*k, &*v], caches, mixed, parts, scratch);
        let room = Room {
            normed,
            bytes,
            scales,
            blocks,
            scratch,
        };
        let source = Source::Rows(mixed);
        let branch = &mut branch[..tokens * hidden];
        let product = self.project(&[&block.o], source, block.attn_sub_norm.as_deref(), room, branch);
        self.add(&product, &mut x[..tokens * hidden]);
    }

    /// Norms (with `w`) and rotates the heads of `x`, `[tokens, heads · head_dim]`.
    fn turn(&self, x: &mut [f32], heads: usize, w: Option<&[f32]>, cos: &[f32], sin: &[f32], spare: &mut [f32]) {
        let dim = self.model.config.head_dim;
        if let Some(w) = w {
            let spare = &mut spare[..x.len()];
            spare.copy_from_slice(x);
            self.norm(spare, w, x);
        }
        let (row, half) = (heads * dim, dim / 2);
        self.exec.rows(x, self.chunk(4 * row) * row, |first, x| {
            let table = first / row * half..(first + x.len()) / row * half;
            rope::rope(self.isa, x, heads, dim, &cos[table.clone()], &sin[table], false);
        });
    }

    fn feed_forward(&self, block: &Block, buffers: &mut Buffers) {
        let config = &self.model.config;
        let (tokens, hidden, inner) = (self.tokens, config.hidden_size, config.intermediate_size);
        let Buffers {
            x,
            normed,
            bytes,
            scales,
            blocks,
            stacked,
            mixed,
            branch,
            scratch,
            ..
        } = buffers;

        let source = Source::Rows(&x[..tokens * hidden]);
        let norm = Some(&*block.post_attention_norm);
        let room = Room {
            normed,
            bytes,
            scales,
            blocks,
            scratch,
        };
        let product = match &block.gate {
            Some(gate) => self.project(
                &[gate, &block.up],
                source,
                norm,
                room,
                &mut stacked[..2 * tokens * inner],
            ),
            None => self.project(&[&block.up], source, norm, room, &mut stacked[..tokens * inner]),
        };
        let active = Active {
            product,
            function: config.feed_forward,
            width: inner,
        };
        let mut source = Source::Active(&active);
        let mixed = &mut mixed[..tokens * inner];
        if !block.down.is_quantized() {
            self.each_token(
                12 * inner,
                (mixed, inner),
                (&mut *scales, 1),
                scratch,
                |token, out, _, scratch| {
                    out.copy_from_slice(active.row(self.isa, token, &mut scratch.row));
                },
            );
            source = Source::Rows(mixed);
        }
        let room = Room {
            normed,
            bytes,
            scales,
            blocks,
            scratch,
        };
        let branch = &mut branch[..tokens * hidden];
        let product = self.project(&[&block.down], source, block.ffn_sub_norm.as_deref(), room, branch);
        self.add(&product, &mut x[..tokens * hidden]);
    }

    /// Tokens of a piece of a phase that touches `bytes` bytes a token.
    fn chunk(&self, bytes: usize) -> usize {
        self.tokens
            .div_ceil(self.exec.pieces(bytes.saturating_mul(self.tokens)))
    }

    /// RMSNorm of rows of `w.len()` values.
    pub(super) fn norm(&self, x: &[f32], w: &[f32], out: &mut [f32]) {
        let rows = (out.len() / w.len()).div_ceil(self.exec.pieces(8 * out.len()));
        self.exec.rows(out, rows * w.len(), |first, out| {
            rms_norm::rms_norm(
                self.isa,
                &x[first..first + out.len()],
                w,
                self.model.config.rms_norm_eps,
                out,
            );
        });
    }

    /// `x += c · branch`, `c` the factor of residual scaling.
    fn add(&self, branch: &Product<'_>, x: &mut [f32]) {
        let scale = self.model.config.residual_scale();
        let row = self.model.config.hidden_size;
        self.exec.rows(x, self.chunk(12 * row) * row, |first, x| {
            for (i, x) in x.chunks_exact_mut(row).enumerate() {
                branch.each(0, first / row + i, |first, branch| {
                    elementwise::axpy(self.isa, scale, branch, &mut x[first..first + branch.len()]);
                });
            }
        });
    }

    /// Calls `f(token, piece, other piece, scratch)` for every token; `a` and `b` hold so many values for each. `bytes` are what a token touches.
    fn each_token<T: Send, U: Send>(
        &self,
        bytes: usize,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        scratch: &mut [Scratch],
        f: impl Fn(usize, &mut [T], &mut [U], &mut Scratch) + Sync,
    ) {
        let (a_width, b_width) = (a.1, b.1);
        let (a, b) = (
            (&mut a.0[..self.tokens * a_width], a_width),
            (&mut b.0[..self.tokens * b_width], b_width),
        );
        // A token is a unit, and there are no more pieces.
        let pieces = self.exec.pieces(bytes.saturating_mul(self.tokens));
        let shares = Shares::even(pieces.min(self.tokens));
        self.exec.share_zipped(shares, a, b, scratch, |first, a, b, scratch| {
            for (i, (a, b)) in a.chunks_exact_mut(a_width).zip(b.chunks_exact_mut(b_width)).enumerate() {
                f(first / a_width + i, a, b, scratch);
            }
        });
    }

    /// Products of the same input, normed by `norm` first, with up to three linears; the input is quantised once if any of them takes bytes,
    /// and not kept as floats if all of them do.
    fn project<'a>(
        &self,
        linears: &[&Linear],
        x: Source<'_>,
        norm: Option<&[f32]>,
        room: Room<'_>,
        out: &'a mut [f32],
    ) -> Product<'a> {
        let cols = linears.first().map_or(0, |first| first.cols());
        let mut stack = [Matrix::Float(self.model.head()); MAX_STACK];
        for (matrix, linear) in stack.iter_mut().zip(linears) {
            *matrix = Matrix::Linear(linear);
        }
        let padded = padded_cols(cols);
        let bytes = &mut room.bytes[..quantized_len(self.tokens, cols)];
        let scales = &mut room.scales[..self.tokens];
        let (any, all) = (
            linears.iter().any(|linear| linear.is_quantized()),
            linears.iter().all(|linear| linear.is_quantized()),
        );
        // What is multiplied as floats, where not all is quantised.
        let float: &[f32] = match (x, norm) {
            (Source::Rows(x), Some(w)) if !all => {
                let normed = &mut room.normed[..x.len()];
                self.norm(x, w, normed);
                normed
            }
            (Source::Rows(x), _) => x,
            (Source::Active(_), _) => &[],
        };
        if any {
            let (eps, norm) = (self.model.config.rms_norm_eps, norm.filter(|_| all));
            let (bytes, scales) = ((&mut *bytes, padded), (&mut *scales, 1));
            self.each_token(5 * cols, bytes, scales, room.scratch, |token, bytes, scale, scratch| {
                let x = match x {
                    Source::Rows(_) => &float[token * cols..(token + 1) * cols],
                    Source::Active(active) => active.row(self.isa, token, &mut scratch.row),
                };
                match norm {
                    Some(w) => rms_norm::rms_norm_i8(self.isa, x, w, eps, bytes, padded, scale),
                    None => quantize::absmax_i8(self.isa, x, cols, bytes, padded, scale),
                }
            });
        }
        let mut blocks: &[InputBlock] = &[];
        if linears.iter().any(|linear| matches!(linear, Linear::Int4 { .. })) {
            let each = int4_gemv::blocks(cols);
            let into = &mut room.blocks[..self.tokens * each];
            let (bytes, scales) = (&*bytes, &*scales);
            self.exec.rows(into, self.chunk(3 * cols) * each, |first, into| {
                let tokens = first / each..(first + into.len()) / each;
                let bytes = &bytes[tokens.start * padded..tokens.end * padded];
                int4_gemv::input_of_bytes(bytes, padded, cols, &scales[tokens], into);
            });
            blocks = into;
        }
        let input = Input {
            tokens: self.tokens,
            float,
            bytes,
            scales,
            blocks,
        };
        linear::multiply(self.exec, self.isa, &stack[..linears.len()], input, out, room.scratch)
    }
}

/// The input of a product.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// `[tokens, cols]`
    Rows(&'a [f32]),
    /// Of a linear that takes bytes: rows are made when they are quantised.
    Active(&'a Active<'a>),
}

/// The activation function of what gate and up gave, or up alone.
struct Active<'a> {
    product: Product<'a>,
    function: FeedForward,
    /// Values of a row.
    width: usize,
}

impl Active<'_> {
    /// The row of `token`, made in `spare`.
    fn row<'s>(&self, isa: Isa, token: usize, spare: &'s mut [f32]) -> &'s [f32] {
        let (out, rest) = spare.split_at_mut(self.width);
        let (g, u) = rest.split_at_mut(self.width);
        let g = self.product.row(0, token, g);
        if self.function == FeedForward::Relu2 {
            activation::relu2(isa, g, out);
            return out;
        }
        let u = self.product.row(1, token, u);
        match self.function {
            FeedForward::SwiGlu => activation::swiglu(isa, g, u, out),
            _ => activation::relu2_gate(isa, g, u, out),
        }
        out
    }
}

/// What a product needs beside its input and output.
struct Room<'a> {
    normed: &'a mut [f32],
    bytes: &'a mut [i8],
    scales: &'a mut [f32],
    blocks: &'a mut [InputBlock],
    scratch: &'a mut [Scratch],
}
