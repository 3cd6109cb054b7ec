//! From the residual stream to logits: the last norm, and the head, all of it or the rows that can be among the largest.

use onebit_kernels_cpu::int4_gemv::InputBlock;
use onebit_kernels_cpu::ternary::padded_cols;
use onebit_kernels_cpu::{int4_gemv, quantize, softcap};

use super::buffers::{Buffers, quantized_len};
use super::executor::Executor;
use super::floats::{FloatMatrix, FloatValues};
use super::forward::Pass;
use super::linear::{self, Input, Matrix, Scratch};
use super::shortlist::{Shortlist, ShortlistBuffers};
use super::sketch::Top;

/// Most tokens whose logits are searched one by one: at two bits and sixteen, so many sketches are half a head.
const SEARCHED_TOKENS: usize = 4;

impl<E: Executor> Pass<'_, E> {
    /// Logits of tokens `from..from + count` of the chunk into `buffers.logits`, `[count, vocab_size]`, capped where the model caps them; those that cannot be among the
    /// `top` may be −∞.
    pub fn logits(&self, from: usize, count: usize, top: Option<Top<'_>>, buffers: &mut Buffers) {
        let (hidden, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let Buffers {
            x,
            normed,
            bytes,
            scales,
            head_input,
            logits,
            tile,
            scratch,
            search,
            searched,
            ..
        } = buffers;
        let x = &x[from * hidden..(from + count) * hidden];
        let input = self.head_input(x, normed, bytes, scales, head_input);
        // The sketch is read once for each token, the whole head once for all of them.
        if count <= SEARCHED_TOKENS
            && let (Some(top), Some(sketch), Some(search)) = (top, &self.model.sketch, search)
        {
            for (token, logits) in logits.chunks_exact_mut(vocab).take(count).enumerate() {
                let x = input.part(token, 1);
                searched.searched += 1;
                match sketch.search(self.exec, self.isa, self.capped_head(), x, top, search, scratch, logits) {
                    Some(found) => {
                        searched.second += found.second;
                        searched.rows += found.rows;
                        searched.bytes += found.bytes;
                    }
                    None => {
                        searched.whole += 1;
                        self.head(x, logits, tile, scratch);
                    }
                }
            }
            return;
        }
        self.head(input, &mut logits[..count * vocab], tile, scratch);
    }

    /// Logits of the rows in `buffers.branch`, into `buffers.logits`: all of the first `all` rows, and of as many more as there are `tops` those that can be among them by the `shortlist` of the head, and −∞ for others; without one there are no `tops`.
    pub fn logits_for(
        &self,
        all: usize,
        tops: &[Top<'_>],
        shortlist: Option<&mut (Shortlist, ShortlistBuffers)>,
        buffers: &mut Buffers,
    ) {
        let (hidden, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let count = all + tops.len();
        let Buffers {
            branch,
            normed,
            bytes,
            scales,
            head_input,
            logits,
            tile,
            scratch,
            ..
        } = buffers;
        let input = self.head_input(&branch[..count * hidden], normed, bytes, scales, head_input);
        let logits = &mut logits[..count * vocab];
        let Some((shortlist, search)) = shortlist.filter(|_| !tops.is_empty()) else {
            return self.head(input, logits, tile, scratch);
        };
        let (whole, some) = logits.split_at_mut(all * vocab);
        if all > 0 {
            self.head(input.part(0, all), whole, tile, scratch);
        }
        let input = input.part(all, tops.len());
        shortlist.search(
            self.exec,
            self.isa,
            self.capped_head(),
            input,
            tops,
            search,
            scratch,
            some,
        );
        for (token, logits) in some.chunks_exact_mut(vocab).enumerate() {
            if search.found[token].is_none() {
                self.head(input.part(token, 1), logits, tile, scratch);
            }
        }
    }

    /// The head, and the cap of its logits.
    fn capped_head(&self) -> (&FloatMatrix, Option<f32>) {
        (self.model.head(), self.model.config.final_logit_softcapping)
    }

    /// What the head multiplies: the rows `x` of the residual stream, normed, in the forms that a head of its type reads.
    fn head_input<'b>(
        &self,
        x: &[f32],
        normed: &'b mut [f32],
        bytes: &'b mut [i8],
        scales: &'b mut [f32],
        blocks: &'b mut [InputBlock],
    ) -> Input<'b> {
        let hidden = self.model.config.hidden_size;
        let count = x.len() / hidden;
        let normed = &mut normed[..x.len()];
        self.norm(x, &self.model.norm, normed);
        let mut input = Input::of_floats(count, &[]);
        match self.model.head().values {
            FloatValues::Int4 { .. } => {
                let blocks = &mut blocks[..count * int4_gemv::blocks(hidden)];
                int4_gemv::quantize_input(self.isa, normed, hidden, blocks);
                // What the head multiplies is what a shortcut has to estimate.
                int4_gemv::dequantize_input(blocks, hidden, normed);
                input.blocks = blocks;
            }
            FloatValues::Trits { .. } => {
                let bytes = &mut bytes[..quantized_len(count, hidden)];
                let scales = &mut scales[..count];
                quantize::absmax_i8(self.isa, normed, hidden, bytes, padded_cols(hidden), scales);
                (input.bytes, input.scales) = (bytes, scales);
            }
            _ => {}
        }
        input.float = normed;
        input
    }

    /// Every logit of the normed tokens `x`.
    fn head(&self, x: Input<'_>, logits: &mut [f32], tile: &mut [f32], scratch: &mut [Scratch]) {
        let head = [Matrix::Float(self.model.head())];
        if x.tokens == 1 || self.exec.threads() == 1 {
            linear::multiply(self.exec, self.isa, &head, x, logits, scratch);
        } else {
            let tile = &mut tile[..logits.len()];
            linear::multiply(self.exec, self.isa, &head, x, tile, scratch).lay_out(self.exec, logits);
        }
        if let Some(cap) = self.model.config.final_logit_softcapping {
            let piece = logits.len().div_ceil(self.exec.pieces(8 * logits.len()));
            self.exec
                .rows(logits, piece, |_, logits| softcap::softcap(self.isa, cap, logits));
        }
    }
}
