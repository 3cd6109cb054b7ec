//! Attention of several sequences at a time.
//!
//! Their caches come from memory, and each is read once. A sequence that goes on by a few tokens is a piece of work by itself: its keys and values are stored and read while they are in the caches of the thread, and
//! the next key head is on its way meanwhile. Longer texts are stored first and then cut by tokens, so that one long prompt is shared among the threads.

use core::ops::Range;

use onebit_kernels_cpu::attention::cached::{self, Queries};

use super::super::cache::{Cache, FEW_TOKENS, Head};
use super::super::executor::{Executor, Shares};
use super::super::forward::{Pass, Span};
use super::super::linear::Scratch;
use super::{FINER, LINE};

/// A sequence that goes on by a few tokens: its key heads, and where the results go.
struct Short<'a> {
    span: &'a Span,
    heads: &'a mut [Head],
    out: &'a mut [f32],
}

impl<E: Executor> Pass<'_, E> {
    /// Stores and attends, of several sequences; `layer` are its heads in each cache.
    pub(super) fn attend_several(
        &self,
        layer: Range<usize>,
        [q, k, v]: [&[f32]; 3],
        caches: &mut [Cache],
        out: &mut [f32],
        scratch: &mut [Scratch],
    ) {
        let stride = self.model.config.query_size();
        let mut short = alloc::vec::Vec::with_capacity(self.spans.len());
        let (mut long, mut rest) = (false, &mut *out);
        // Spans ascend, and so do the tokens of the chunk.
        let mut all = caches.iter_mut().enumerate();
        for span in self.spans {
            let (part, after) = core::mem::take(&mut rest).split_at_mut(span.tokens * stride);
            rest = after;
            let cache = all.find(|(number, _)| *number == span.sequence);
            match cache {
                Some((_, cache)) if span.tokens <= FEW_TOKENS => short.push(Short {
                    span,
                    heads: &mut cache.heads[layer.clone()],
                    out: part,
                }),
                _ => long = true,
            }
        }
        let furthest = self.spans.iter().map(|span| span.first + span.tokens).max();
        let pieces = self.exec.pieces((8 * q.len()).saturating_mul(furthest.unwrap_or(0)));
        let pieces = if pieces > 1 { FINER * pieces } else { 1 };
        let shares = Shares::even(pieces.min(short.len().max(1)));
        self.exec.share(shares, &mut short, 1, scratch, |_, some, scratch| {
            for number in 0..some.len() {
                for i in 0..layer.len() {
                    let next = match i + 1 < layer.len() {
                        true => Some((number, i + 1)),
                        false => (number + 1 < some.len()).then_some((number + 1, 0)),
                    };
                    if let Some((number, i)) = next {
                        let Short { span, heads, .. } = &some[number];
                        cached::ask_for(&heads[i].view(), self.model.config.head_dim, span.first + span.tokens);
                    }
                    let Short { span, heads, out } = &mut some[number];
                    self.store(span, i, &mut heads[i], [k, v]);
                    let queries = self.queries(span);
                    self.attend_head(queries, i, &heads[i], &q[span.at * stride..], out, scratch);
                }
            }
        });
        if !long {
            return;
        }
        let is_long = |span: &&Span| span.tokens > FEW_TOKENS;
        // A key is a column of its panel: each of its values touches a line.
        let chunk = caches.len().div_ceil(self.exec.pieces(LINE * k.len()));
        self.exec.rows(caches, chunk, |first, some| {
            for span in self.spans.iter().filter(is_long) {
                let cache = span.sequence.checked_sub(first).and_then(|at| some.get_mut(at));
                for (number, head) in cache
                    .into_iter()
                    .flat_map(|cache| &mut cache.heads[layer.clone()])
                    .enumerate()
                {
                    self.store(span, number, head, [k, v]);
                }
            }
        });
        let caches = &*caches;
        let shares = Shares::even(pieces.min(self.tokens));
        self.exec.share(shares, out, stride, scratch, |first, out, scratch| {
            let (from, to) = (first / stride, first / stride + out.len() / stride);
            for span in self.spans.iter().filter(is_long) {
                let (a, b) = (span.at.max(from), (span.at + span.tokens).min(to));
                if a >= b {
                    continue;
                }
                let queries = Queries {
                    tokens: b - a,
                    first: span.first + (a - span.at),
                    ..self.queries(span)
                };
                let out = &mut out[(a - from) * stride..];
                for (i, head) in caches[span.sequence].heads[layer.clone()].iter().enumerate() {
                    self.attend_head(queries, i, head, &q[a * stride..], out, scratch);
                }
            }
        });
    }

    /// The queries of key head `number`, from the first of their tokens on.
    fn attend_head(
        &self,
        queries: Queries,
        number: usize,
        head: &Head,
        q: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let at = number * queries.group * queries.head_dim;
        let (q, out) = (&q[at..], &mut out[at..]);
        cached::attend(self.isa, head.view(), queries, q, out, &mut scratch.scores);
    }
}
