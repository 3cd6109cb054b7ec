//! The parts of several blocks become the answer, in the order of the blocks.

use super::{KvRef, QUERIES, Queries, attend_block, scratch_len};
use crate::isa::Isa;
use crate::math;
use crate::simd::{LANES, Simd, simd_kernel};

/// Attention of all the queries; `out` is laid out as `q`, and `scratch` [`scratch_len`] long at least.
///
/// # Panics
/// If `q`, `out`, the cache or `scratch` is too short for the queries.
pub fn attend(isa: Isa, kv: KvRef<'_>, queries: Queries, q: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    queries.check(q.len());
    queries.check(out.len());
    assert!(scratch.len() >= scratch_len(queries.head_dim), "scratch too short");
    // A group of many heads is taken in several goes.
    let heads = queries.group.min(QUERIES);
    let tokens = QUERIES / heads;
    for token in (0..queries.tokens).step_by(tokens) {
        for head in (0..queries.group).step_by(heads) {
            let some = Queries {
                tokens: tokens.min(queries.tokens - token),
                group: heads.min(queries.group - head),
                first: queries.first + token,
                ..queries
            };
            let at = token * queries.stride + head * queries.head_dim;
            let (whole, part) = scratch.split_at_mut(some.part_len());
            let part = &mut part[..some.part_len()];
            attend_block(isa, kv, some, &q[at..], 0, whole);
            for block in 1..some.blocks() {
                attend_block(isa, kv, some, &q[at..], block, part);
                merge_part(isa, some, block, whole, part);
            }
            finish(isa, some, whole, &mut out[at..]);
        }
    }
}

/// Merges the parts of all the blocks that the last token sees, one after the other in `parts`, and writes the answer to `out`.
///
/// # Panics
/// If `parts` is not `queries.blocks()` parts, or `out` is too short.
pub fn merge_blocks(isa: Isa, queries: Queries, parts: &mut [f32], out: &mut [f32]) {
    queries.check(out.len());
    let len = queries.part_len();
    assert_eq!(parts.len(), queries.blocks() * len, "length of `parts`");
    if parts.is_empty() {
        return;
    }
    let (whole, parts) = parts.split_at_mut(len);
    for (i, part) in parts.chunks_exact(len).enumerate() {
        merge_part(isa, queries, i + 1, whole, part);
    }
    finish(isa, queries, whole, out);
}

simd_kernel! {
    /// Merges the part of `block` into that of the blocks before it.
    pub fn merge_part(queries: Queries, block: usize, whole: &mut [f32], part: &[f32]) = merge;
}

simd_kernel! {
    /// `o / l`, written to where the outputs lie.
    pub fn finish(queries: Queries, whole: &mut [f32], out: &mut [f32]) = divide;
}

/// The `o`, `m` and `l` of a part.
#[inline(always)]
fn fields<'a>(queries: &Queries, part: &'a mut [f32]) -> [&'a mut [f32]; 3] {
    let rows = queries.rows();
    let (o, rest) = part.split_at_mut(part.len() - 2 * rows);
    let (m, l) = rest.split_at_mut(rows);
    [o, m, l]
}

#[inline(always)]
fn merge<S: Simd>(s: S, queries: Queries, block: usize, whole: &mut [f32], part: &[f32]) {
    let rows = queries.rows();
    let width = queries.head_dim.next_multiple_of(LANES);
    let [o, m, l] = fields(&queries, whole);
    let (part_o, rest) = part.split_at(part.len() - 2 * rows);
    let (part_m, part_l) = rest.split_at(rows);
    let mut row = queries.first_row(block).min(rows);
    while row < rows {
        let some = row..rows.min(row + LANES);
        let (old, new) = (s.load_or(&m[some.clone()], 0.0), s.load_or(&part_m[some.clone()], 0.0));
        let most = s.max(old, new);
        let (a, c) = (math::exp(s, s.sub(old, most)), math::exp(s, s.sub(new, most)));
        let (old, new) = (s.load_or(&l[some.clone()], 0.0), s.load_or(&part_l[some.clone()], 0.0));
        s.store_part(most, &mut m[some.clone()]);
        s.store_part(s.fma(new, c, s.mul(old, a)), &mut l[some.clone()]);
        let (mut keep, mut take) = ([0.0; LANES], [0.0; LANES]);
        s.store(a, &mut keep);
        s.store(c, &mut take);
        for i in some.clone() {
            let (a, c) = (s.splat(keep[i - row]), s.splat(take[i - row]));
            let (o, _) = o[i * width..][..width].as_chunks_mut::<LANES>();
            let (part_o, _) = part_o[i * width..][..width].as_chunks::<LANES>();
            for (o, new) in o.iter_mut().zip(part_o) {
                s.store(s.fma(s.load(new), c, s.mul(s.load(o), a)), o);
            }
        }
        row = some.end;
    }
}

#[inline(always)]
fn divide<S: Simd>(s: S, queries: Queries, whole: &mut [f32], out: &mut [f32]) {
    let [o, _, l] = fields(&queries, whole);
    let vectors = queries.head_dim.div_ceil(LANES);
    let (o, _) = o.as_chunks_mut::<LANES>();
    for (o, l) in o.chunks_exact_mut(vectors).zip(l) {
        let l = s.splat(*l);
        for o in o {
            s.store(s.div(s.load(o), l), o);
        }
    }
    let n = queries.head_dim;
    let rows = whole.chunks_exact(vectors * LANES).take(queries.rows());
    for (row, o) in rows.enumerate() {
        out[queries.at(row)..][..n].copy_from_slice(&o[..n]);
    }
}
