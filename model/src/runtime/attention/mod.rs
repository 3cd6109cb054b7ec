//! Attention of a chunk over the cache, shared among the threads.
//!
//! ```text
//! few tokens           pieces: (key head, block of positions)      then the parts of each head are merged
//! more                 pieces: tokens × all heads, cut so that each sees as many positions
//! several sequences    pieces: sequences, or tokens × all heads, each over its own cache      (`several`)
//! ```
//! All give the same bits (`onebit_kernels_cpu::attention::cached`). The first reads every key and value once, whatever the number of
//! key heads and threads; the second shares what it reads among the tokens of a piece.

mod several;

use onebit_kernels_cpu::attention::cached::{self, Queries};

use super::cache::{Cache, FEW_TOKENS, Head};
use super::executor::{Executor, Shares};
use super::forward::{Pass, Span};
use super::linear::Scratch;

/// Pieces of a phase whose work is cut by tokens, at most.
const MOST_PIECES: usize = 64;
/// Bytes that come from memory together.
const LINE: usize = 64;
/// Pieces of blocks for one that the executor asks for: blocks are not equally long, and a piece costs little.
const FINER: usize = 4;

/// The end of piece `i` of `pieces` that see as many positions each, for `tokens` tokens after `first`.
fn cut(first: usize, tokens: usize, i: usize, pieces: usize) -> usize {
    // Positions that the first `t` tokens see together.
    let seen = |t: usize| t * first + t * (t + 1) / 2;
    let share = seen(tokens).div_ceil(pieces);
    (0..tokens).find(|&t| seen(t) >= (i + 1) * share).unwrap_or(tokens)
}

