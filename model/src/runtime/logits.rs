//! From the residual stream to logits: the last norm, and the head, all of it or the rows that can be among the largest.

use onebit_kernels_cpu::ternary::padded_cols;
use onebit_kernels_cpu::{int4_gemv, quantize, softcap};

use super::buffers::{Buffers, quantized_len};
use super::executor::Executor;
use super::floats::FloatValues;
use super::forward::Pass;
use super::linear::{self, Input, Matrix, Scratch};
use super::sketch::Top;

/// Most tokens whose logits are searched one by one: at two bits and sixteen, so many sketches are half a head.
const SEARCHED_TOKENS: usize = 4;

impl<E: Executor> Pass<'_, E> {
    /// Logits of tokens `from..from + count` of the chunk into `buffers.logits`, `[count, vocab_size]`, capped where the model caps them; those that cannot be among the
    /// `top` may be −∞.
    pub fn logits(&self, from: usize, count: usize, top: Option<Top<'_>>, buffers: &mut Buffers) {
        let (hidden, vocab) = (self.model.config.hidden_size, self.model.config.vocab_size);
        let x = &buffers.x[from * hidden..(from + count) * hidden];
        let normed = &mut buffers.normed[..count * hidden];
        self.norm(x, &self.model.norm, normed);
        let blocks = int4_gemv::blocks(hidden);
        let mut input = Input::of_floats(count, &[]);
        match self.model.head().values {
            FloatValues::Int4 { .. } => {
                let blocks = &mut buffers.head_input[..count * blocks];
                int4_gemv::quantize_input(self.isa, normed, hidden, blocks);
                // What the head multiplies is what the sketch has to estimate.
                int4_gemv::dequantize_input(blocks, hidden, normed);
                input.blocks = blocks;
            }
            FloatValues::Trits { .. } => {
                let bytes = &mut buffers.bytes[..quantized_len(count, hidden)];
                let scales = &mut buffers.scales[..count];
                quantize::absmax_i8(self.isa, normed, hidden, bytes, padded_cols(hidden), scales);
                (input.bytes, input.scales) = (bytes, scales);
            }
            _ => {}
        }
        input.float = normed;
        // The sketch is read once for each token, the whole head once for all of them.
        if count <= SEARCHED_TOKENS
            && let (Some(top), Some(sketch), Some(search)) = (top, &self.model.sketch, &mut buffers.search)
        {
            for (token, logits) in buffers.logits.chunks_exact_mut(vocab).take(count).enumerate() {
                let x = input.part(token, 1);
                let (head, scratch) = (self.model.head(), &mut buffers.scratch);
                let counts = &mut buffers.searched;
                counts.searched += 1;
                let cap = self.model.config.final_logit_softcapping;
                match sketch.search(self.exec, self.isa, (head, cap), x, top, search, scratch, logits) {
                    Some(found) => {
                        counts.second += found.second;
                        counts.rows += found.rows;
                        counts.bytes += found.bytes;
                    }
                    None => {
                        counts.whole += 1;
                        self.head(x, logits, &mut buffers.tile, scratch);
                    }
                }
            }
            return;
        }
        let logits = &mut buffers.logits[..count * vocab];
        self.head(input, logits, &mut buffers.tile, &mut buffers.scratch);
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