impl<E: Executor> Pass<'_, E> {
    /// Stores the keys and values of the chunk, `[tokens, kv_heads · head_dim]` each, and writes the attention of every query and head over the positions up to its own; `q` and `out` are
    /// `[tokens, heads · head_dim]`.
    pub(super) fn attend(
        &self,
        layer: usize,
        [q, k, v]: [&[f32]; 3],
        caches: &mut [Cache],
        out: &mut [f32],
        parts: &mut [f32],
        scratch: &mut [Scratch],
    ) {
        let kv_heads = self.model.config.num_key_value_heads;
        let layer = layer * kv_heads..(layer + 1) * kv_heads;
        let [span] = self.spans else {
            return self.attend_several(layer, [q, k, v], caches, out, scratch);
        };
        let heads = &mut caches[span.sequence].heads[layer];
        // A key is a column of its panel: each of its values touches a line.
        let pieces = self.exec.pieces(LINE * k.len());
        self.exec.rows(heads, kv_heads.div_ceil(pieces), |first, some| {
            for (i, head) in some.iter_mut().enumerate() {
                self.store(span, first + i, head, [k, v]);
            }
        });
        self.attend_one(span, q, heads, out, parts, scratch);
    }

    /// Stores what a span has for one key head.
    fn store(&self, span: &Span, number: usize, head: &mut Head, [k, v]: [&[f32]; 2]) {
        let (dim, heads) = (self.model.config.head_dim, self.model.config.num_key_value_heads);
        // From the head's part of the first token to that of the last.
        let at = (span.at * heads + number) * dim;
        let at = at..at + (span.tokens - 1) * heads * dim + dim;
        let place = [span.first, span.tokens];
        head.store(self.isa, dim, place, &k[at.clone()], &v[at], heads * dim);
    }

    /// Attention of a chunk of one sequence.
    fn attend_one(
        &self,
        span: &Span,
        q: &[f32],
        heads: &[Head],
        out: &mut [f32],
        parts: &mut [f32],
        scratch: &mut [Scratch],
    ) {
        let (dim, kv_heads) = (self.model.config.head_dim, heads.len());
        let queries = self.queries(span);
        let group = queries.group;
        let work = (8 * q.len()).saturating_mul(span.first + self.tokens);
        let pieces = self.exec.pieces(work);
        if self.tokens > FEW_TOKENS {
            let pieces = pieces.min(MOST_PIECES);
            let mut rest = out;
            let mut start = 0;
            let mut cuts: [(usize, &mut [f32]); MOST_PIECES] = core::array::from_fn(|_| (0, &mut [][..]));
            for (i, piece) in cuts[..pieces].iter_mut().enumerate() {
                let end = cut(span.first, self.tokens, i, pieces);
                let (now, later) = core::mem::take(&mut rest).split_at_mut((end - start) * queries.stride);
                *piece = (start, now);
                (start, rest) = (end, later);
            }
            let (cuts, shares) = (&mut cuts[..pieces], Shares::even(pieces));
            self.exec.share(shares, cuts, 1, scratch, |_, some, scratch| {
                let [(token, out)] = some else {
                    return;
                };
                let queries = Queries {
                    tokens: out.len() / queries.stride,
                    first: span.first + *token,
                    ..queries
                };
                if queries.tokens == 0 {
                    return;
                }
                for (i, head) in heads.iter().enumerate() {
                    let at = i * group * dim;
                    let (q, out) = (&q[*token * queries.stride + at..], &mut out[at..]);
                    cached::attend(self.isa, head.view(), queries, q, out, &mut scratch.scores);
                }
            });
            return;
        }
        let (blocks, len) = (queries.blocks(), queries.part_len());
        let parts = &mut parts[..kv_heads * blocks * len];
        let chunk = match (pieces, blocks) {
            (1, _) => kv_heads * blocks,
            // Equal shares, each to the thread that has it in its caches.
            (_, 1) => kv_heads.div_ceil(self.exec.threads().min(pieces)),
            _ => (kv_heads * blocks).div_ceil(FINER * pieces),
        };
        self.exec.rows(parts, chunk * len, |first, some| {
            for (i, part) in some.chunks_exact_mut(len).enumerate() {
                let (head, block) = ((first / len + i) / blocks, (first / len + i) % blocks);
                let q = &q[head * group * dim..];
                cached::attend_block(self.isa, heads[head].view(), queries, q, block, part);
            }
        });
        let merge = |parts: &mut [f32], out: &mut [f32]| {
            for (i, parts) in parts.chunks_exact_mut(blocks * len).enumerate() {
                cached::merge_blocks(self.isa, queries, parts, &mut out[i * group * dim..]);
            }
        };
        if self.tokens > 1 {
            return merge(parts, out);
        }
        let chunk = kv_heads.div_ceil(self.exec.pieces(size_of_val(parts)));
        let (parts_chunk, out_chunk) = (chunk * blocks * len, chunk * group * dim);
        self.exec
            .zip(parts, parts_chunk, out, out_chunk, |_, parts, out| merge(parts, out));
    }

    /// The queries of a span.
    fn queries(&self, span: &Span) -> Queries {
        let config = &self.model.config;
        Queries {
            tokens: span.tokens,
            group: config.num_attention_heads / config.num_key_value_heads,
            head_dim: config.head_dim,
            stride: config.query_size(),
            first: span.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn pieces_cover_the_tokens_and_see_as_many_positions() {
        for (first, tokens) in [(0, 10), (0, 512), (448, 64), (5000, 33), (3, 1000)] {
            for pieces in [1, 2, 3, 4, 7, 64] {
                let ends: Vec<usize> = (0..pieces).map(|i| cut(first, tokens, i, pieces)).collect();
                assert_eq!(ends[pieces - 1], tokens);
                assert!(ends.is_sorted());
                let seen = |from: usize, to: usize| (from..to).map(|t| first + t + 1).sum::<usize>();
                let share = seen(0, tokens) / pieces;
                let mut start = 0;
                for end in ends {
                    // Within one token of the same work.
                    assert!(
                        seen(start, end) <= share + first + tokens + pieces,
                        "{first} {tokens} {pieces}"
                    );
                    start = end;
                }
            }
        }
    }
}
